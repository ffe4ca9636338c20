"""Event lists: which inputs of a layer are active, found once and used by every panel of outputs.

A list belongs to one input position, one time step and one chunk of input channels. It holds the numbers of the active
channels within the chunk and, where the input is counts, their values in the type in which they are multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, assign, dot, nest, row_major

INT16_MAX = 32767


@dataclass(frozen=True)
class EventLists:
    """Shape of the lists of one layer.

    Attributes:
        extents: spatial extents of the input, then its stored time steps.
        strides: their strides in elements.
        offset: first element of the input in its buffer.
        inputs: number of input channels, dense in memory.
        chunk: channels of one list, the last one may have fewer.
        limit: largest input value; 1 for spikes, more for counts.
        integer: whether weights are int8 and sums int16, flushed into int32 before they could overflow.
    """

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    inputs: int
    chunk: int
    limit: int
    integer: bool

    @property
    def counts(self) -> bool:
        """Whether values other than 0 and 1 occur."""
        return self.limit > 1

    @property
    def value_dtype(self) -> str:
        """Type of the listed values."""
        return "int16" if self.integer else "float32"

    @property
    def flush(self) -> int:
        """Entries after which an int16 sum of value times weight could overflow (weights are -128..127)."""
        return INT16_MAX // (128 * self.limit)

    @property
    def chunks(self) -> int:
        """Number of lists of one position and time step."""
        return -(-self.inputs // self.chunk)

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """First number and count of the full chunks, and of the shorter one behind them."""
        full, rest = divmod(self.inputs, self.chunk)
        return ((0, full),) * (full > 0) + ((full, 1),) * (rest > 0)

    @property
    def segments(self) -> int:
        """Number of lists."""
        return prod(self.extents) * self.chunks

    @property
    def entries(self) -> int:
        """Room for the entries of all lists."""
        return self.segments * self.chunk

    def number(self, where: Sequence[Expr], chunk: Expr) -> Expr:
        """Number of a list."""
        return row_major(where, self.extents) * self.chunks + chunk


def list_events(lists: EventLists, x: Expr, index: Expr, count: Expr, value: Expr | None) -> None:
    """Emits the search for active inputs; branch-free, so its time does not depend on the data."""
    for first, runs in lists.runs:
        length = min(lists.chunk, lists.inputs - first * lists.chunk)
        with nest((*lists.extents, runs)) as (*where, c):
            chunk = first + c
            number = lists.number(where, chunk)
            base = T.int32(lists.offset) + dot(where, lists.strides) + chunk * lists.chunk
            found = T.alloc_buffer((1,), "int32")
            T.buffer_store(found, T.int32(0), [0])
            with T.serial(0, length) as k:
                entry = number * lists.chunk + found[0]
                T.buffer_store(index, T.cast(k, "uint16"), [entry])
                if value is not None:
                    T.buffer_store(value, T.cast(x[base + k], lists.value_dtype), [entry])
                T.buffer_store(found, found[0] + T.cast(x[base + k] != T.uint8(0), "int32"), [0])
            T.buffer_store(count, found[0], [number])


def add_listed_rows(
    lists: EventLists,
    buffers: tuple[Expr, Expr, Expr | None],
    where: Sequence[Expr],
    chunk: Expr,
    w: Expr,
    weights: Expr,
    accumulator: Expr,
    width: int,
) -> None:
    """Emits the sum over one list.

    Args:
        lists: shape of the lists.
        buffers: index, count and, for counts, value.
        where: input position and time step.
        chunk: number of the chunk.
        w: the packed weights.
        weights: address of the first row of the tap in the panel.
        accumulator: (width,) float32, or int32 for int8 weights.
        width: channels of the panel.
    """
    index, count, value = buffers
    number = lists.number(where, chunk)
    rows = weights + chunk * (lists.chunk * width)

    def add(sums: Expr, i: Expr) -> None:
        row = rows + T.cast(index[number * lists.chunk + i], "int32") * width
        factor = None if value is None else value[number * lists.chunk + i]

        def addend(j: Expr) -> Expr:
            weight = T.cast(w[row + j], "int16") if lists.integer else w[row + j]
            return weight if factor is None else factor * weight

        assign(sums, 0, width, lambda j: sums[j] + addend(j))

    if not lists.integer:
        with T.serial(0, count[number]) as i:
            add(accumulator, i)
        return
    short = T.alloc_buffer((width,), "int16")
    with T.serial(0, T.truncdiv(count[number] + (lists.flush - 1), lists.flush)) as batch:
        assign(short, 0, width, lambda _: T.int16(0))
        with T.serial(0, T.min(count[number] - batch * lists.flush, lists.flush)) as i:
            add(short, batch * lists.flush + i)
        assign(accumulator, 0, width, lambda j: accumulator[j] + T.cast(short[j], "int32"))
