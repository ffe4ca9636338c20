"""Recognizes a value that is the mean of integers over some of their axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from svitkit.export.passes.hoist_means import mean_axes
from svitkit.export.ranges import extents


@dataclass(frozen=True, kw_only=True)
class Average:
    """A mean of integers.

    Attributes:
        source: the integers.
        channel: the axis of ``source`` that became the last one.
        axes: the axes of ``source`` that were averaged over, ascending.
    """

    source: ir.Value
    channel: int
    axes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of integers in every mean."""
        return prod(extents(self.source)[axis] for axis in self.axes)


def find_average(value: ir.Value, limits: Mapping[ir.Value, int]) -> Average | None:
    """Follows means, transposes and reshapes back to integers.

    Args:
        value: the mean.
        limits: the values that are integers.

    Returns:
        None if ``value`` is something else, or its last axis is not one axis of the integers.
    """
    chain: list[ir.Node] = []
    source = value
    while source not in limits:
        node = source.producer()
        if node is None or node.inputs[0] is None or node.op_type not in ("ReduceMean", "Reshape", "Transpose"):
            return None
        chain.append(node)
        source = node.inputs[0]
    labels: list[int | None] | None = list(range(len(extents(source))))
    for node in reversed(chain):
        labels = None if labels is None else _through(node, labels)
    if not labels or labels[-1] is None:
        return None
    kept = [label for label in labels if label is not None]
    if kept[:-1] != sorted(kept[:-1]):
        return None
    axes = tuple(axis for axis, extent in enumerate(extents(source)) if axis not in kept and extent > 1)
    return Average(source=source, channel=labels[-1], axes=axes)


def _through(node: ir.Node, labels: list[int | None]) -> list[int | None] | None:
    """Returns which axis of the integers every axis behind a node is; None for new axes of extent 1."""
    if node.op_type == "Transpose":
        return [labels[axis] for axis in node.attributes.get_ints("perm", ())]
    if node.op_type == "ReduceMean":
        axes = mean_axes(node)
        if axes is None:
            return None
        keep = node.attributes.get_int("keepdims", 1)
        marked = [None if axis in axes else label for axis, label in enumerate(labels)]
        return marked if keep else [label for axis, label in enumerate(marked) if axis not in axes]
    given = extents(node.inputs[0]) if node.inputs[0] is not None else ()
    wide = [(label, extent) for label, extent in zip(labels, given, strict=True) if extent != 1]
    got = extents(node.outputs[0])
    if [extent for _, extent in wide] != [extent for extent in got if extent != 1]:
        return None
    rest = iter(wide)
    return [next(rest)[0] if extent != 1 else None for extent in got]
