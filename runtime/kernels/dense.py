"""Linear layers that visit every input, for real-valued inputs and for spikes so dense that lists do not pay.

The sums of a few time steps or positions times a panel of channels stay in registers while all inputs pass by, so that
every weight that is loaded serves them all. With ``dot`` four inputs are multiplied and added by one instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, dot, function, nest, row_major, shared_nest, when
from svitkit.runtime.kernels.linear import Epilogue, LinearShape, stored_steps
from svitkit.runtime.kernels.panels import PanelRun, pack_panels, panel_runs
from svitkit.runtime.kernels.registers import Value, Vector, layout, powers_of_two, read, write, zeros

QUAD = 4  # inputs that a dot instruction multiplies
Dot = Literal["vnni", "sdot"]
# Intrinsic of LLVM, and how many int32 sums it updates.
DOT_INSTRUCTIONS: dict[Dot, tuple[str, int]] = {
    "vnni": ("llvm.x86.avx512.vpdpbusd.512", 16),
    "sdot": ("llvm.aarch64.neon.sdot", 4),
}
DOT_LIMIT: dict[Dot, int] = {"vnni": 255, "sdot": 127}


@dataclass(frozen=True)
class DenseSpec:
    """How a layer is computed densely.

    Attributes:
        shape: the layer.
        lanes: channels of a full panel.
        chunk: channels of one vector statement.
        times: time steps whose sums are in registers at once.
        block: neighbouring positions of a pointwise layer whose sums are in registers at once.
        dot: the instruction for four products of bytes, or None.
    """

    shape: LinearShape
    lanes: int
    chunk: int
    times: int
    block: int
    dot: Dot | None

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "int32" if self.shape.integer else "float32"

    @property
    def dot_lanes(self) -> int:
        """Sums that a dot instruction updates; 1 without one."""
        return 1 if self.dot is None else DOT_INSTRUCTIONS[self.dot][1]

    @property
    def runs(self) -> tuple[PanelRun, ...]:
        """The panels; with ``dot`` all are whole registers but for a last one, whose other sums nobody reads."""
        tail = self.shape.outputs % self.dot_lanes
        whole = panel_runs(self.shape.outputs - tail, self.lanes) if self.shape.outputs > tail else ()
        return (*whole, PanelRun(self.shape.outputs - tail, tail, 1)) if tail else whole

    @property
    def weight_elements(self) -> int:
        """Packed weights, and as many zeros behind them as the last register reads beyond its own."""
        tail = self.shape.outputs % self.dot_lanes
        beyond = (self.dot_lanes - tail) * QUAD if tail else 0
        return self.shape.window.taps * self.shape.inputs * self.shape.outputs + beyond


def can_dot(shape: LinearShape, instruction: Dot) -> bool:
    """Whether a layer's inputs come in fours of bytes that the instruction takes."""
    in_fours = len(shape.channels) == 1 and shape.channels[0][1] == 1 and shape.inputs % QUAD == 0
    limit = shape.limit is not None and shape.limit <= DOT_LIMIT[instruction]
    return shape.integer and shape.zero_point == 0 and in_fours and limit


def pack_dense(spec: DenseSpec, weight: NDArray[Any]) -> NDArray[Any]:
    """Packs (taps * inputs, outputs) float32 or int8 panel by panel; for dot, a channel's four inputs together.

    Returns:
        (weight_elements of the spec,) of the same type.
    """
    if spec.dot is None:
        return pack_panels(weight, spec.runs)
    quads = weight.reshape(-1, QUAD, weight.shape[1]).transpose(0, 2, 1)  # (rows / 4, outputs, 4)
    return np.pad(pack_panels(quads, spec.runs), (0, spec.weight_elements - weight.size))


def build_dense(spec: DenseSpec) -> Expr:
    """Returns the TIR function; arguments: x, w, then the shape's."""
    shape = spec.shape
    arguments = [("x", shape.in_elements, shape.in_dtype), ("w", spec.weight_elements, shape.weight_dtype)]
    arguments += shape.arguments()
    names = [name for name, _, _ in arguments]

    def body(*buffers: Expr) -> None:
        layer = _Layer(spec, dict(zip(names, buffers, strict=True)))
        *outer, last = shape.out_extents or (1,)
        blocks = (*outer, last // spec.block)
        for run in spec.runs:
            with nest((run.count,)) as (panel,), shared_nest(blocks) as where:
                layer.panel(run.width, T.int32(run.start) + panel * run.width, where)

    return function(arguments, body)


@dataclass(frozen=True)
class _Layer:
    """The emitter of one layer, and its buffers by name."""

    spec: DenseSpec
    b: dict[str, Expr]

    def panel(self, width: int, first: Expr, where: Sequence[Expr]) -> None:
        """Emits one panel over a block of positions."""
        spec, shape = self.spec, self.spec.shape
        epilogue = Epilogue(shape, self.b, powers_of_two(width, spec.chunk), first)
        positions = [[*where[:-1], where[-1] * spec.block + p] if shape.out_extents else [] for p in range(spec.block)]
        weights = first * (shape.window.taps * shape.inputs)
        with ExitStack() as stack:
            steps = [stack.enter_context(epilogue.position(position)) for position in positions]
            for begin, tiles, times in _tiles(shape.in_times, spec.times):
                with nest((tiles,)) as (tile,):
                    start = begin + tile * times
                    sums = self._tile(width, weights, positions, start, times)
                    for p, step in enumerate(steps):
                        for r in range(times):
                            self._step(step, start + r, sums[p * times + r])

    def _step(self, step: Callable[..., None], t: Expr, total: list[Vector]) -> None:
        with stored_steps(self.spec.shape, t) as out_t:
            step(out_t, read(total))

    def _tile(self, width: int, weights: Expr, positions: Sequence[Any], start: Expr, times: int) -> list[list[Vector]]:
        """Emits the sums of a few time steps of a few positions, and returns their registers."""
        spec, shape = self.spec, self.spec.shape
        wide = -(-width // spec.dot_lanes) * spec.dot_lanes
        sums = [zeros(layout(wide, spec.chunk), spec.sum_dtype) for _ in range(len(positions) * times)]
        with nest(shape.window.kernel) as tap:
            places = [shape.window.source(position, tap) for position in positions]
            _, inside = places[0]  # blocks of more than one position are pointwise: always inside
            rows = weights + row_major(tap, shape.window.kernel) * (shape.inputs * width)
            bases = [
                T.int32(shape.in_offset) + dot(source, shape.in_strides) + (start + r) * shape.time_strides[0]
                for source, _ in places
                for r in range(times)
            ]
            with when(inside):
                if spec.dot is None:
                    self._multiply(sums, width, rows, bases)
                else:
                    self._multiply_quads(spec.dot, sums, width, rows, bases)
        return sums

    def _multiply(self, sums: Sequence[list[Vector]], width: int, rows: Expr, bases: Sequence[Expr]) -> None:
        """Adds every input times its row of weights."""
        spec, shape, w = self.spec, self.spec.shape, self.b["w"]
        extents = [extent for extent, _ in shape.channels]
        with nest(extents) as parts:
            offset = dot(parts, [stride for _, stride in shape.channels])
            number = row_major(parts, extents)
            for total, base in zip(sums, bases, strict=True):
                x = T.cast(self.b["x"][base + offset], spec.sum_dtype)
                x = x - shape.zero_point if shape.integer and shape.zero_point else x
                summed = read(total)

                def updated(at: int, j: Expr, summed: Value = summed, x: Expr = x) -> Expr:
                    return summed(at, j) + x * T.cast(w[rows + number * width + at + j], spec.sum_dtype)

                write(total, updated)

    def _multiply_quads(
        self, instruction: Dot, sums: Sequence[list[Vector]], width: int, rows: Expr, bases: Sequence[Expr]
    ) -> None:
        """Adds the products of four inputs at once."""
        name, lanes = DOT_INSTRUCTIONS[instruction]
        sign = "uint8" if instruction == "vnni" else "int8"
        with nest((self.spec.shape.inputs // QUAD,)) as (k,):
            for total, base in zip(sums, bases, strict=True):
                word = T.reinterpret("int32", self.b["x"][T.Ramp(base + k * QUAD, 1, QUAD)])
                x = T.reinterpret(f"{sign}x{lanes * QUAD}", T.Broadcast(word, lanes))
                for vector, inner in ((v, i) for v in total for i in range(0, v.width, lanes)):
                    where = T.Ramp(T.int32(inner), 1, lanes)
                    first = rows + k * (QUAD * width) + (vector.at + inner) * QUAD
                    w = self.b["w"][T.Ramp(first, 1, lanes * QUAD)]
                    updated = T.call_llvm_pure_intrin(f"int32x{lanes}", name, vector.buffer[where], x, w)
                    T.buffer_store(vector.buffer, updated, [where])


def _tiles(extent: int, size: int) -> list[tuple[int, int, int]]:
    """Covers time steps with tiles: first step, number of tiles and steps of each."""
    full, rest = divmod(extent, size)
    return [(0, full, size)] * (full > 0) + [(full * size, 1, rest)] * (rest > 0)
