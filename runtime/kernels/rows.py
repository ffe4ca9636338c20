"""Linear layers driven by events: one weight row is added per active input, and silence costs nothing.

The inputs on the lists (:mod:`svitkit.runtime.kernels.lists`) name rows of the packed weights
(:mod:`svitkit.runtime.kernels.row_layout`). A convolution first joins the lists under its window, for a block of
neighbouring positions at once. Rows are added in groups before they reach the accumulator.

Where the rows of a panel do not fit the cache, or 16 bits would not hold their sum, they are cut into segments, and the
sums of a block wait in a small scratch buffer between segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    current_part,
    function,
    lanes,
    nest,
    row_major,
    shared_nest,
    when,
)
from svitkit.runtime.kernels.linear import Epilogue, stored_steps
from svitkit.runtime.kernels.lists import SEARCH
from svitkit.runtime.kernels.panels import panel_runs
from svitkit.runtime.kernels.registers import Value, Vector, layout, read, write, write_memory, zeros
from svitkit.runtime.kernels.row_layout import LOW, RowsSpec

LINE_BYTES = 64


def build_rows(spec: RowsSpec) -> Expr:
    """Returns the TIR function; arguments: index, count, w, [joined, joined_count], [scratch], then the shape's."""
    shape, lists = spec.shape, spec.lists
    arguments = [("index", lists.lists * lists.capacity, "uint16"), ("count", lists.lists, "int32")]
    arguments.append(("w", spec.weights, spec.weight_dtype))
    if spec.joins:
        arguments.append(("joined", spec.parts * spec.joined_lists * spec.joined_capacity, "uint16"))
        arguments.append(("joined_count", spec.parts * spec.joined_lists, "int32"))
    if spec.scratch:
        arguments.append(("scratch", spec.parts * spec.scratch, spec.total_dtype))
    arguments += shape.arguments()
    names = [name for name, _, _ in arguments]

    def body(*buffers: Expr) -> None:
        layer = _Layer(spec, dict(zip(names, buffers, strict=True)))
        if spec.joins:
            layer.compute_joined()
        else:
            layer.compute_pointwise()

    return function(arguments, body)


@dataclass(frozen=True)
class _Layer:
    """The emitter of one layer, and its buffers by name."""

    spec: RowsSpec
    b: dict[str, Expr]

    def compute_pointwise(self) -> None:
        """Panels outermost: the weights of a panel stay in the cache while all positions pass by."""
        blocks = self.spec.shape.positions // self.spec.block
        for run in panel_runs(self.spec.shape.outputs, self.spec.lanes):
            with nest((run.count,)) as (panel,), shared_nest((blocks,)) as (where,):
                self._panel(run.width, T.int32(run.start) + panel * run.width, where)

    def compute_joined(self) -> None:
        """Blocks of positions outermost: their joined lists serve every panel."""
        with shared_nest((self.spec.shape.positions // self.spec.block,)) as (where,):
            self._join(where)
            for run in panel_runs(self.spec.shape.outputs, self.spec.lanes):
                with nest((run.count,)) as (panel,):
                    self._panel(run.width, T.int32(run.start) + panel * run.width, where)

    def _position(self, where: Expr, p: Expr) -> list[Expr]:
        """Position ``p`` of a block; layers without spatial axes have one position."""
        return _unflatten(where * self.spec.block + p, self.spec.shape.out_extents)

    def _join(self, where: Expr) -> None:
        """Joins the lists of the taps under every position of a block, segment by segment."""
        spec = self.spec
        first = 0
        for run, (count, rows) in enumerate(spec.segments):
            with nest((spec.block, spec.shape.in_times, count)) as (p, t, s):
                for digit in range(spec.lists.digits):
                    self._join_segment(self._position(where, p), p, t, (run, s, first), rows, digit)
            first += count

    def _join_segment(
        self, position: Sequence[Expr], p: Expr, t: Expr, segment: tuple[int, Expr, int], rows: int, digit: int
    ) -> None:
        spec, lists, window = self.spec, self.spec.lists, self.spec.shape.window
        run, s, first = segment
        number = self._joined_number(p, t, first + s, T.int32(digit))
        start = number * spec.joined_capacity
        found = T.alloc_buffer((1,), "int32")
        T.buffer_store(found, T.int32(0), [0])
        taps = 1 if lists.chunks > 1 else rows // spec.shape.inputs
        with nest((taps,)) as (offset,):
            if lists.chunks > 1:
                full_first, full_count, _ = lists.runs[run]
                tap, chunk = T.truncdiv(s, T.int32(full_count)), full_first + T.truncmod(s, T.int32(full_count))
            else:
                tap, chunk = (first + s) * spec.taps + offset, T.int32(0)
            source, inside = window.source(position, _unflatten(tap, window.kernel))
            with when(inside):
                self._append(source, t, chunk, T.int32(digit), (start, found), offset * spec.shape.inputs)
        if spec.group > 1:
            lanes(spec.group, lambda lane: T.buffer_store(self.b["joined"], T.uint16(rows), [start + found[0] + lane]))
        groups = T.truncdiv(found[0] + (spec.group - 1), T.int32(spec.group))
        T.buffer_store(self.b["joined_count"], groups, [number])

    def _append(
        self, source: Sequence[Expr], t: Expr, chunk: Expr, digit: Expr, target: tuple[Expr, Expr], shift: Expr
    ) -> None:
        """Copies one list behind those joined before, its row numbers shifted by the rows of the taps before."""
        lists, (start, found) = self.spec.lists, target
        number = lists.number([*source, t], chunk, digit)
        blocks = T.truncdiv(self.b["count"][number] + (SEARCH - 1), T.int32(SEARCH))
        with T.serial(0, blocks) as block:
            at = number * lists.capacity + block * SEARCH
            entries = self.b["index"][T.Ramp(at, 1, SEARCH)] + T.Broadcast(T.cast(shift, "uint16"), SEARCH)
            T.buffer_store(self.b["joined"], entries, [T.Ramp(start + found[0] + block * SEARCH, 1, SEARCH)])
        T.buffer_store(found, found[0] + self.b["count"][number], [0])

    def _joined_number(self, p: Expr, t: Expr, segment: Expr, digit: Expr) -> Expr:
        spec = self.spec
        part, _ = current_part()
        extents = (spec.parts, spec.block, spec.shape.in_times, spec.count, spec.lists.digits)
        return row_major([part, p, t, segment, digit], extents)

    def _panel(self, width: int, first: Expr, where: Expr) -> None:
        """Emits one panel over a block of positions."""
        spec = self.spec
        epilogue = Epilogue(spec.shape, self.b, spec.channels(width), first)
        base = (T.truncdiv(first, T.int32(2)) if spec.addition == "words" else first) * spec.rows
        stored = spec.rows * spec.row(width)
        if spec.count == 1:
            with nest((spec.block,)) as (p,):
                position = self._position(where, p)
                if spec.ahead:
                    self._fetch_ahead(base + stored, stored, where)
                with epilogue.position(position) as step, nest((spec.shape.in_times,)) as (t,):
                    total = self._sum(width, base, position, (p, t), T.int32(0))
                    with stored_steps(spec.shape, t) as out_t:
                        step(out_t, read(total))
            return
        self._segments(width, base, where)
        with (
            nest((spec.block,)) as (p,),
            epilogue.position(self._position(where, p)) as step,
            nest((spec.shape.in_times,)) as (t,),
        ):
            slot = self._slot(p, t, width)
            with stored_steps(spec.shape, t) as out_t:
                step(out_t, self._waiting(slot))

    def _fetch_ahead(self, base: Expr, stored: int, where: Expr) -> None:
        """Asks for a position's share of the next panel, which the cache would miss row by row."""
        spec = self.spec
        turns = max(spec.shape.positions // spec.block // spec.parts, 1)
        line = LINE_BYTES // np.dtype(spec.weight_dtype).itemsize
        lines = -(-stored // (line * turns))
        with T.serial(0, lines) as i:
            at = base + (T.truncmod(where, T.int32(turns)) * lines + i) * line
            address = T.address_of(self.b["w"][T.min(at, T.int32(spec.weights - 1))])
            T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", address, T.int32(0), T.int32(2), T.int32(1)))

    def _segments(self, width: int, base: Expr, where: Expr) -> None:
        """Adds up all segments of a block in the scratch buffer."""
        spec = self.spec
        scratch = self.b["scratch"]
        with nest((spec.block, spec.shape.in_times)) as (p, t):
            zero = T.cast(T.int32(0), spec.total_dtype)
            write_memory(scratch, self._slot(p, t, width), spec.channels(width), lambda at, j: zero)
        first = rows_before = 0
        for count, rows in spec.segments:
            with nest((count, spec.block, spec.shape.in_times)) as (s, p, t):
                weights = base + (rows_before + s * (rows + 1)) * spec.row(width)
                total = self._sum(width, weights, self._position(where, p), (p, t), first + s)
                slot = self._slot(p, t, width)
                self._add_to_scratch(slot, width, total)
            first += count
            rows_before += count * (rows + 1)

    def _waiting(self, slot: Expr) -> Value:
        """How the sums in a slot of the scratch buffer are read."""
        return lambda at, j: self.b["scratch"][slot + at + j]

    def _add_to_scratch(self, slot: Expr, width: int, total: list[Vector]) -> None:
        before, added = self._waiting(slot), read(total)
        write_memory(self.b["scratch"], slot, self.spec.channels(width), lambda at, j: before(at, j) + added(at, j))

    def _slot(self, p: Expr, t: Expr, width: int) -> Expr:
        """Where the sums of a position and time step wait."""
        part, _ = current_part()
        return part * self.spec.scratch + (p * self.spec.shape.in_times + t) * width

    def _sum(
        self, width: int, weights: Expr, position: Sequence[Expr], at: tuple[Expr, Expr], segment: Expr
    ) -> list[Vector]:
        """Emits the sum over the lists of one segment and returns its registers."""
        spec = self.spec
        total = zeros(spec.channels(width), spec.total_dtype)
        summed = read(total)
        with nest((spec.lists.digits,)) as (digit,):
            if spec.lists.digits > 1:
                write(total, lambda at, j: summed(at, j) + summed(at, j))
            self._add_list(self._listed(weights, width, position, at, (segment, digit)), width, total)
        return total

    def _add_list(self, rows: _Rows, width: int, total: list[Vector]) -> None:
        """Adds the rows of one list, whose sum fits 16 bits if they are integers."""
        spec, summed = self.spec, read(total)
        if spec.addition == "words":
            added = self._add_words(rows, width)
        elif spec.wide:
            short = zeros(spec.channels(width), spec.sum_dtype)
            self._add_rows(rows, short)
            added = read(short)
        else:
            self._add_rows(rows, total)
            return
        write(total, lambda at, j: summed(at, j) + T.cast(added(at, j), spec.total_dtype))

    def _listed(
        self, weights: Expr, width: int, position: Sequence[Expr], at: tuple[Expr, Expr], where: tuple[Expr, Expr]
    ) -> _Rows:
        """The rows that one list names."""
        spec, (p, t), (segment, digit) = self.spec, at, where
        if spec.joins:
            number = self._joined_number(p, t, segment, digit)
            index, count, capacity = self.b["joined"], self.b["joined_count"], spec.joined_capacity
        else:
            number = spec.lists.number([*position, t], segment, digit)
            index, count, capacity = self.b["index"], self.b["count"], spec.lists.capacity
        row = spec.row(width)

        def group(i: Expr) -> list[Expr]:
            entries = [index[number * capacity + i * spec.group + g] for g in range(spec.group)]
            return [weights + T.cast(entry, "int32") * row for entry in entries]

        return _Rows(count[number], group)

    def _add_rows(self, rows: _Rows, total: list[Vector]) -> None:
        """Emits the sum of rows, group by group."""
        spec, w, summed = self.spec, self.b["w"], read(total)

        def addend(row: Expr, j: Expr) -> Expr:
            return T.cast(w[row + j], "int16") if spec.addition == "wide" else w[row + j]

        with T.serial(0, rows.groups) as i:
            group = rows.group(i)

            def updated(at: int, j: Expr) -> Expr:
                added = _tree([addend(row + at, j) for row in group])
                return summed(at, j) + (T.cast(added, "int16") if spec.addition == "narrow" else added)

            write(total, updated)

    def _add_words(self, rows: _Rows, width: int) -> Value:
        """Emits the sum of rows of words, and returns how the sums of their channels are read."""
        spec, w = self.spec, self.b["w"]
        half = spec.row(width)
        words, highs = (zeros(layout(half, spec.chunk), "int16") for _ in range(2))
        summed, shifted = read(words), read(highs)
        with T.serial(0, rows.groups) as i:
            group = rows.group(i)
            write(words, lambda at, j: summed(at, j) + _tree([w[row + at + j] for row in group]))
            write(
                highs,
                lambda at, j: shifted(at, j) + _tree([T.shift_right(w[row + at + j], T.int16(8)) for row in group]),
            )
        excess = T.cast(rows.groups * (LOW * spec.group), "int16")

        def channel(at: int, j: Expr) -> Expr:
            if at >= half:
                return shifted(at - half, j)
            return summed(at, j) - T.shift_left(shifted(at, j), T.int16(8)) - excess

        return channel


@dataclass(frozen=True)
class _Rows:
    """The rows on a list: the number of groups, and the addresses of a group's rows."""

    groups: Expr
    group: Callable[[Expr], list[Expr]]


def _tree(values: Sequence[Expr]) -> Expr:
    """Sum in pairs, so that the additions do not wait for one another."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return _tree(values[:half]) + _tree(values[half:])


def _unflatten(number: Expr, extents: Sequence[int]) -> list[Expr]:
    """The indices of a position from its number, the last index running fastest."""
    if len(extents) == 1:
        return [number]
    indices: list[Expr] = []
    for extent in reversed(extents):
        indices.insert(0, T.truncmod(number, T.int32(extent)) if extent > 1 else T.int32(0))
        number = T.truncdiv(number, T.int32(extent)) if extent > 1 else number
    return indices
