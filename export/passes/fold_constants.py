"""Computes what depends on constants alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from svitkit.onnx_lif import LIF_DOMAIN


def fold_constants(model: ir.Model) -> None:
    """Replaces every node whose inputs are known by its result.

    A float result computed from a parameter (a transposed weight) stays a parameter: an initializer named after its
    source. Everything else becomes a tensor ``Constant``. ``Shape`` of a value with a static shape is known too, and
    ``CastLike`` needs no more than the type of its second input.
    """
    for node in list(model.graph):
        if node.domain not in ("", LIF_DOMAIN) or node.domain == LIF_DOMAIN or len(node.outputs) != 1:
            continue
        result = _value_of(node)
        if result is not None:
            _replace(model.graph, node, result)


def _value_of(node: ir.Node) -> NDArray[np.generic] | None:
    if node.op_type == "Constant":
        return None if "value" in node.attributes else _evaluate(node, [])
    first = node.inputs[0] if node.inputs else None
    if node.op_type == "Shape" and first is not None and first.shape is not None and first.shape.is_static():
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(first.shape))
        return np.array(first.shape.numpy()[start:end], np.int64)
    if node.op_type == "CastLike" and first is not None:
        value, like = ir.convenience.get_const_tensor(first), node.inputs[1]
        return None if value is None or like is None or like.dtype is None else value.numpy().astype(like.dtype.numpy())
    known = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs]
    if any(tensor is None for tensor in known):
        return None
    return _evaluate(node, [tensor.numpy() for tensor in known if tensor is not None])


def _evaluate(node: ir.Node, inputs: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    names = [f"in{i}" for i in range(len(inputs))]
    proto = onnx.NodeProto()
    proto.CopyFrom(ir.to_proto(node))
    del proto.input[:]
    proto.input.extend(names)
    (result,) = ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(result)


def _replace(graph: ir.Graph, node: ir.Node, result: NDArray[np.generic]) -> None:
    output = node.outputs[0]
    source = next((value for value in node.inputs if value is not None and value.is_initializer()), None)
    if source is not None and result.dtype == np.float32 and result.size > 1:
        name = f"{source.name}.{node.op_type.lower()}"
        known = graph.initializers.get(name) or ir.val(name, const_value=ir.tensor(result, name=name))
        graph.initializers.add(known)
        output.replace_all_uses_with(known, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        return
    constant = ir.node("Constant", [], attributes={"value": ir.tensor(result, name=output.name)}, name=node.name)
    constant.outputs[0].name = output.name
    constant.outputs[0].shape = ir.Shape(result.shape)
    constant.outputs[0].dtype = ir.DataType.from_numpy(result.dtype)
    graph.insert_before(node, constant)
    output.replace_all_uses_with(constant.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
