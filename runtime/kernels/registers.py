"""Sums and potentials of a panel, one value a channel, in vectors that LLVM keeps in registers.

Every vector is a buffer of its own: from 1024 bytes on, TVM takes buffers from a workspace allocator that boards do not
have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, allocate, assign

Layout = tuple[tuple[int, int], ...]  # first channel and width of every vector
Value = Callable[[int, Expr], Expr]  # value of channel ``at + lane``, given the first channel of a vector and the lane


@dataclass(frozen=True)
class Vector:
    """The channels ``at`` to ``at + width`` of a panel."""

    at: int
    width: int
    buffer: Expr


def layout(width: int, chunk: int) -> Layout:
    """Cuts ``width`` channels into vectors of ``chunk``, the last one perhaps shorter."""
    return tuple((at, min(chunk, width - at)) for at in range(0, width, chunk))


def powers_of_two(width: int, chunk: int) -> Layout:
    """Cuts ``width`` channels into vectors of ``chunk``, what is left of them into falling powers of two."""
    pieces, at, piece = [], 0, chunk
    while at < width:
        while at + piece > width:
            piece //= 2
        pieces.append((at, piece))
        at += piece
    return tuple(pieces)


def vectors(channels: Layout, dtype: str) -> list[Vector]:
    """Allocates registers for channels."""
    return [Vector(at, width, allocate(width, dtype)) for at, width in channels]


def read(registers: list[Vector]) -> Value:
    """Returns how the registers' values are read: any channels that lie in one vector."""

    def value(at: int, lane: Expr) -> Expr:
        vector = next(each for each in registers if each.at <= at < each.at + each.width)
        return vector.buffer[lane + (at - vector.at)] if at > vector.at else vector.buffer[lane]

    return value


def write(registers: list[Vector], value: Value) -> None:
    """Emits ``registers = value`` for every channel."""
    for vector in registers:
        assign(vector.buffer, 0, vector.width, partial(value, vector.at))


def zeros(channels: Layout, dtype: str) -> list[Vector]:
    """Allocates registers and sets them to 0."""
    registers = vectors(channels, dtype)
    write(registers, lambda at, lane: T.cast(T.int32(0), dtype))
    return registers


def write_memory(target: Expr, base: Expr, channels: Layout, value: Value) -> None:
    """Emits ``target[base + channel] = value`` for every channel."""
    for at, width in channels:
        assign(target, base + at, width, partial(value, at))
