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
    first, second = (given.get(f"dim{at}", given.get(f"axis{at}")) for at in (0, 1))
    first, second = (-2, -1) if first is None or second is None else (first, second)
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def _move(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    axes: Axes = given["self"].axes
    pairs = [[dims] if isinstance(dims, int) else dims for dims in (given["destination"], given["source"])]
    moved = {to % len(axes): at % len(axes) for to, at in zip(*pairs, strict=True)}
    rest = iter(at for at in range(len(axes)) if at not in moved.values())
    return tuple(axes[moved[to] if to in moved else next(rest)] for to in range(len(axes)))


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
    start: int = given["start"] or 0
    start = min(max(start + total if start < 0 else start, 0), total)
    part = take(axes[dim], start, start + shape[dim]) if given.get("step", 1) == 1 else None
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


def _stack(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    first, *others = [value.axes for value in given["tensors"]]
    for other in others:
        for a, b in zip(first, other, strict=True):
            merge(a, b)
    dim = given["dim"] % len(shape)
    return (*first[:dim], (Piece(shape[dim], fixed="it counts stacked tensors"),), *first[dim:])


def _pad(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    axes: Axes = given["self"].axes
    padded = [dim for dim in range(len(axes)) if extent(axes[dim]) != shape[dim]]
    for dim in padded:
        fix(axes[dim], "it is padded")
    return tuple((Piece(shape[dim]),) if dim in padded else axis for dim, axis in enumerate(axes))


def _shuffle(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    """Elements change places along some axes."""
    axes: Axes = given["self"].axes
    dims = given["dims"]
    for dim in [dims] if isinstance(dims, int) else dims or range(len(axes)):
        fix(axes[dim], "its elements change places")
    return axes


RESHAPES = "view reshape flatten unflatten squeeze unsqueeze _unsafe_view view_as"
TRANSPOSITIONS = "transpose swapaxes swapdims mT"
SHAPE_RULES: dict[str, Rule] = {
    **dict.fromkeys(RESHAPES.split(), _reshape),
    "permute": _permute,
    **dict.fromkeys(TRANSPOSITIONS.split(), _transpose),
    "t": _reverse,
    "numpy_T": _reverse,
    "movedim": _move,
    "moveaxis": _move,
    "expand": _expand,
    "expand_as": _expand,
    "slice": _slice,
    "narrow": _slice,
    "flip": _shuffle,
    "roll": _shuffle,
    "select": _select,
    "cat": _concatenate,
    "stack": _stack,
    "pad": _pad,
}
DIVISIONS: dict[str, Callable[[Given, Sequence[int]], tuple[Axes, ...]]] = {
    "chunk": _divide,
    "split": _divide,
    "split_with_sizes": _divide,
    "unbind": _unbind,
}
