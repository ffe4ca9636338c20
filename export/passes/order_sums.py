"""Fixes the order in which real numbers are added up, so that everyone who computes the file rounds alike."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from svitkit.export.build_nodes import compute, constant, stand_in
from svitkit.export.passes.hoist_means import mean_axes
from svitkit.export.ranges import extents, integer_limits

_FLOAT = ir.DataType.FLOAT


def order_sums(model: ir.Model) -> None:
    """Rewrites sums and means over axes.

    Real numbers are added by halves: one half of an axis to the other until one element is left. Sums of integers are
    exact in any order and stay; of a mean of integers a sum and one division are left.
    """
    graph = model.graph
    limits = integer_limits(graph)
    for node in list(graph):
        axes = mean_axes(node)
        source = node.inputs[0] if node.inputs else None
        if axes is None or source is None or source.dtype != _FLOAT:
            continue
        if source in limits and node.op_type == "ReduceSum":
            continue
        if source in limits:
            total = compute(
                graph,
                node,
                "ReduceSum",
                list(node.inputs),
                name=f"{node.name}.sum",
                shape=extents(node.outputs[0]),
                dtype=_FLOAT,
                attributes=dict(node.attributes),
            )
        else:
            total = _by_halves(graph, node, source, axes)
        if node.op_type == "ReduceMean":
            total = _divided(graph, node, total, math.prod(extents(source)[axis] for axis in axes))
        stand_in(graph, node, total)


def _by_halves(graph: ir.Graph, node: ir.Node, source: ir.Value, axes: tuple[int, ...]) -> ir.Value:
    value = source
    for axis in axes:
        left: list[ir.Value] = []
        while (extent := extents(value)[axis]) > 1:
            name, half = f"{node.name}.{axis}.{extent}", extent // 2
            parts = _split(graph, node, value, axis, [half, half] + [1] * (extent % 2), name)
            left += parts[2:]
            value = _add(graph, node, parts[0], parts[1], name)
        for index, part in enumerate(left):
            value = _add(graph, node, value, part, f"{node.name}.{axis}.rest.{index}")
    shape = extents(node.outputs[0])
    target = constant(graph, node, np.array(shape, np.int64))
    return compute(graph, node, "Reshape", [value, target], name=f"{node.name}.shaped", shape=shape, dtype=_FLOAT)


def _split(graph: ir.Graph, node: ir.Node, value: ir.Value, axis: int, sizes: list[int], name: str) -> list[ir.Value]:
    known = constant(graph, node, np.array(sizes, np.int64))
    split = ir.node("Split", [value, known], {"axis": axis}, num_outputs=len(sizes), name=f"{name}.halves")
    graph.insert_before(node, split)
    shape = extents(value)
    for index, (output, size) in enumerate(zip(split.outputs, sizes, strict=True)):
        output.name, output.dtype = f"{split.name}.{index}", _FLOAT
        output.shape = ir.Shape([*shape[:axis], size, *shape[axis + 1 :]])
    return list(split.outputs)


def _add(graph: ir.Graph, node: ir.Node, first: ir.Value, second: ir.Value, name: str) -> ir.Value:
    return compute(graph, node, "Add", [first, second], name=f"{name}.sum", shape=extents(first), dtype=_FLOAT)


def _divided(graph: ir.Graph, node: ir.Node, total: ir.Value, count: int) -> ir.Value:
    """Divides by a count; by a power of two the product with its inverse is the same."""
    exact = math.frexp(count)[0] == 0.5
    divisor = constant(graph, node, np.array(1 / count if exact else count, np.float32))
    op = "Mul" if exact else "Div"
    name = f"{node.name}.mean"
    return compute(graph, node, op, [total, divisor], name=name, shape=extents(node.outputs[0]), dtype=_FLOAT)
