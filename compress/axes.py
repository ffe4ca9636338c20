"""Axes of tensors as products of pieces that layers share: the vocabulary of the group search.

A tensor's axis is a sequence of *pieces*, outermost first. A reshape only moves the borders between axes, and cuts a
piece in two where a border falls inside it: the 96 outputs of a fused q, k, v projection become 3 x 4 heads x 8. Slices
divide a piece into parts that lie *beside* each other: the same 96 outputs become 32 of q, 32 of k and 32 of v, each
with a width of its own. Where two tensors meet (an addition, a weight and its input) their pieces are merged: from then
on they are one, and cutting either cuts both. What remains undivided at the end are the independent widths of the
network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

Axis = tuple["Piece", ...]
Axes = tuple[Axis, ...]
TWO_WAYS = "two layers divide it in different ways"


@dataclass(eq=False)
class Piece:
    """A factor of one or more axes.

    Attributes:
        size: number of indices.
        parts: the pieces it was cut into, outer first, or divided into, one after the other; empty while whole.
        beside: whether the parts lie beside each other, and not one inside the other.
        merged: the piece that replaced it; None while it stands for itself.
        fixed: why its size cannot change; None if nothing is known against it.
        skipped: whether a skip connection adds tensors along it.
    """

    size: int
    parts: tuple[Piece, ...] = ()
    beside: bool = False
    merged: Piece | None = None
    fixed: str | None = None
    skipped: bool = False


def whole(pieces: Iterable[Piece]) -> list[Piece]:
    """Returns the factors that ``pieces`` stand for today, without those of size 1; some divided side by side."""
    found: list[Piece] = []
    stack = list(pieces)[::-1]
    while stack:
        piece = stack.pop()
        while piece.merged is not None:
            piece = piece.merged
        if piece.parts and not piece.beside:
            stack.extend(reversed(piece.parts))
        elif piece.size > 1:
            found.append(piece)
    return found


def undivided(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yields every piece that ``pieces`` consist of today, those side by side too."""
    for piece in whole(pieces):
        if piece.beside:
            yield from undivided(piece.parts)
        else:
            yield piece


def new_axes(shape: Sequence[int]) -> Axes:
    """Returns one new piece for every axis."""
    return tuple((Piece(size),) for size in shape)


def extent(axis: Axis) -> int:
    """Returns the number of indices of an axis."""
    return prod(piece.size for piece in axis)


def cut(piece: Piece, outer: int) -> None:
    """Cuts a whole piece into ``outer`` x the rest."""
    piece.parts = _parts(piece, (outer, piece.size // outer))


def fix(pieces: Iterable[Piece], reason: str) -> None:
    """Declares the size of pieces unchangeable; the first reason stays."""
    for piece in undivided(pieces):
        piece.fixed = piece.fixed or reason


def skip(pieces: Iterable[Piece]) -> None:
    """Notes that a skip connection adds tensors along pieces."""
    for piece in undivided(pieces):
        piece.skipped = True


def take(axis: Axis, start: int, stop: int) -> Axis | None:
    """Divides an axis and returns its indices ``start`` to ``stop``; None if that cuts through a factor."""
    factors = whole(axis)
    if not factors or (start, stop) == (0, extent(axis)):
        return axis
    inner = extent(tuple(factors[1:]))
    if start % inner or stop % inner:
        return None
    outer = _take(factors[0], start // inner, stop // inner)
    return None if outer is None else (outer, *factors[1:])


def _take(piece: Piece, start: int, stop: int) -> Piece | None:
    if (start, stop) == (0, piece.size):
        return piece
    if not piece.beside:
        piece.parts = _parts(piece, [size for size in (start, stop - start, piece.size - stop) if size])
        piece.beside = True
    chosen: list[Piece] = []
    at = 0
    for part in piece.parts:
        first, last = max(start - at, 0), min(stop - at, part.size)
        if first < last:
            axis = take((part,), first, last)
            if axis is None:
                return None
            chosen.append(axis[0] if len(axis) == 1 else Piece(last - first, parts=axis))
        at += part.size
    return chosen[0] if len(chosen) == 1 else Piece(stop - start, parts=tuple(chosen), beside=True)


def _parts(piece: Piece, sizes: Iterable[int]) -> tuple[Piece, ...]:
    return tuple(Piece(size, fixed=piece.fixed, skipped=piece.skipped) for size in sizes)


def merge(first: Axis, second: Axis) -> None:
    """Makes two axes of the same extent one.

    Where their pieces cannot be cut to match (12 = 4 x 3 and 12 = 3 x 4), the rest of both becomes fixed.
    """
    left, right = list(first)[::-1], list(second)[::-1]
    while True:
        a, b = _next(left), _next(right)
        if a is None or b is None:
            return
        larger, smaller = (a, b) if a.size > b.size else (b, a)
        if a is b:
            continue
        if a.size == b.size:
            _unite(a, b)
        elif larger.size % smaller.size == 0 and not larger.beside:
            cut(larger, smaller.size)
            left.append(a)
            right.append(b)
        else:
            fix([a, b, *left, *right], TWO_WAYS)
            return


def _unite(a: Piece, b: Piece) -> None:
    """Makes two factors of one size one; where both are divided side by side, part by part."""
    if a.beside and b.beside:
        ends = sorted(_ends(a) | _ends(b))
        for start, stop in zip([0, *ends], ends, strict=False):
            left, right = take((a,), start, stop), take((b,), start, stop)
            if left is None or right is None:
                fix([a, b], TWO_WAYS)
            else:
                merge(left, right)
        return
    kept, gone = (b, a) if b.beside else (a, b)
    gone.merged = kept
    if gone.fixed:
        fix([kept], gone.fixed)
    if gone.skipped:
        skip([kept])


def _ends(piece: Piece) -> set[int]:
    return {sum(part.size for part in piece.parts[: at + 1]) for at in range(len(piece.parts))}


def regroup(axes: Axes, shape: Sequence[int]) -> Axes:
    """Returns the axes of a tensor after a reshape to ``shape``."""
    stack = [piece for axis in axes for piece in axis][::-1]
    result = []
    for size in shape:
        axis: list[Piece] = []
        missing = size
        while missing > 1:
            piece = _next(stack)
            if piece is None:
                break
            if missing % piece.size == 0:
                axis.append(piece)
                missing //= piece.size
            elif piece.size % missing == 0 and not piece.beside:
                cut(piece, missing)
                stack.append(piece)
            else:
                fix([piece, *axis, *stack], "a reshape mixes it with another axis")
                return new_axes(shape)
        result.append(tuple(axis))
    return tuple(result)


def _next(stack: list[Piece]) -> Piece | None:
    """Takes the next factor off a stack."""
    while stack:
        found = whole([stack.pop()])
        if found:
            stack.extend(reversed(found[1:]))
            return found[0]
    return None
