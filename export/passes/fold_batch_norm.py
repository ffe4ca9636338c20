"""Folds batch norm into the layer before it.

    y = gamma (W x + b - mean) / sqrt(var + epsilon) + beta = (k W) x + (b - mean) k + beta
    k = gamma / sqrt(var + epsilon)

computed in float64 and rounded once. Source: Jacob et al., CVPR 2018 (arXiv 1712.05877), section 3.2.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError

Floats = NDArray[np.float64]
CHANNEL_FACTOR = "channel_factor"
"""Key of a node's notes: (outputs,) float64, by which the layer's output channels were multiplied."""


def fold_batch_norm(model: ir.Model) -> None:
    """Folds every batch norm whose input is the output of a ``Conv``, ``Gemm`` or ``MatMul`` that nothing else reads.

    Reshapes and transposes may lie between, as long as the channels remain one axis. A layer without a bias gets one.
    Other batch norms become one ``Mul`` and one ``Add``.

    Raises:
        UnsupportedError: a batch norm's statistics are not constant, or it runs in training mode.
    """
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or node.domain != "":
            continue
        source = node.inputs[0]
        scale, shift = _affine(node)
        layer = None if source is None else _layer_before(source, axis=1)
        if source is not None and layer is not None:
            _fold(model.graph, layer, scale, shift)
            _bypass(model.graph, node, source)
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


def _layer_before(value: ir.Value, *, axis: int) -> ir.Node | None:
    """Finds the layer whose output channels are ``axis`` of ``value``; for ``MatMul`` with a bias, its ``Add``."""
    node = value.producer()
    if node is None or node.domain != "" or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if node.op_type in ("Reshape", "Transpose"):
        source = node.inputs[0]
        before = None if source is None else _axis_before(node, source, axis)
        return None if source is None or before is None else _layer_before(source, axis=before)
    last = value.shape is not None and axis == len(value.shape) - 1
    if node.op_type == "Conv" or (node.op_type == "Gemm" and _is_plain(node)):
        return node if axis == 1 and all(_is_constant(source) for source in node.inputs[1:]) else None
    if node.op_type == "MatMul":
        return node if last and _is_matrix(node.inputs[1]) else None
    if node.op_type == "Add" and last and _is_vector(node.inputs[1]) and node.inputs[0] is not None:
        product = node.inputs[0].producer()
        only = len(node.inputs[0].uses()) == 1 and not node.inputs[0].is_graph_output()
        is_layer = product is not None and product.op_type == "MatMul" and _is_matrix(product.inputs[1])
        return node if only and is_layer else None
    return None


def _axis_before(node: ir.Node, source: ir.Value, axis: int) -> int | None:
    if node.op_type == "Transpose":
        return list(node.attributes.get_ints("perm", ()))[axis]
    if source.shape is None or node.outputs[0].shape is None:
        return None
    given, got = source.shape.numpy(), node.outputs[0].shape.numpy()
    same = [
        index
        for index, extent in enumerate(given)
        if extent == got[axis] and math.prod(given[:index]) == math.prod(got[:axis])
    ]
    return same[0] if same else None


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or ir.convenience.get_const_tensor(value) is not None


def _is_matrix(value: ir.Value | None) -> bool:
    return value is not None and _is_constant(value) and value.shape is not None and len(value.shape) == 2


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and _is_constant(value) and value.shape is not None and len(value.shape) == 1


def _is_plain(gemm: ir.Node) -> bool:
    return gemm.attributes.get_float("alpha", 1.0) == gemm.attributes.get_float("beta", 1.0) == 1.0


def _fold(graph: ir.Graph, layer: ir.Node, scale: Floats, shift: Floats) -> None:
    if layer.op_type == "Add":
        product = layer.inputs[0].producer() if layer.inputs[0] is not None else None
        if product is not None:
            _scale_weight(graph, product, scale)
        bias = layer.inputs[1]
        offset = shift if bias is None else _floats(bias) * scale + shift
        layer.replace_input_with(1, parameter(graph, offset, (bias and bias.name) or "bias", replaces=bias))
        return
    stem = _scale_weight(graph, layer, scale)
    if layer.op_type == "MatMul":
        _append_add(graph, layer, parameter(graph, shift, f"{stem}.bias"))
        return
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    offset = shift if bias is None else _floats(bias) * scale + shift
    layer.resize_inputs(3)
    layer.replace_input_with(2, parameter(graph, offset, f"{stem}.bias", replaces=bias))


def _scale_weight(graph: ir.Graph, layer: ir.Node, scale: Floats) -> str:
    """Multiplies a layer's output channels, notes the factor, and returns the name of its module."""
    weight = layer.inputs[1]
    if weight is None:
        raise UnsupportedError(f"{layer.op_type} {layer.name} has no weight.")
    old = _floats(weight)
    columns = layer.op_type == "MatMul" or (layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0))
    factors = scale if columns else scale.reshape(-1, *[1] * (old.ndim - 1))
    name = weight.name or "layer.weight"
    layer.replace_input_with(1, parameter(graph, old * factors, name, replaces=weight))
    layer.meta[CHANNEL_FACTOR] = layer.meta.get(CHANNEL_FACTOR, 1.0) * scale
    return name.removesuffix(".transpose").removesuffix(".weight")


def _append_add(graph: ir.Graph, layer: ir.Node, bias: ir.Value) -> None:
    output = layer.outputs[0]
    total = ir.node("Add", [output, bias], name=f"{layer.name}.add")
    new = total.outputs[0]
    new.name, new.shape, new.type = f"{output.name}.biased", output.shape, output.type
    output.replace_all_uses_with(new)
    total.replace_input_with(0, output)
    graph.insert_after(layer, total)


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
    product.outputs[0].shape, product.outputs[0].type = output.shape, output.type
    total = ir.node("Add", [product.outputs[0], offsets], name=f"{node.name}.add")
    total.outputs[0].shape, total.outputs[0].type = output.shape, output.type
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
        replaces: as for :func:`initializer`.
    """
    return initializer(graph, ir.tensor(content.astype(np.float32)), name, replaces=replaces)


def initializer(graph: ir.Graph, tensor: ir.TensorProtocol, name: str, *, replaces: ir.Value | None = None) -> ir.Value:
    """Registers an initializer.

    Args:
        graph: receives it.
        tensor: its value.
        name: its name; numbered if another value has it.
        replaces: the initializer whose last reader moves to the new one; it then leaves the graph and its name is free.
    """
    if replaces is not None and replaces.is_initializer() and len(replaces.uses()) <= 1 and replaces.name is not None:
        del graph.initializers[replaces.name]
    free, number = name, 1
    while free in graph.initializers:
        free, number = f"{name}.{number}", number + 1
    tensor.name = free
    value = ir.val(free, const_value=tensor)
    graph.initializers.add(value)
    return value


def _floats(value: ir.Value) -> Floats:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise UnsupportedError(f"{value.name} is no constant.")
    return tensor.numpy().astype(np.float64)
