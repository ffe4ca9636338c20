"""Kernels that score tokens, choose the best, take them out and put them back.

A token is a row: its values of all time steps and channels. Scores of spikes are exact integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, assign, dot, function, nest, shared_nest, when
from svitkit.runtime.kernels.panels import panel_runs

SCORE_LANES = 32
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
        offset, elements: of the buffer.
    """

    factors: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    offset: int
    elements: int

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
        dtype: of both.
    """

    kept: int
    extents: tuple[int, ...]
    x: Rows
    out: Rows
    dtype: str


@dataclass(frozen=True)
class PutSpec:
    """out[n] = rows of ``computed`` and, behind them, of ``x``, by the number at n.

    Attributes:
        tokens: rows of the result.
        kept: rows of ``computed``.
        extents: of a row.
        computed, x, out: the tensors.
        dtype: of all of them.
    """

    tokens: int
    kept: int
    extents: tuple[int, ...]
    computed: Rows
    x: Rows
    out: Rows
    dtype: str


def build_score(spec: ScoreSpec) -> Expr:
    """Returns the TIR function; arguments: x, out (int32)."""
    height, width = spec.grid

    def body(x: Expr, out: Expr) -> None:
        with shared_nest((height * width, 1)) as (token, _):
            row, column = T.truncdiv(token, T.int32(width)), T.truncmod(token, T.int32(width))
            total = T.alloc_buffer((1,), "int32")
            T.buffer_store(total, T.int32(0), [0])
            for run in panel_runs(spec.channels, SCORE_LANES):
                with nest((run.count,)) as (panel,):
                    first = T.int32(run.start) + panel * run.width
                    _score_panel(spec, x, total, (row, column), first, run.width)
            T.buffer_store(out, total[0], [token])

    return function([("x", spec.elements, spec.dtype), ("out", height * width, "int32")], body)


def _score_panel(spec: ScoreSpec, x: Expr, total: Expr, place: tuple[Expr, Expr], first: Expr, width: int) -> None:
    """Adds the score of some channels of one token to its total."""
    rows, columns, time, channel = spec.strides
    sums = T.alloc_buffer((width,), "int32")
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
        T.buffer_store(total, total[0] + sums[lane], [0])


def build_top(spec: TopSpec) -> Expr:
    """Returns the TIR function; arguments: scores, out (int32)."""

    def body(scores: Expr, out: Expr) -> None:
        for run in panel_runs(spec.tokens, RANK_LANES):
            with nest((run.count,)) as (panel,):
                first = T.int32(run.start) + panel * run.width
                rank = T.alloc_buffer((run.width,), "int32")
                assign(rank, 0, run.width, lambda _: T.int32(0))
                with nest((spec.tokens,)) as (other,):

                    def counted(j: Expr, rank: Expr = rank, first: Expr = first, other: Expr = other) -> Expr:
                        above = scores[other] > scores[first + j]
                        before = T.And(scores[other] == scores[first + j], other < first + j)
                        return rank[j] + T.Select(T.Or(above, before), T.int32(1), T.int32(0))

                    assign(rank, 0, run.width, counted)
                with nest((run.width,)) as (lane,), when(rank[lane] < spec.kept):
                    T.buffer_store(out, first + lane, [rank[lane]])

    return function([("scores", spec.tokens, spec.dtype), ("out", spec.kept, "int32")], body)


def build_places(spec: PlacesSpec) -> Expr:
    """Returns the TIR function; arguments: index (int32), out (int32)."""

    def body(index: Expr, out: Expr) -> None:
        with nest((spec.tokens,)) as (token,):
            T.buffer_store(out, token + spec.kept, [token])
        with nest((spec.kept,)) as (number,):
            T.buffer_store(out, number, [index[number]])

    return function([("index", spec.kept, "int32"), ("out", spec.tokens, "int32")], body)


def build_take(spec: TakeSpec) -> Expr:
    """Returns the TIR function; arguments: x, index (int32), out."""

    def body(x: Expr, index: Expr, out: Expr) -> None:
        with shared_nest((spec.kept, 1)) as (number, _):
            _copy(x, spec.x, index[number], out, spec.out, number, spec.extents)

    return function(
        [("x", spec.x.elements, spec.dtype), ("index", spec.kept, "int32"), ("out", spec.out.elements, spec.dtype)],
        body,
    )


def build_put(spec: PutSpec) -> Expr:
    """Returns the TIR function; arguments: computed, x, places (int32), out."""

    def body(computed: Expr, x: Expr, places: Expr, out: Expr) -> None:
        with shared_nest((spec.tokens, 1)) as (token, _):
            with when(places[token] < spec.kept):
                _copy(computed, spec.computed, places[token], out, spec.out, token, spec.extents)
            with when(places[token] >= spec.kept):
                _copy(x, spec.x, places[token] - spec.kept, out, spec.out, token, spec.extents)

    tensors = [("computed", spec.computed), ("x", spec.x), ("out", spec.out)]
    arguments = [(name, rows.elements, spec.dtype) for name, rows in tensors]
    return function([*arguments[:2], ("places", spec.tokens, "int32"), arguments[2]], body)


def _copy(
    source: Expr, given: Rows, number: Expr, target: Expr, wanted: Rows, place: Expr, extents: Sequence[int]
) -> None:
    """Copies row ``number`` of one tensor to row ``place`` of another."""
    start, end = given.address(number), wanted.address(place)
    for run in panel_runs(extents[-1], SCORE_LANES):
        with nest((*extents[:-1], run.count)) as loops:
            inner = T.int32(run.start) + loops[-1] * run.width
            read = start + dot((*loops[:-1], inner), given.strides)
            write = end + dot((*loops[:-1], inner), wanted.strides)
            _copy_lanes(run.width, source, (read, given.strides[-1]), target, (write, wanted.strides[-1]))


def _copy_lanes(width: int, source: Expr, read: tuple[Expr, int], target: Expr, write: tuple[Expr, int]) -> None:
    """Emits ``target[write] = source[read]`` for some lanes; each told by its first element and its stride."""
    assign(target, write[0], width, lambda lane: source[read[0] + lane * read[1]], stride=write[1])
