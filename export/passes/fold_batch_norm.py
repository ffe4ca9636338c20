"""Folds batch norm into the layer before it.

    y = gamma (W x + b - mean) / sqrt(var + epsilon) + beta = (k W) x + (b - mean) k + beta,   k = gamma / sqrt(var + epsilon)

computed in float64 and rounded once. Source: Jacob et al., CVPR 2018 (arXiv 1712.05877), section 3.2.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError

Floats = NDArray[np.float64]


def fold_batch_norm(model: ir.Model) -> None:
    """Folds every batch norm that directly follows a ``Conv`` or ``Gemm`` and is its only reader.

    A layer without a bias gets one. Other batch norms become one ``Mul`` and one ``Add``.

    Raises:
        UnsupportedError: a batch norm's statistics are not constant, or it runs in training mode.
    """
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or node.domain != "":
            continue
        scale, shift = _affine(node)
        layer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if layer is not None and _can_take(layer, node):
            _fold(model.graph, layer, scale, shift)
            _bypass(model.graph, node, layer.outputs[0])
        else:
            _write_mul_add(model.graph, node, scale, shift)


def _affine(node: ir.Node) -> tuple[Floats, Floats]:
    tensors = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:5]]
    if node.attributes.get_int("training_mode", 0) or any(tensor is None for tensor in tensors):
        raise UnsupportedError(
            f"batch norm {node.name} has no constant statistics. Put the network in eval mode, with running statistics."
        )
    gamma, beta, mean, var = (tensor.numpy().astype(np.float64) for tensor in tensors if tensor is not None)
    scale = gamma / np.sqrt(var + node.attributes.get_float("epsilon", 1e-5))
    return scale, beta - mean * scale


def _can_take(layer: ir.Node, norm: ir.Node) -> bool:
    output = layer.outputs[0]
    if layer.op_type not in ("Conv", "Gemm") or layer.domain != "" or output.is_graph_output():
        return False
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    constants = [layer.inputs[1], *([] if bias is None else [bias])]
    plain = layer.op_type == "Conv" or (
        layer.attributes.get_float("alpha", 1.0) == layer.attributes.get_float("beta", 1.0) == 1.0
    )
    known = all(value is not None and ir.convenience.get_const_tensor(value) is not None for value in constants)
    return plain and known and list(output.consumers()) == [norm]


def _fold(graph: ir.Graph, layer: ir.Node, scale: Floats, shift: Floats) -> None:
    weight = layer.inputs[1]
    if weight is None:
        raise UnsupportedError(f"{layer.op_type} {layer.name} has no weight.")
    old = _floats(weight)
    columns = layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0)
    factors = scale if columns else scale.reshape(-1, *[1] * (old.ndim - 1))
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    offset = shift if bias is None else _floats(bias) * scale + shift
    stem = (weight.name or "layer").removesuffix(".weight")
    layer.replace_input_with(1, parameter(graph, old * factors, weight.name or stem, replaces=weight))
    layer.resize_inputs(3)
    layer.replace_input_with(2, parameter(graph, offset, f"{stem}.bias", replaces=bias))


def _write_mul_add(graph: ir.Graph, node: ir.Node, scale: Floats, shift: Floats) -> None:
    source, output = node.inputs[0], node.outputs[0]
    if source is None or output.shape is None:
        raise UnsupportedError(f"batch norm {node.name} has no known shape, so it cannot become Mul and Add.")
    extents = (-1, *[1] * (len(output.shape) - 2))
    gamma = node.inputs[1]
    stem = ((gamma.name if gamma is not None else None) or node.name or "norm").removesuffix(".weight")
    factors = parameter(graph, scale.reshape(extents), f"{stem}.scale")
    offsets = parameter(graph, shift.reshape(extents), f"{stem}.shift")
    product = ir.node("Mul", [source, factors], name=f"{node.name}.mul")
    product.outputs[0].name = f"{output.name}.scaled"
    product.outputs[0].shape, product.outputs[0].dtype = output.shape, output.dtype
    total = ir.node("Add", [product.outputs[0], offsets], name=f"{node.name}.add")
    total.outputs[0].shape, total.outputs[0].dtype = output.shape, output.dtype
    graph.insert_before(node, [product, total])
    _bypass(graph, node, total.outputs[0])


def _bypass(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    output = node.outputs[0]
    name, output.name = output.name, f"{output.name}.folded"
    value.name = name
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def parameter(graph: ir.Graph, content: Floats, name: str, *, replaces: ir.Value | None = None) -> ir.Value:
    """Registers a float32 initializer.

    Args:
        graph: receives it.
        content: its value.
        name: its name; numbered if another value has it.
        replaces: the initializer whose last reader moves to the new one; it then leaves the graph and its name is free.
    """
    if replaces is not None and replaces.is_initializer() and len(replaces.uses()) <= 1 and replaces.name is not None:
        del graph.initializers[replaces.name]
    free, number = name, 1
    while free in graph.initializers:
        free, number = f"{name}.{number}", number + 1
    value = ir.val(free, const_value=ir.tensor(content.astype(np.float32), name=free))
    graph.initializers.add(value)
    return value


def _floats(value: ir.Value) -> Floats:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise UnsupportedError(f"{value.name} is no constant.")
    return tensor.numpy().astype(np.float64)
