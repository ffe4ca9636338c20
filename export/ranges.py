"""Which values of a graph are integers, provably, and how large they can become.

Spikes are 0 or 1. What only moves, adds, multiplies or pools them stays an integer that is not negative.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from svitkit.onnx_lif import LIF_DOMAIN

VIEWS = frozenset({"Expand", "Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_KEEPING = VIEWS | {"Gather", "MaxPool", "Split"}


def integer_limits(graph: ir.Graph) -> dict[ir.Value, int]:
    """Returns the largest possible value of every value that can only be 0, 1, 2, ...

    Args:
        graph: nodes in the order of execution.
    """
    limits: dict[ir.Value, int] = {}
    for node in graph:
        if node.domain == LIF_DOMAIN:
            limits[node.outputs[0]] = 1
            continue
        limit = _limit(node, [None if value is None else limits.get(value) for value in node.inputs])
        if limit is not None:
            limits.update(dict.fromkeys(node.outputs, limit))
    return limits


def _limit(node: ir.Node, limits: list[int | None]) -> int | None:
    if node.domain != "" or not limits or limits[0] is None:
        return None
    if node.op_type in _KEEPING:
        return limits[0]
    if node.op_type == "ReduceSum" and node.inputs[0] is not None:
        return limits[0] * _elements(node.inputs[0]) // _elements(node.outputs[0])
    if any(limit is None for limit in limits):
        return None
    known = [limit for limit in limits if limit is not None]
    if node.op_type == "Concat":
        return max(known)
    if node.op_type == "Add":
        return sum(known)
    if node.op_type == "Mul":
        return math.prod(known)
    if node.op_type == "MatMul" and node.inputs[0] is not None and node.inputs[0].shape is not None:
        return math.prod(known) * int(node.inputs[0].shape.numpy()[-1])
    return None


def _elements(value: ir.Value) -> int:
    return math.prod(extents(value))


def extents(value: ir.Value | None) -> tuple[int, ...]:
    """Returns the static shape of a value; every value has one behind shape inference."""
    return () if value is None or value.shape is None else tuple(int(extent) for extent in value.shape.numpy())
