"""Rules for operators that move no bytes: they regroup, reorder, cut or broadcast a view."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from svitkit.errors import UnsupportedError
from svitkit.runtime.import_onnx import Graph, Node, axes_of, integers, split_sizes
from svitkit.runtime.lowering.translation import Lowering


def lower_reshape(state: Lowering, node: Node) -> None:
    """Reshape to a constant shape; 0 keeps an extent, one -1 is inferred."""
    view = state.values[node.inputs[0]]
    shape = integers(node.inputs[1], state.graph)
    shape = [view.shape[index] if extent == 0 else extent for index, extent in enumerate(shape)]
    if -1 in shape:
        shape[shape.index(-1)] = prod(view.shape) // prod(extent for extent in shape if extent != -1)
    state.values[node.outputs[0]] = view.reshape(shape)


def lower_flatten(state: Lowering, node: Node) -> None:
    """Flatten to two axes."""
    view = state.values[node.inputs[0]]
    axis = int(node.attributes.get("axis", 1))
    state.values[node.outputs[0]] = view.reshape((prod(view.shape[:axis]), prod(view.shape[axis:])))


def lower_transpose(state: Lowering, node: Node) -> None:
    """Transpose; without a permutation the axes are reversed."""
    view = state.values[node.inputs[0]]
    state.values[node.outputs[0]] = view.transpose(node.attributes.get("perm", range(len(view.axes))[::-1]))


def lower_squeeze(state: Lowering, node: Node) -> None:
    """Squeeze the named axes of extent 1, or all of them."""
    view = state.values[node.inputs[0]]
    axes = axes_of(node, state.graph)
    gone = (
        {axis % len(view.axes) for axis in axes}
        if axes is not None
        else {i for i, e in enumerate(view.shape) if e == 1}
    )
    state.values[node.outputs[0]] = replace(view, axes=tuple(axis for i, axis in enumerate(view.axes) if i not in gone))


def lower_unsqueeze(state: Lowering, node: Node) -> None:
    """Unsqueeze: new axes of extent 1."""
    view = state.values[node.inputs[0]]
    axes = axes_of(node, state.graph) or []
    rank = len(view.axes) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(view.axes)
    state.values[node.outputs[0]] = replace(view, axes=tuple(() if i in new else next(rest) for i in range(rank)))


def lower_expand(state: Lowering, node: Node) -> None:
    """Expand: what is new is one frame shown at every time step."""
    view = state.values[node.inputs[0]]
    shape = integers(node.inputs[1], state.graph)
    padded = [1] * (len(shape) - len(view.shape)) + list(view.shape)
    shape = [max(extent, own) for extent, own in zip(shape, padded, strict=True)]
    state.values[node.outputs[0]] = view.expand(shape, "time")


def lower_split(state: Lowering, node: Node) -> None:
    """Split along one axis."""
    view = state.read(node.inputs[0])
    axis = int(node.attributes.get("axis", 0)) % len(view.axes)
    start = 0
    for name, size in zip(node.outputs, split_sizes(node, state.graph, view.shape[axis]), strict=True):
        state.values[name] = view.slice(axis, start, start + size)
        start += size


def lower_slice(state: Lowering, node: Node) -> None:
    """Slice with step 1."""
    view = state.read(node.inputs[0])
    for axis, first, last in slice_ranges(node, state.graph, view.shape):
        view = view.slice(axis, first, last)
    state.values[node.outputs[0]] = view


def slice_ranges(node: Node, graph: Graph, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Returns what a Slice node keeps of a value of a shape: axis, first index, and the one behind the last."""
    starts, stops, *more = (integers(name, graph) if name else [] for name in node.inputs[1:])
    axes = (more[0] if more else []) or list(range(len(starts)))
    if len(more) > 1 and any(step != 1 for step in more[1]):
        raise UnsupportedError(f"steps {more[1]} are not supported, only 1.")
    ranges = []
    for start, stop, axis in zip(starts, stops, axes, strict=True):
        extent = shape[axis]
        first, last = (min(max(end + extent if end < 0 else end, 0), extent) for end in (start, stop))
        ranges.append((axis % len(shape), first, last))
    return ranges
