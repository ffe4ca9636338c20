"""Axes of tensors as products of pieces that layers share: the vocabulary of the group search.

A tensor's axis is a sequence of *pieces*, outermost first. A reshape only moves the borders between axes, and cuts a
piece in two where a border falls inside it: the 96 outputs of a fused q, k, v projection become 3 x 4 heads x 8. Where
two tensors meet (an addition, a weight and its input) their pieces are merged: from then on they are one, and cutting
either cuts both. What remains uncut at the end are the independent widths of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

Axis = tuple["Piece", ...]
Axes = tuple[Axis, ...]


@dataclass(eq=False)
class Piece:
    """A factor of one or more axes.

    Attributes:
        size: number of indices.
        parts: the two pieces it was cut into, outer first; empty while whole.
        merged: the piece that replaced it; None while it stands for itself.
        fixed: why its size cannot change; None if nothing is known against it.
        skipped: whether a skip connection adds tensors along it.
    """

    size: int
    parts: tuple[Piece, ...] = ()
    merged: Piece | None = None
    fixed: str | None = None
    skipped: bool = field(default=False)


def whole(pieces: Iterable[Piece]) -> list[Piece]:
    """Returns the uncut, unmerged pieces that ``pieces`` stand for today, without those of size 1."""
    found: list[Piece] = []
    stack = list(pieces)[::-1]
    while stack:
        piece = stack.pop()
        while piece.merged is not None:
            piece = piece.merged
        if piece.parts:
            stack.extend(reversed(piece.parts))
        elif piece.size > 1:
            found.append(piece)
    return found


def new_axes(shape: Sequence[int]) -> Axes:
    """Returns one new piece for every axis."""
    return tuple((Piece(size),) for size in shape)


def extent(axis: Axis) -> int:
    """Returns the number of indices of an axis."""
    return prod(piece.size for piece in axis)


def cut(piece: Piece, outer: int) -> None:
    """Cuts a whole piece into ``outer`` x the rest."""
    piece.parts = tuple(Piece(size, fixed=piece.fixed, skipped=piece.skipped) for size in (outer, piece.size // outer))


def fix(pieces: Iterable[Piece], reason: str) -> None:
    """Declares the size of pieces unchangeable; the first reason stays."""
    for piece in whole(pieces):
        piece.fixed = piece.fixed or reason


def merge(first: Axis, second: Axis) -> None:
    """Makes two axes of the same extent one.

    Where their pieces cannot be cut to match (12 = 4 x 3 and 12 = 3 x 4), the rest of both becomes fixed.
    """
    left, right = list(first)[::-1], list(second)[::-1]
    while True:
        a, b = _next(left), _next(right)
        if a is None or b is None:
            return
        if a is b:
            continue
        if a.size == b.size:
            b.merged = a
            a.fixed, a.skipped = a.fixed or b.fixed, a.skipped or b.skipped
        elif max(a.size, b.size) % min(a.size, b.size) == 0:
            cut(a if a.size > b.size else b, min(a.size, b.size))
            left.append(a)
            right.append(b)
        else:
            fix([a, b, *left, *right], "two layers divide it in different ways")
            return


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
            elif piece.size % missing == 0:
                cut(piece, missing)
                stack.append(piece)
            else:
                fix([piece, *axis, *stack], "a reshape mixes it with another axis")
                return new_axes(shape)
        result.append(tuple(axis))
    return tuple(result)


def _next(stack: list[Piece]) -> Piece | None:
    """Takes the next whole piece off a stack."""
    while stack:
        found = whole([stack.pop()])
        if found:
            stack.extend(reversed(found[1:]))
            return found[0]
    return None
