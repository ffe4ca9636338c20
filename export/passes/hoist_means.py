"""Moves means in front of the linear layer whose outputs they average."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from svitkit.export.build_nodes import compute, constant, stand_in
from svitkit.export.ranges import extents


def hoist_means(model: ir.Model) -> None:
    """Rewrites ``mean(x W + b)`` over axes other than the last as ``mean(x) W + b``.

    Of a head that averages logits over time, all means then stand in front of the product, where
    :func:`svitkit.export.passes.quantize_layers.quantize_layers` finds them.
    """
    for node in list(model.graph):
        axes = mean_axes(node)
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "ReduceMean" or axes is None or source is None or len(extents(source)) - 1 in axes:
            continue
        if node.attributes.get_int("keepdims", 1):
            continue
        add = source.producer() if len(source.uses()) == 1 and not source.is_graph_output() else None
        product = add
        if add is not None and add.op_type == "Add" and add.inputs[0] is not None and _is_vector(add.inputs[1]):
            product = add.inputs[0].producer() if len(add.inputs[0].uses()) == 1 else None
        if product is not None and product.op_type == "MatMul" and _is_matrix(product.inputs[1]):
            _hoist(model.graph, node, product, add, axes)


def mean_axes(node: ir.Node) -> tuple[int, ...] | None:
    """Returns the axes of a ``ReduceMean`` or ``ReduceSum``, none negative; None for other nodes."""
    source = node.inputs[0] if node.inputs else None
    if node.domain != "" or node.op_type not in ("ReduceMean", "ReduceSum") or source is None:
        return None
    rank = len(extents(source))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = None if given is None else ir.convenience.get_const_tensor(given)
    if given is None:
        return tuple(range(rank))
    return None if tensor is None else tuple(sorted(int(axis) % rank for axis in np.atleast_1d(tensor.numpy())))


def _is_matrix(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and len(extents(value)) == 2


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and len(extents(value)) == 1


def _hoist(graph: ir.Graph, mean: ir.Node, product: ir.Node, add: ir.Node | None, axes: tuple[int, ...]) -> None:
    x, weight, shape = product.inputs[0], product.inputs[1], extents(mean.outputs[0])
    if x is None:
        return
    known = constant(graph, mean, np.array(axes, np.int64))
    attributes = {"keepdims": 0, "noop_with_empty_axes": 0}
    width = (*shape[:-1], extents(x)[-1])
    float32 = ir.DataType.FLOAT
    name = f"{mean.name}.hoisted"
    small = compute(graph, mean, "ReduceMean", [x, known], name=name, shape=width, dtype=float32, attributes=attributes)
    value = compute(graph, mean, "MatMul", [small, weight], name=f"{name}.product", shape=shape, dtype=float32)
    moved = value.producer()
    if moved is not None:
        moved.meta.update(product.meta)
    if add is not None and add is not product:
        value = compute(graph, mean, "Add", [value, add.inputs[1]], name=f"{name}.add", shape=shape, dtype=float32)
    stand_in(graph, mean, value)
    for node in (add, product):
        if node is not None and node.graph is not None:
            graph.remove(node, safe=True)
