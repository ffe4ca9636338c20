"""Convolutions and matrix products with constant weights, driven by spike events where the input is spikes.

    out[p, t, n] = bias[n] + sum over taps and k of x[p + tap, t, k] * w[tap, k, n]

The event kernel first lists the active inputs of every input position once. Then it walks panels of output channels,
and for each position adds one weight row per active input of each tap: a spike costs an addition, silence costs
nothing. The dense kernel visits every input, for real-valued ones. With ``lif`` the neurons are updated over all time
steps before anything is stored, so only spikes leave the registers.
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
    fire,
    function,
    nest,
    row_major,
    when,
)
from svitkit.runtime.kernels.panels import PanelRun, panel_runs


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
        out_strides: strides of the output's spatial axes.
        outputs: number of output channels, innermost and dense.
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
    out_strides: tuple[int, ...]
    out_elements: int
    outputs: int
    has_bias: bool
    lanes: int
    lif: LIFParams | None
    keeps_state: bool

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return prod(extent for extent, _ in self.channels)

    @property
    def rows(self) -> int:
        """Number of input positions times stored time steps: the lists of an event kernel."""
        return self.in_times * prod(self.window.in_extents)

    @property
    def in_times(self) -> int:
        """Time steps that the input stores."""
        return self.timesteps if self.time_strides[0] else 1

    @property
    def positions(self) -> int:
        """Number of output positions."""
        return prod(self.out_extents)


def build_linear(spec: LinearSpec) -> Expr:
    """Returns the TIR function; arguments: x, w, [bias], [index, count], [v], out."""
    rows_of_weights = spec.window.taps * spec.inputs
    arguments = [("x", spec.in_elements, spec.in_dtype), ("w", rows_of_weights * spec.outputs, "float32")]
    if spec.has_bias:
        arguments.append(("bias", spec.outputs, "float32"))
    if spec.event:
        arguments += [("index", spec.rows * spec.inputs, "uint16"), ("count", spec.rows, "int32")]
    if spec.keeps_state:
        arguments.append(("v_state", spec.positions * spec.outputs, "float32"))
    arguments.append(("out", spec.out_elements, "uint8" if spec.lif else "float32"))
    names = [name for name, _, _ in arguments]

    def body(*buffers: Expr) -> None:
        b = dict(zip(names, buffers, strict=True))
        if spec.event:
            _list_active(spec, b["x"], b["index"], b["count"])
        for run in panel_runs(spec.outputs, spec.lanes):
            with nest((run.count, *spec.out_extents)) as (panel, *position):
                first = T.int32(run.start) + panel * run.width
                _position(spec, b, run, first, position)

    return function(arguments, body)


def _list_active(spec: LinearSpec, x: Expr, index: Expr, count: Expr) -> None:
    """Writes, for every input position and step, the channels that are not zero; branch-free."""
    strides = (*spec.in_strides, spec.time_strides[0])
    with nest((*spec.window.in_extents, spec.in_times)) as where:
        row = _row(spec, where[:-1], where[-1])
        base = T.int32(spec.in_offset) + dot(where, strides)
        found = T.alloc_buffer((1,), "int32")
        T.buffer_store(found, T.int32(0), [0])
        with T.serial(0, spec.inputs) as k:
            T.buffer_store(index, T.cast(k, "uint16"), [row * spec.inputs + found[0]])
            T.buffer_store(found, found[0] + T.cast(x[base + k] != T.uint8(0), "int32"), [0])
        T.buffer_store(count, found[0], [row])


def _row(spec: LinearSpec, position: Sequence[Expr], t: Expr) -> Expr:
    """Number of the list of an input position and time step."""
    row = row_major(position, spec.window.in_extents)
    return row * spec.in_times + (t if spec.in_times > 1 else 0)


def _position(spec: LinearSpec, b: dict[str, Expr], run: PanelRun, first: Expr, position: Sequence[Expr]) -> None:
    """One output position, one panel, all time steps."""
    base = dot(position, spec.out_strides) + first
    accumulator = T.alloc_buffer((run.width,), "float32")
    if spec.lif is not None:
        _neurons(spec, spec.lif, b, run, first, position, accumulator)
        return
    with nest((spec.timesteps if spec.time_strides[1] else 1,)) as (t,):
        _accumulate(spec, b, run, first, position, t, accumulator)
        assign(b["out"], base + t * spec.time_strides[1], run.width, lambda j: accumulator[j])


def _neurons(
    spec: LinearSpec,
    lif: LIFParams,
    b: dict[str, Expr],
    run: PanelRun,
    first: Expr,
    position: Sequence[Expr],
    accumulator: Expr,
) -> None:
    """The neurons of one position and panel: currents and potentials stay in registers over all time steps."""
    v = T.alloc_buffer((run.width,), "float32")
    number = row_major(position, spec.out_extents) * spec.outputs + first
    if spec.keeps_state:
        assign(v, 0, run.width, lambda j: b["v_state"][number + j])
    else:
        assign(v, 0, run.width, lambda _: T.float32(lif.v_initial))
    if spec.in_times == 1:
        _accumulate(spec, b, run, first, position, T.int32(0), accumulator)
    with nest((spec.timesteps,)) as (t,):
        if spec.in_times > 1:
            _accumulate(spec, b, run, first, position, t, accumulator)
        assign(v, 0, run.width, lambda j: charge(accumulator[j], v[j], lif))
        base = dot(position, spec.out_strides) + first + t * spec.time_strides[1]
        fire(v, b["out"], base, run.width, lif)
    if spec.keeps_state:
        assign(b["v_state"], number, run.width, lambda j: v[j])


def _accumulate(
    spec: LinearSpec,
    b: dict[str, Expr],
    run: PanelRun,
    first: Expr,
    position: Sequence[Expr],
    t: Expr,
    accumulator: Expr,
) -> None:
    """Sums the weight rows under the kernel into the accumulator."""
    if spec.has_bias:
        assign(accumulator, 0, run.width, lambda j: b["bias"][first + j])
    else:
        assign(accumulator, 0, run.width, lambda _: T.float32(0))
    panel = first * (spec.window.taps * spec.inputs)
    with nest(spec.window.kernel) as offsets:
        source = [
            index * stride + offset - pad
            for index, offset, stride, pad in zip(
                position, offsets, spec.window.stride, spec.window.padding, strict=True
            )
        ]
        inside = [
            T.And(index >= 0, index < extent)
            for index, extent, pad, kernel in zip(
                source, spec.window.in_extents, spec.window.padding, spec.window.kernel, strict=True
            )
            if pad or kernel > 1
        ]
        tap = row_major(offsets, spec.window.kernel)
        weights = panel + tap * (spec.inputs * run.width)
        if inside:
            with when(all_of(inside)):
                _add_rows(spec, b, run, weights, source, t, accumulator)
        else:
            _add_rows(spec, b, run, weights, source, t, accumulator)


def _add_rows(
    spec: LinearSpec,
    b: dict[str, Expr],
    run: PanelRun,
    weights: Expr,
    source: Sequence[Expr],
    t: Expr,
    accumulator: Expr,
) -> None:
    """Adds the weight rows of one input position: those on its list, or all of them."""
    x, w = b["x"], b["w"]
    base = T.int32(spec.in_offset) + dot(source, spec.in_strides) + t * spec.time_strides[0]

    def add(k: Expr, address: Expr) -> None:
        row = weights + k * run.width
        if spec.event and spec.limit == 1:
            assign(accumulator, 0, run.width, lambda j: accumulator[j] + w[row + j])
            return
        value = as_float(x[address], spec.in_dtype)
        assign(accumulator, 0, run.width, lambda j: accumulator[j] + value * w[row + j])

    if spec.event:
        row = _row(spec, source, t)
        with T.serial(0, b["count"][row]) as i:
            k = T.cast(b["index"][row * spec.inputs + i], "int32")
            add(k, base + k)
        return
    extents = [extent for extent, _ in spec.channels]
    with nest(extents) as parts:
        add(row_major(parts, extents), base + dot(parts, [stride for _, stride in spec.channels]))
