"""Convolutions and matrix products with constant weights on a GPU, with the neurons behind them over all time steps.

A group of 32 threads computes up to 4 x 32 neighbouring output channels of one position. Packed spikes are events: all
threads of a group see the same word, go from one set bit to the next, and add the weights of that input, which lie side
by side for neighbouring channels. Work is proportional to the spikes, there is no divergence within the group and no
multiplication; sums are added up in the order of the inputs. Potentials stay in registers from time step to time step,
and only spikes, packed again, leave the kernel.

Weights are float16 or float32 (sums are float32), or int8 (sums are int32).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, allocate, dot, function, nest, put, row_major, when
from svitkit.runtime.kernels.launch import DeviceBuffer, Gpu, current_gpu, position_of, warps
from svitkit.runtime.kernels.linear import Epilogue, LinearShape, stored_steps
from svitkit.runtime.view import PACKED, WORD, whole_words

MOST_WORDS = 4  # of output channels of a thread group: so often is the search for a spike made use of
LEAST_GROUPS = 512  # of 32 threads; where there are fewer, groups with fewer channels keep more of the GPU busy
WeightType = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class GpuLinearSpec:
    """A layer and how it is divided among threads.

    Attributes:
        shape: what the layer computes.
        weight_dtype: type of the stored weights.
        words: words of output channels that a group of 32 threads computes.
    """

    shape: LinearShape
    weight_dtype: WeightType
    words: int

    @property
    def columns(self) -> int:
        """Output channels of a row of weights, filled up to whole words."""
        return whole_words(self.shape.outputs)

    @property
    def weights(self) -> int:
        """Number of stored weights."""
        return self.shape.window.taps * self.shape.inputs * self.columns


def gpu_linear_spec(shape: LinearShape, weight_dtype: WeightType) -> GpuLinearSpec:
    """Divides a layer among threads."""
    words = whole_words(shape.outputs) // WORD
    fitting = [size for size in range(1, MOST_WORDS + 1) if words % size == 0]
    busy = [size for size in fitting if shape.positions * words // size >= LEAST_GROUPS]
    return GpuLinearSpec(shape, weight_dtype, max(busy, default=1))


def pack_gpu_linear(spec: GpuLinearSpec, weight: NDArray[Any]) -> NDArray[Any]:
    """Fills up rows of weights (taps * inputs, outputs) with zeros to whole words.

    Returns:
        (spec.weights,) of the stored type.
    """
    stored = np.zeros((len(weight), spec.columns), spec.weight_dtype)
    stored[:, : weight.shape[1]] = weight
    return stored.ravel()


def build_gpu_linear(spec: GpuLinearSpec) -> Expr:
    """Returns the TIR function; arguments: x, w, [scale], [bias], [v_state], out."""
    shape = spec.shape
    arguments = [("x", shape.in_elements, shape.in_dtype), ("w", spec.weights, spec.weight_dtype), *shape.arguments()]
    names = [name for name, _, _ in arguments]

    def body(*buffers: DeviceBuffer) -> None:
        gpu = current_gpu()
        assert gpu is not None
        tiles = spec.columns // (WORD * spec.words)
        with warps(gpu, shape.positions * tiles) as number:
            where = position_of(T.truncdiv(number, T.int32(tiles)), shape.out_extents)
            first = T.truncmod(number, T.int32(tiles)) * (WORD * spec.words) + gpu.lane
            _Tile(spec, dict(zip(names, buffers, strict=True)), gpu, first).compute(where)

    return function(arguments, body)


@dataclass(frozen=True)
class _Tile:
    """The emitter: its buffers by name, and the thread's first channel; the others are 32 apart."""

    spec: GpuLinearSpec
    b: dict[str, Any]
    gpu: Gpu
    first: Expr

    def compute(self, where: Sequence[Expr]) -> None:
        """One position, all time steps."""
        shape = self.spec.shape
        total = allocate(self.spec.words, "int32" if shape.integer else "float32")
        with ExitStack() as stack:
            steps = [stack.enter_context(self._channel(word).position(where)) for word in range(self.spec.words)]
            with nest((shape.in_times,)) as (t,):
                self._sum(total, where, t)
                with stored_steps(shape, t) as out_t:
                    for word, step in enumerate(steps):
                        step(out_t, partial(_one_of, total, word))

    def _channel(self, word: int) -> Epilogue:
        """What becomes of the sums of one of the thread's channels."""
        outputs = self.spec.shape.outputs
        channel, buffers = self.first + word * WORD, self.b
        if self.spec.columns > outputs:
            buffers = {name: buffer.with_validity(channel < outputs) for name, buffer in self.b.items()}
            channel = T.min(channel, T.int32(outputs - 1))
        return Epilogue(self.spec.shape, {**buffers, "out": buffers["out"].opened()}, ((0, 1),), channel)

    def _sum(self, total: Expr, where: Sequence[Expr], t: Expr) -> None:
        """Emits the sums of one time step."""
        shape = self.spec.shape
        for word in range(self.spec.words):
            put(total, word, T.cast(T.int32(0), "int32" if shape.integer else "float32"))
        with nest(shape.window.kernel) as tap:
            source, inside = shape.window.source(where, tap)
            base = T.int32(shape.in_offset) + dot(source, shape.in_strides) + t * shape.time_strides[0]
            rows = row_major(tap, shape.window.kernel) * shape.inputs
            if shape.window.is_pointwise:
                self._add_inputs(total, base, rows)
            else:
                with when(inside):
                    self._add_inputs(total, base, rows)

    def _add_inputs(self, total: Expr, base: Expr, rows: Expr) -> None:
        """Adds what all inputs under one tap contribute; row number ``rows`` of the weights is the first one's."""
        shape = self.spec.shape
        *outer, (inner, stride) = shape.channels
        with nest([extent for extent, _ in outer]) as loops:
            at = base + dot(loops, [step for _, step in outer])
            row = rows + row_major(loops, [extent for extent, _ in outer]) * inner
            if self._in_whole_words():
                self._add_words(total, at, row, inner)
            else:
                with nest((inner,)) as (k,):
                    self._add_value(total, self.b["x"][at + k * stride], row + k)

    def _in_whole_words(self) -> bool:
        """Whether the inputs are packed spikes that begin with a word, whatever the position and time step."""
        shape = self.spec.shape
        *outer, (_, stride) = shape.channels
        steps = [shape.in_offset, *shape.in_strides, shape.time_strides[0], *(step for _, step in outer)]
        return shape.in_dtype == PACKED and stride == 1 and all(step % WORD == 0 for step in steps)

    def _add_words(self, total: Expr, at: Expr, row: Expr, inputs: int) -> None:
        """Adds the weights of every set bit of packed spikes."""
        full, rest = divmod(inputs, WORD)
        if full:
            with nest((full,)) as (number,):
                self._add_events(total, self.b["x"].word(at + number * WORD), row + number * WORD)
        if rest:
            word = T.bitwise_and(self.b["x"].word(at + full * WORD), T.uint32((1 << rest) - 1))
            self._add_events(total, word, row + full * WORD)

    def _add_events(self, total: Expr, word: Expr, row: Expr) -> None:
        with self.gpu.set_bits(word) as bit:
            self._add_row(total, row + bit, None)

    def _add_value(self, total: Expr, x: Expr, row: Expr) -> None:
        """Adds what one input contributes; spikes and counts of 0 contribute nothing."""
        shape = self.spec.shape
        dtype = "int32" if shape.integer else "float32"
        factor = T.cast(x, dtype) - T.int32(shape.zero_point) if shape.zero_point else T.cast(x, dtype)
        if shape.limit is None or shape.zero_point:
            self._add_row(total, row, factor)
            return
        with when(T.cast(x, "int32") != T.int32(0)):
            self._add_row(total, row, None if shape.limit == 1 else factor)

    def _add_row(self, total: Expr, row: Expr, factor: Expr | None) -> None:
        """Adds a row of weights, times a factor if there is one.

        Real products are not rounded before they are added: so does ONNX Runtime, and neurons that are close to their
        threshold fire the same.
        """
        is_integer = self.spec.shape.integer
        for word in range(self.spec.words):
            place = row * self.spec.columns + self.first + word * WORD
            weight = T.cast(self.b["w"][place], "int32" if is_integer else "float32")
            if factor is None:
                put(total, word, total[word] + weight)
            elif is_integer:
                put(total, word, total[word] + factor * weight)
            else:
                put(total, word, self.gpu.multiply_add(factor, weight, total[word]))


def _one_of(total: Expr, word: int, at: int, lane: Expr) -> Expr:
    """The sum of a channel that is alone in its panel."""
    return total[word]
