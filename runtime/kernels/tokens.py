"""Kernels that score tokens, choose the best, take them out and put them back.

A token is a row: its values of all time steps and channels. Scores of spikes are exact integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, allocate, assign, dot, function, nest, put, shared_nest, when
from svitkit.runtime.kernels.panels import PanelRun, panel_runs

SCORE_LANES = 32
COPY_LANES = 32
RANK_LANES = 32
NEIGHBOURHOOD = 9


@dataclass(frozen=True)
class ScoreSpec:
    """Scores of tokens by their spikes (:func:`svitkit.models.token_ops.score_tokens`).

    Attributes:
        criterion: ``difference`` or ``activity``.
        grid: tokens along height and width.
        timesteps, channels: values of a token.
        strides: of height, width, time and channel in x.
        offset, elements, dtype: of x; uint8, or float32 that holds counts.
    """

    criterion: str
    grid: tuple[int, int]
    timesteps: int
    channels: int
    strides: tuple[int, int, int, int]
    offset: int
    elements: int
    dtype: str


@dataclass(frozen=True)
class TopSpec:
    """The numbers of the ``kept`` largest of ``tokens`` scores, the largest first; of equals the lower number."""

    tokens: int
    kept: int
    dtype: str


@dataclass(frozen=True)
class PlacesSpec:
    """The source of every token's row behind ``kept`` computed rows: its computed one, or the one that it was."""

    tokens: int
    kept: int


@dataclass(frozen=True)
class Rows:
    """Where the rows of a tensor lie.

    Attributes:
        factors: size and stride of every factor of the token's number, outermost first.
        strides: of the values inside a row.
        offset, elements, dtype: of the buffer.
    """

    factors: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    offset: int
    elements: int
    dtype: str

    def address(self, number: Expr) -> Expr:
        """Where the row of a token begins."""
        where: Expr = T.int32(self.offset)
        inner = 1
        for index, (size, stride) in reversed(list(enumerate(self.factors))):
            part = number if inner == 1 else T.truncdiv(number, T.int32(inner))
            part = part if index == 0 else T.truncmod(part, T.int32(size))
            where, inner = where + part * stride, inner * size
        return where


@dataclass(frozen=True)
class TakeSpec:
    """out[j] = x[index[j]], row by row.

    Attributes:
        kept: rows of the result.
        extents: of a row.
        x, out: the tensors.
    """

    kept: int
    extents: tuple[int, ...]
    x: Rows
    out: Rows


@dataclass(frozen=True)
class PutSpec:
    """out[n] = rows of ``computed`` and, behind them, of ``x``, by the number at n.

    Attributes:
        tokens: rows of the result.
        kept: rows of ``computed``.
        extents: of a row.
        computed, x, out: the tensors.
    """

    tokens: int
    kept: int
    extents: tuple[int, ...]
    computed: Rows
    x: Rows
    out: Rows


def build_score(spec: ScoreSpec) -> Expr:
    """Returns the TIR function; arguments: x, out (int32)."""
    height, width = spec.grid

    def body(x: Expr, out: Expr) -> None:
        with shared_nest((height * width, 1)) as (token, _):
            row, column = T.truncdiv(token, T.int32(width)), T.truncmod(token, T.int32(width))
            total = allocate(1, "int32")
            put(total, 0, T.int32(0))
            for run in panel_runs(spec.channels, SCORE_LANES):
                with nest((run.count,)) as (panel,):
                    first = T.int32(run.start) + panel * run.width
                    _score_panel(spec, x, total, (row, column), first, run.width)
            put(out, token, total[0])

    return function([("x", spec.elements, spec.dtype), ("out", height * width, "int32")], body)


def _score_panel(spec: ScoreSpec, x: Expr, total: Expr, place: tuple[Expr, Expr], first: Expr, width: int) -> None:
    """Adds the score of some channels of one token to its total."""
    rows, columns, time, channel = spec.strides
    sums = allocate(width, "int32")
    assign(sums, 0, width, lambda _: T.int32(0))

    def value(row: Expr, column: Expr, step: Expr, lane: Expr) -> Expr:
        at = T.int32(spec.offset) + dot((row, column, step, first + lane), (rows, columns, time, channel))
        return T.cast(x[at], "int32")

    def clamped(index: Expr, offset: int, extent: int) -> Expr:
        return T.max(T.min(index + offset, T.int32(extent - 1)), T.int32(0))

    around = [
        (clamped(place[0], i, spec.grid[0]), clamped(place[1], j, spec.grid[1])) for i in (-1, 0, 1) for j in (-1, 0, 1)
    ]
    with nest((spec.timesteps,)) as (step,):
        if spec.criterion == "activity":
            assign(sums, 0, width, lambda j: sums[j] + value(*place, step, j))
        else:

            def off(j: Expr) -> Expr:
                mean = sum((value(*where, step, j) for where in around[1:]), value(*around[0], step, j))
                return sums[j] + T.abs(value(*place, step, j) * NEIGHBOURHOOD - mean)

            assign(sums, 0, width, off)
    if spec.criterion == "difference" and spec.timesteps > 1:
        with nest((spec.timesteps - 1,)) as (step,):

            def changed(j: Expr) -> Expr:
                change = T.abs(value(*place, step + 1, j) - value(*place, step, j))
                return sums[j] + change * NEIGHBOURHOOD

            assign(sums, 0, width, changed)
    with nest((width,)) as (lane,):
        put(total, 0, total[0] + sums[lane])


def build_top(spec: TopSpec) -> Expr:
    """Returns the TIR function; arguments: scores, out (int32)."""

    def body(scores: Expr, out: Expr) -> None:
        for run in panel_runs(spec.tokens, RANK_LANES):
            with shared_nest((run.count, 1)) as (panel, _):
                first = T.int32(run.start) + panel * run.width
                rank = allocate(run.width, "int32")
                assign(rank, 0, run.width, lambda _: T.int32(0))
                with nest((spec.tokens,)) as (other,):

                    def counted(j: Expr, rank: Expr = rank, first: Expr = first, other: Expr = other) -> Expr:
                        above = scores[other] > scores[first + j]
                        before = T.And(scores[other] == scores[first + j], other < first + j)
                        return rank[j] + T.Select(T.Or(above, before), T.int32(1), T.int32(0))

                    assign(rank, 0, run.width, counted)
                with nest((run.width,)) as (lane,), when(rank[lane] < spec.kept):
                    put(out, rank[lane], first + lane)

    return function([("scores", spec.tokens, spec.dtype), ("out", spec.kept, "int32")], body)


def build_places(spec: PlacesSpec) -> Expr:
    """Returns the TIR function; arguments: index (int32), out (int32)."""

    def body(index: Expr, out: Expr) -> None:
        with shared_nest((spec.tokens, 1)) as (token, _):
            put(out, token, token + spec.kept)
            with nest((spec.kept,)) as (number,), when(index[number] == token):
                put(out, token, number)

    return function([("index", spec.kept, "int32"), ("out", spec.tokens, "int32")], body)


def build_take(spec: TakeSpec) -> Expr:
    """Returns the TIR function; arguments: x, index (int32), out."""

    def body(x: Expr, index: Expr, out: Expr) -> None:
        for run in panel_runs(spec.extents[-1], COPY_LANES):
            with shared_nest((spec.kept, *spec.extents[:-1], run.count)) as (number, *loops):
                columns = _columns(run, loops)
                read, write = _place(spec.x, index[number], columns), _place(spec.out, number, columns)
                value = partial(_lane, x, read, spec.x.strides[-1])
                assign(out, write, run.width, value, stride=spec.out.strides[-1])

    return function(
        [
            ("x", spec.x.elements, spec.x.dtype),
            ("index", spec.kept, "int32"),
            ("out", spec.out.elements, spec.out.dtype),
        ],
        body,
    )


def build_put(spec: PutSpec) -> Expr:
    """Returns the TIR function; arguments: computed, x, places (int32), out."""

    def body(computed: Expr, x: Expr, places: Expr, out: Expr) -> None:
        for run in panel_runs(spec.extents[-1], COPY_LANES):
            with shared_nest((spec.tokens, *spec.extents[:-1], run.count)) as (token, *loops):
                columns, row = _columns(run, loops), places[token]
                first = partial(_lane, computed, _place(spec.computed, row, columns), spec.computed.strides[-1])
                second = partial(_lane, x, _place(spec.x, row - spec.kept, columns), spec.x.strides[-1])
                write = _place(spec.out, token, columns)
                value = partial(_either, row < spec.kept, first, second)
                assign(out, write, run.width, value, stride=spec.out.strides[-1])

    tensors = [("computed", spec.computed), ("x", spec.x), ("out", spec.out)]
    arguments = [(name, rows.elements, rows.dtype) for name, rows in tensors]
    return function([*arguments[:2], ("places", spec.tokens, "int32"), arguments[2]], body)


def _columns(run: PanelRun, loops: Sequence[Expr]) -> list[Expr]:
    """The place inside a row, of its first lane."""
    return [*loops[:-1], T.int32(run.start) + loops[-1] * run.width]


def _place(rows: Rows, number: Expr, columns: Sequence[Expr]) -> Expr:
    """Where a place of row ``number`` lies."""
    return rows.address(number) + dot(columns, rows.strides)


def _lane(source: Expr, first: Expr, stride: int, lane: Expr) -> Expr:
    return source[first + lane * stride]


def _either(condition: Expr, first: Callable[[Expr], Expr], second: Callable[[Expr], Expr], lane: Expr) -> Expr:
    """One of two values, of which the other is not read."""
    return T.if_then_else(condition, first(lane), second(lane))
