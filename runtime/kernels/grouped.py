"""Convolutions whose outputs read the inputs of their own group alone; depthwise ones have one input to a group.

    out[p, t, g, n] = bias[g, n] + sum over taps and k of x[p + tap, t, g, k] * w[tap, k, g, n]

Sums of int8 weights are exact in int32; float32 sums take the bias last, as every other layer does.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, allocate, assign, dot, function, nest, row_major, shared_nest, when
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.panels import panel_runs

LANES = 32


@dataclass(frozen=True)
class GroupedSpec:
    """Shapes of a grouped convolution; ``outer`` is the batch axis (time).

    Attributes:
        window: geometry over the spatial axes.
        out_extents: spatial extents of the result.
        outer: extents of the batch axis.
        groups: how many there are.
        inputs, outputs: channels of one group.
        in_strides, in_outer, in_channel: strides of the input.
        in_offset, in_elements, in_dtype: where the input begins, and its buffer.
        out_strides, out_outer: strides of the result, whose channels are dense.
        out_elements: elements of the result.
        dtype: float32, or int32 for int8 weights.
        has_bias: whether there is a bias.
    """

    window: Window
    out_extents: tuple[int, ...]
    outer: tuple[int, ...]
    groups: int
    inputs: int
    outputs: int
    in_strides: tuple[int, ...]
    in_outer: tuple[int, ...]
    in_channel: int
    in_offset: int
    in_elements: int
    in_dtype: str
    out_strides: tuple[int, ...]
    out_outer: tuple[int, ...]
    out_elements: int
    dtype: str
    has_bias: bool

    @property
    def depthwise(self) -> bool:
        """Whether every channel is a group of its own, so that vectors run along groups."""
        return self.inputs == self.outputs == 1

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return self.groups * self.outputs


def build_grouped(spec: GroupedSpec) -> Expr:
    """Returns the TIR function; arguments: x, w (taps, inputs, groups * outputs), [bias], out."""
    taps = spec.window.taps * spec.inputs * spec.channels
    arguments = [("x", spec.in_elements, spec.in_dtype), ("w", taps, "int8" if spec.dtype == "int32" else "float32")]
    arguments += [("bias", spec.channels, "float32")] if spec.has_bias else []
    arguments.append(("out", spec.out_elements, spec.dtype))
    names = [name for name, _, _ in arguments]
    outside = 1 if spec.depthwise else spec.groups

    def body(*buffers: Expr) -> None:
        emitter = _Grouped(spec, dict(zip(names, buffers, strict=True)))
        for run in panel_runs(spec.channels // outside, LANES):
            with shared_nest((*spec.out_extents, *spec.outer, outside, run.count)) as (*loops, group, panel):
                emitter.vector(loops, group, T.int32(run.start) + panel * run.width, run.width)

    return function(arguments, body)


@dataclass(frozen=True)
class _Grouped:
    """The emitter and its buffers by name."""

    spec: GroupedSpec
    b: dict[str, Expr]

    def vector(self, loops: list[Expr], group: Expr, first: Expr, width: int) -> None:
        """One output position, one vector of channels, ``first`` counted within the group."""
        spec, rank = self.spec, len(self.spec.out_extents)
        position, outer = loops[:rank], loops[rank:]
        total = allocate(width, spec.dtype)
        assign(total, 0, width, lambda _: T.cast(T.int32(0), spec.dtype))
        channel = group * spec.outputs + first
        with nest(spec.window.kernel) as tap:
            source, inside = spec.window.source(position, tap)
            base = T.int32(spec.in_offset) + dot(source, spec.in_strides) + dot(outer, spec.in_outer)
            with when(inside), nest((spec.inputs,)) as (k,):
                self._add(total, base, (group, first, k), row_major(tap, spec.window.kernel), channel, width)
        target = dot(position, spec.out_strides) + dot(outer, spec.out_outer) + channel
        bias = self.b.get("bias")
        assign(self.b["out"], target, width, lambda j: total[j] if bias is None else total[j] + bias[channel + j])

    def _add(self, total: Expr, base: Expr, at: tuple[Expr, Expr, Expr], tap: Expr, channel: Expr, width: int) -> None:
        """Adds one input under one tap; ``at`` is the group, the first channel in it, and the input in it."""
        spec, (group, first, k) = self.spec, at
        weights = (tap * spec.inputs + k) * spec.channels + channel

        def product(j: Expr) -> Expr:
            read = first + j if spec.depthwise else group * spec.inputs + k
            x = T.cast(self.b["x"][base + read * spec.in_channel], spec.dtype)
            return total[j] + x * T.cast(self.b["w"][weights + j], spec.dtype)

        assign(total, 0, width, product)
