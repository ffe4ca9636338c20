"""How operators that only rearrange elements carry axes: reshapes, transpositions, parts and their reunion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from svitkit.compress.axes import Axes, Piece, extent, fix, merge, new_axes, regroup, take
from svitkit.compress.values import Given, Roles, Rule


def _reshape(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    return regroup(given["self"].axes, shape)


def _permute(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    return tuple(given["self"].axes[dim] for dim in given["dims"])


def _transpose(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    axes = list(given["self"].axes)
    first, second = given.get("dim0", -2), given.get("dim1", -1)
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def _reverse(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    return tuple(reversed(given["self"].axes))


def _expand(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    axes: Axes = given["self"].axes
    padded = [*new_axes(shape[: len(shape) - len(axes)]), *axes]
    return tuple(axis if extent(axis) == size else (Piece(size),) for axis, size in zip(padded, shape, strict=True))


def _select(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    axes: Axes = given["self"].axes
    dim: int = given["dim"] % len(axes)
    fix(axes[dim], "single indices of it are picked")
    return (*axes[:dim], *axes[dim + 1 :])


def _slice(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    axes: Axes = given["self"].axes
    dim: int = given["dim"] % len(axes)
    total = extent(axes[dim])
    if total == shape[dim]:
        return axes
    start = 0 if given["start"] is None else given["start"]
    start = min(max(start + total if start < 0 else start, 0), total)
    part = take(axes[dim], start, start + shape[dim]) if given["step"] == 1 else None
    if part is None:
        fix(axes[dim], "a slice is cut out of it")
        part = (Piece(shape[dim]),)
    return (*axes[:dim], part, *axes[dim + 1 :])


def _divide(given: Given, shape: Sequence[int]) -> tuple[Axes, ...]:
    """Equal parts of an axis: each has the same pieces, without the outermost factor."""
    axes: Axes = given["self"].axes
    dim: int = given["dim"] % len(axes)
    total, size = extent(axes[dim]), shape[dim]
    sizes = given.get("split_sizes", given.get("split_size"))
    equal = total % size == 0 and not (isinstance(sizes, list | tuple) and len(set(sizes)) > 1)
    if equal:
        inner = regroup((axes[dim],), (total // size, size))[1]
        part: Axes = (*axes[:dim], inner, *axes[dim + 1 :])
        return (part,) * (total // size)
    lengths = sizes if isinstance(sizes, list | tuple) else [min(size, total - at) for at in range(0, total, size)]
    ends = list(accumulate(lengths))
    parts = [take(axes[dim], start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
    if None in parts:
        fix(axes[dim], "it is split into unequal parts")
    return tuple(
        (*axes[:dim], (Piece(length),) if part is None else part, *axes[dim + 1 :])
        for part, length in zip(parts, lengths, strict=True)
    )


def _unbind(given: Given, shape: Sequence[int]) -> tuple[Axes, ...]:
    axes: Axes = given["self"].axes
    dim: int = given["dim"] % len(axes)
    fix(axes[dim], "it is taken apart into single indices")
    return ((*axes[:dim], *axes[dim + 1 :]),) * extent(axes[dim])


def _concatenate(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    """Equal parts side by side: an outer factor is added, and channel c of every part is one channel."""
    parts = [value.axes for value in given["tensors"]]
    dim = given["dim"] % len(shape)
    for other in parts[1:]:
        for at, (a, b) in enumerate(zip(parts[0], other, strict=True)):
            if at != dim:
                merge(a, b)
    if len({extent(axes[dim]) for axes in parts}) == 1:
        for other in parts[1:]:
            merge(parts[0][dim], other[dim])
        outer = Piece(len(parts), fixed="it counts concatenated tensors")
        return (*parts[0][:dim], (outer, *parts[0][dim]), *parts[0][dim + 1 :])
    fix([piece for axes in parts for piece in axes[dim]], "it is concatenated with an axis of another size")
    return (*parts[0][:dim], (Piece(shape[dim]),), *parts[0][dim + 1 :])


RESHAPES = "view reshape flatten unflatten squeeze unsqueeze _unsafe_view"
SHAPE_RULES: dict[str, Rule] = {
    **dict.fromkeys(RESHAPES.split(), _reshape),
    "permute": _permute,
    "transpose": _transpose,
    "t": _reverse,
    "expand": _expand,
    "select": _select,
    "slice": _slice,
    "cat": _concatenate,
}
DIVISIONS: dict[str, Callable[[Given, Sequence[int]], tuple[Axes, ...]]] = {
    "chunk": _divide,
    "split": _divide,
    "split_with_sizes": _divide,
    "unbind": _unbind,
}
