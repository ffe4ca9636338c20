"""Convolutions and matrix products with constant weights, driven by spike events where the input is spikes.

    out[p, t, n] = bias[n] + sum over taps and k of x[p + tap, t, k] * w[tap, k, n]                           float32
    out[p, t, n] = bias[n] + scale[n] * (sum over taps and k of (x[p + tap, t, k] - zero_point) * w[tap, k, n])  int8

Integer sums are exact; scale and bias are rounded one after the other, so that every processor and ONNX Runtime agree.

The layer is computed panel by panel: a panel is a few output channels whose accumulators fit vector registers. Event
layers list the active inputs of every input position first (:mod:`svitkit.runtime.kernels.events`) and add one weight
row per active input: silence costs nothing. Dense layers visit every input, for real-valued ones. With ``lif`` the
neurons are updated over all time steps before anything is stored, so only spikes leave the kernel.

Weights of a panel are visited in segments (one tap, one chunk of inputs) that stay in the L1 cache while a block of
positions passes by; the block's accumulators wait in a small scratch buffer between segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from svitkit.lif import LIFParams
from svitkit.runtime.kernels.emit import (
    Expr,
    all_of,
    as_float,
    assign,
    charge,
    dot,
    fence,
    fire,
    function,
    nest,
    row_major,
    when,
)
from svitkit.runtime.kernels.events import EventLists, add_listed_rows, list_events
from svitkit.runtime.kernels.panels import panel_runs


@dataclass(frozen=True)
class Window:
    """How an output position sees the input: extents of the spatial axes, innermost last, and the kernel's geometry."""

    in_extents: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def is_pointwise(self) -> bool:
        """Whether every output position sees just the input at the same position."""
        return self.taps == 1 and set(self.stride) <= {1} and set(self.padding) <= {0}

    @property
    def taps(self) -> int:
        """Number of positions under the kernel."""
        return prod(self.kernel)


@dataclass(frozen=True)
class LinearSpec:
    """Everything that shapes the machine code of one layer.

    Attributes:
        timesteps: T; the time stride of the input is 0 where one image is shown at every step.
        out_extents: spatial extents of the output.
        window: geometry; pointwise layers have a kernel of ones.
        in_strides: strides of the input's spatial axes, in elements.
        time_strides: strides of the time axis in input and output.
        channels: extent and stride of the input's channel atoms.
        in_offset: first element of the input in its buffer.
        limit: largest input value of integer inputs, None for real ones.
        event: whether active inputs are listed (integer inputs with dense channels only).
        chunk: inputs of one segment.
        block: neighbouring positions of the last spatial axis that a segment serves at once.
        out_strides: strides of the output's spatial axes.
        outputs: number of output channels, innermost and dense.
        integer: whether weights are int8; then inputs are integers, less ``zero_point``.
        lanes: channels in a full panel.
        lif: neurons fused into the layer, or None for float32 results.
        keeps_state: whether the membrane potential is loaded and stored (step mode).
    """

    timesteps: int
    out_extents: tuple[int, ...]
    window: Window
    in_strides: tuple[int, ...]
    time_strides: tuple[int, int]
    channels: tuple[tuple[int, int], ...]
    in_offset: int
    in_elements: int
    in_dtype: str
    limit: int | None
    event: bool
    chunk: int
    block: int
    out_strides: tuple[int, ...]
    out_elements: int
    outputs: int
    integer: bool
    zero_point: int
    has_scale: bool
    has_bias: bool
    lanes: int
    lif: LIFParams | None
    keeps_state: bool

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return prod(extent for extent, _ in self.channels)

    @property
    def in_times(self) -> int:
        """Time steps that the input stores."""
        return self.timesteps if self.time_strides[0] else 1

    @property
    def positions(self) -> int:
        """Number of output positions."""
        return prod(self.out_extents)

    @property
    def lists(self) -> EventLists:
        """Shape of the lists of an event layer."""
        strides = (*self.in_strides, self.time_strides[0])
        extents = (*self.window.in_extents, self.in_times)
        return EventLists(extents, strides, self.in_offset, self.inputs, self.chunk, self.limit or 1, self.integer)

    @property
    def sum_dtype(self) -> str:
        """Type of the accumulators."""
        return "int32" if self.integer else "float32"

    @property
    def scratch(self) -> int:
        """Number of accumulators that wait between segments."""
        return self.block * self.in_times * min(self.lanes, self.outputs)


def build_linear(spec: LinearSpec) -> Expr:
    """Returns the TIR function; arguments: x, w, [scale], [bias], [index, count, [value]], scratch, [v_state], out."""
    rows_of_weights = spec.window.taps * spec.inputs
    arguments = [
        ("x", spec.in_elements, spec.in_dtype),
        ("w", rows_of_weights * spec.outputs, "int8" if spec.integer else "float32"),
    ]
    if spec.has_scale:
        arguments.append(("scale", spec.outputs, "float32"))
    if spec.has_bias:
        arguments.append(("bias", spec.outputs, "float32"))
    if spec.event:
        arguments += [("index", spec.lists.entries, "uint16"), ("count", spec.lists.segments, "int32")]
        arguments += [("value", spec.lists.entries, spec.lists.value_dtype)] if spec.lists.counts else []
    arguments.append(("scratch", spec.scratch, spec.sum_dtype))
    if spec.keeps_state:
        arguments.append(("v_state", spec.positions * spec.outputs, "float32"))
    arguments.append(("out", spec.out_elements, "uint8" if spec.lif else "float32"))
    names = [name for name, _, _ in arguments]

    def body(*buffers: Expr) -> None:
        b = dict(zip(names, buffers, strict=True))
        if spec.event:
            list_events(spec.lists, b["x"], b["index"], b["count"], b.get("value"))
        *outer, last = spec.out_extents or (1,)
        for run in panel_runs(spec.outputs, spec.lanes):
            with nest((run.count, *outer, last // spec.block)) as (panel, *where, block):
                layer = _Panel(spec, b, run.width, T.int32(run.start) + panel * run.width)
                layer.compute([*where, block * spec.block] if spec.out_extents else [])

    return function(arguments, body)


@dataclass(frozen=True)
class _Panel:
    """One panel of a layer: the buffers, the number of channels, and the first of them."""

    spec: LinearSpec
    b: dict[str, Expr]
    width: int
    first: Expr

    def compute(self, start: Sequence[Expr]) -> None:
        """Emits one block of positions that begins at ``start``."""
        spec = self.spec
        with nest((spec.block, spec.in_times)) as (p, t):
            assign(self.b["scratch"], self._slot(p, t), self.width, self._initial)
        with nest(spec.window.kernel) as tap:
            for chunk, count in spec.lists.runs if spec.event else ((0, 1),):
                with nest((count,)) as (c,), nest((spec.block,)) as (p,):
                    self._visit(_shifted(start, p), tap, chunk + c, p)
        with nest((spec.block,)) as (p,):
            self._finish(_shifted(start, p), p)

    def _initial(self, j: Expr) -> Expr:
        if self.spec.integer:
            return T.int32(0)
        return self.b["bias"][self.first + j] if self.spec.has_bias else T.float32(0)

    def _current(self, slot: Expr, j: Expr) -> Expr:
        """The finished sum of a channel as a real number."""
        spec, total = self.spec, self.b["scratch"][slot + j]
        if not spec.integer:
            return total
        total = T.cast(total, "float32")
        if spec.has_scale:
            total = fence(total * self.b["scale"][self.first + j])
        return total + self.b["bias"][self.first + j] if spec.has_bias else total

    def _slot(self, p: Expr, t: Expr) -> Expr:
        """Where the accumulators of a position and time step wait."""
        return (p * self.spec.in_times + t) * self.width

    def _visit(self, position: Sequence[Expr], tap: Sequence[Expr], chunk: Expr, p: Expr) -> None:
        """Adds what one segment gives to one output position, if the tap lies inside the image."""
        window = self.spec.window
        geometry = list(zip(position, tap, window.stride, window.padding, strict=True))
        source = [index * stride + offset - pad for index, offset, stride, pad in geometry]
        inside = [
            T.And(index >= 0, index < extent)
            for index, extent, pad, kernel in zip(source, window.in_extents, window.padding, window.kernel, strict=True)
            if pad or kernel > 1
        ]
        weights = (self.first * window.taps + row_major(tap, window.kernel) * self.width) * self.spec.inputs
        with when(all_of(inside)), nest((self.spec.in_times,)) as (t,):
            accumulator = T.alloc_buffer((self.width,), self.spec.sum_dtype)
            slot = self._slot(p, t)
            assign(accumulator, 0, self.width, lambda j: self.b["scratch"][slot + j])
            self._add(source, t, chunk, weights, accumulator)
            assign(self.b["scratch"], slot, self.width, lambda j: accumulator[j])

    def _add(self, source: Sequence[Expr], t: Expr, chunk: Expr, weights: Expr, accumulator: Expr) -> None:
        """Adds the weight rows of one input position: those on its list, or all of them."""
        spec, b = self.spec, self.b
        if spec.event:
            lists = (b["index"], b["count"], b.get("value"))
            add_listed_rows(spec.lists, lists, [*source, t], chunk, b["w"], weights, accumulator, self.width)
            return
        base = T.int32(spec.in_offset) + dot(source, spec.in_strides) + t * spec.time_strides[0]
        extents = [extent for extent, _ in spec.channels]
        with nest(extents) as parts:
            x = b["x"][base + dot(parts, [stride for _, stride in spec.channels])]
            x = T.cast(x, "int32") - spec.zero_point if spec.integer else as_float(x, spec.in_dtype)
            row = weights + row_major(parts, extents) * self.width
            assign(accumulator, 0, self.width, lambda j: accumulator[j] + x * T.cast(b["w"][row + j], spec.sum_dtype))

    def _finish(self, position: Sequence[Expr], p: Expr) -> None:
        """Stores the currents of a position, or what its neurons make of them over all time steps."""
        spec = self.spec
        base = dot(position, spec.out_strides) + self.first
        if spec.lif is not None:
            self._neurons(spec.lif, base, row_major(position, spec.out_extents) * spec.outputs + self.first, p)
            return
        with nest((spec.timesteps if spec.time_strides[1] else 1,)) as (t,):
            slot = self._slot(p, t if spec.in_times > 1 else T.int32(0))
            assign(self.b["out"], base + t * spec.time_strides[1], self.width, lambda j: self._current(slot, j))

    def _neurons(self, lif: LIFParams, base: Expr, number: Expr, p: Expr) -> None:
        """The neurons of one position: potentials stay in registers over all time steps."""
        spec, b, width = self.spec, self.b, self.width
        v = T.alloc_buffer((width,), "float32")
        if spec.keeps_state:
            assign(v, 0, width, lambda j: b["v_state"][number + j])
        else:
            assign(v, 0, width, lambda _: T.float32(lif.v_initial))
        with nest((spec.timesteps,)) as (t,):
            slot = self._slot(p, t if spec.in_times > 1 else T.int32(0))
            assign(v, 0, width, lambda j: charge(self._current(slot, j), v[j], lif))
            fire(v, b["out"], base + t * spec.time_strides[1], width, lif)
        if spec.keeps_state:
            assign(b["v_state"], number, width, lambda j: v[j])


def _shifted(start: Sequence[Expr], p: Expr) -> list[Expr]:
    """Position ``p`` of the block that begins at ``start``; layers without spatial axes have one position."""
    return [*start[:-1], start[-1] + p] if start else []
