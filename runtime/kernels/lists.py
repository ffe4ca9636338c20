"""Event lists: which inputs of a layer are active, found once and used by every panel of outputs.

A list belongs to one input position, one time step, one chunk of input channels and one binary digit of the input: the
value is the sum over its digits of 2**digit times the rows listed. Spikes have one digit; counts have a few, and adding
the rows of a digit and doubling (Horner's rule) needs no multiplication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, dot, function, lanes, row_major, shared_nest

SEARCH = 32  # inputs that one search looks at; lists have room for as many entries behind their last one
SEARCHES = (SEARCH, SEARCH // 2, SEARCH // 4)  # for what is left of a list, smaller ones
TABLE_BITS = 8
Search = Literal["compress", "table"]


@dataclass(frozen=True)
class ListSpec:
    """Shape of the lists of one input.

    Attributes:
        extents: spatial extents of the input, then its stored time steps.
        strides: their strides in elements.
        offset, elements: first element of the input in its buffer, and the buffer's size.
        inputs: number of input channels, dense in memory.
        chunk: channels of one list; the last one may have fewer.
        digits: binary digits of the largest input value.
        group: entries that are added at once; lists are filled up with the number of the zero row, which stands behind
            the rows of the chunk, and counted in groups.
        search: ``compress`` where the processor has an instruction for it, else ``table``.
    """

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    elements: int
    inputs: int
    chunk: int
    digits: int
    group: int
    search: Search

    @property
    def chunks(self) -> int:
        """Number of lists of one position, time step and digit."""
        return -(-self.inputs // self.chunk)

    @property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """First number, count and length of the full chunks, and of the shorter one behind them."""
        full, rest = divmod(self.inputs, self.chunk)
        return ((0, full, self.chunk),) * (full > 0) + ((full, 1, rest),) * (rest > 0)

    @property
    def lists(self) -> int:
        """Number of lists."""
        return prod(self.extents) * self.chunks * self.digits

    @property
    def capacity(self) -> int:
        """Room for the entries of one list, with what the search writes behind them."""
        return -(-self.chunk // SEARCH) * SEARCH + SEARCH

    def number(self, where: Sequence[Expr], chunk: Expr, digit: Expr) -> Expr:
        """Number of a list; the highest digit is the first."""
        return (row_major(where, self.extents) * self.chunks + chunk) * self.digits + digit


def byte_table() -> NDArray[np.uint16]:
    """(256, 8) uint16: for every byte the places of its ones, in order, behind them zeros."""
    table = np.zeros((1 << TABLE_BITS, TABLE_BITS), np.uint16)
    for byte in range(1 << TABLE_BITS):
        places = [place for place in range(TABLE_BITS) if byte >> place & 1]
        table[byte, : len(places)] = places
    return table


def build_lists(spec: ListSpec) -> Expr:
    """Returns the TIR function; arguments: x, [table], index, count."""
    arguments = [("x", spec.elements, "uint8")]
    arguments += [("table", byte_table().size, "uint16")] if spec.search == "table" else []

    def body(*buffers: Expr) -> None:
        for first, count, length in spec.runs:
            with shared_nest((*spec.extents, count)) as (*where, c):
                chunk = first + c
                base = T.int32(spec.offset) + dot(where, spec.strides) + chunk * spec.chunk
                for digit in range(spec.digits):
                    number = spec.number(where, chunk, T.int32(digit))
                    _fill(spec, buffers, number, base, length, spec.digits - 1 - digit)

    outputs = [("index", spec.lists * spec.capacity, "uint16"), ("count", spec.lists, "int32")]
    return function([*arguments, *outputs], body)


def _fill(spec: ListSpec, buffers: Sequence[Expr], number: Expr, base: Expr, length: int, digit: int) -> None:
    """Fills one list."""
    x, *tables, index, count = buffers
    found = T.alloc_buffer((1,), "int32")
    T.buffer_store(found, T.int32(0), [0])
    start = number * spec.capacity
    done = 0
    for step in SEARCHES if spec.search == "compress" else (TABLE_BITS,):
        until = done + (length - done) // step * step
        with T.serial(0, (until - done) // step) as block:
            first = done + block * step
            if spec.search == "compress":
                _compress(x, index, found, start, base + first, first, step, digit, spec.digits)
            else:
                _look_up(x, tables[0], index, found, start, base + first, first, digit, spec.digits)
        done = until
    with T.serial(done, length) as k:
        T.buffer_store(index, T.cast(k, "uint16"), [start + found[0]])
        T.buffer_store(found, found[0] + T.cast(_digit(x[base + k], digit, spec.digits), "int32"), [0])
    if spec.group > 1:
        lanes(spec.group, lambda lane: T.buffer_store(index, T.uint16(length), [start + found[0] + lane]))
    T.buffer_store(count, T.truncdiv(found[0] + (spec.group - 1), T.int32(spec.group)), [number])


def _digit(value: Expr, digit: int, digits: int) -> Expr:
    """A binary digit of a byte, 0 or 1."""
    return value if digits == 1 else T.bitwise_and(T.shift_right(value, T.uint8(digit)), T.uint8(1))


def _compress(
    x: Expr, index: Expr, found: Expr, start: Expr, source: Expr, first: Expr, step: int, digit: int, digits: int
) -> None:
    """One search by the processor's compress instruction."""
    bits = x[T.Ramp(source, 1, step)]
    if digits > 1:
        bits = T.bitwise_and(bits, T.Broadcast(T.uint8(1 << digit), step))
    active = bits != T.Broadcast(T.uint8(0), step)
    numbers = T.Ramp(T.cast(first, "uint16"), T.uint16(1), step)
    zeros = T.Broadcast(T.uint16(0), step)
    packed = T.call_llvm_pure_intrin(f"uint16x{step}", "llvm.experimental.vector.compress", numbers, active, zeros)
    T.buffer_store(index, packed, [T.Ramp(start + found[0], 1, step)])
    ones = T.cast(active, f"uint8x{step}")
    total = T.call_llvm_pure_intrin("uint8", "llvm.vector.reduce.add", ones)
    T.buffer_store(found, found[0] + T.cast(total, "int32"), [0])


def _look_up(
    x: Expr,
    table: Expr,
    index: Expr,
    found: Expr,
    start: Expr,
    source: Expr,
    first: Expr,
    digit: int,
    digits: int,
) -> None:
    """One search by a table: eight bytes become one byte of bits, which names a row of places."""
    word = T.reinterpret("uint64", x[T.Ramp(source, 1, TABLE_BITS)])
    if digits > 1:
        word = T.shift_right(word, T.uint64(digit))
    word = T.bitwise_and(word, T.uint64(0x0101010101010101))
    bits = word  # every byte 0 or 1: three folds gather them in the lowest one
    for fold in (7, 14, 28):
        bits = T.bitwise_or(bits, T.shift_right(bits, T.uint64(fold)))
    byte = T.cast(T.bitwise_and(bits, T.uint64(255)), "int32")
    places = table[T.Ramp(byte * TABLE_BITS, 1, TABLE_BITS)]
    numbers = places + T.Broadcast(T.cast(first, "uint16"), TABLE_BITS)
    T.buffer_store(index, numbers, [T.Ramp(start + found[0], 1, TABLE_BITS)])
    T.buffer_store(found, found[0] + T.cast(T.popcount(word), "int32"), [0])
