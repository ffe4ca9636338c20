"""Max pooling over space: on spikes, counts or real values, or on a layer's sums with its neurons behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    Neuron,
    all_of,
    allocate,
    as_current,
    assign,
    charge,
    dot,
    fire,
    from_state,
    function,
    nest,
    potential_dtype,
    rescaled,
    resting,
    row_major,
    shared_nest,
    state_dtype,
    to_state,
    when,
)
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.panels import panel_runs
from svitkit.runtime.view import PACKED

LANES = 32
NEURON_LANES = 64
LOWEST = {PACKED: 0, "uint8": 0, "uint16": 0, "int16": -(1 << 15), "int32": -(1 << 31)}


@dataclass(frozen=True)
class PoolSpec:
    """Shapes of a pooling; ``outer`` are the batch axes (time), ``channels`` the innermost axis."""

    window: Window
    out_extents: tuple[int, ...]
    outer: tuple[int, ...]
    channels: int
    in_strides: tuple[int, ...]
    in_outer: tuple[int, ...]
    in_channel: int
    in_offset: int
    in_elements: int
    out_strides: tuple[int, ...]
    out_outer: tuple[int, ...]
    out_elements: int
    dtype: str


def _lowest(dtype: str) -> Expr:
    if dtype == "float32":
        return T.float32(float("-inf"))
    return T.cast(T.int32(LOWEST[dtype]), "uint8" if dtype == PACKED else dtype)


def build_pool(spec: PoolSpec) -> Expr:
    """Returns the TIR function; arguments: x, out."""
    lowest = _lowest(spec.dtype)

    def body(x: Expr, out: Expr) -> None:
        for run in panel_runs(spec.channels, LANES):
            with shared_nest((*spec.out_extents, *spec.outer, run.count)) as loops:
                _window(spec, x, out, lowest, run.width, loops, T.int32(run.start) + loops[-1] * run.width)

    return function([("x", spec.in_elements, spec.dtype), ("out", spec.out_elements, spec.dtype)], body)


def pooled_value(spec: PoolSpec, x: Expr, loops: Sequence[Expr]) -> Expr:
    """One element of the result; emits the search for it. The loops run over positions, ``outer`` and channels."""
    rank = len(spec.out_extents)
    best = allocate(1, spec.dtype)
    at = dot(loops[rank:-1], spec.in_outer) + loops[-1] * spec.in_channel
    _largest(spec, x, best, 1, _lowest(spec.dtype), loops[:rank], at)
    return best[0]


def _window(spec: PoolSpec, x: Expr, out: Expr, lowest: Expr, width: int, loops: list[Expr], first: Expr) -> None:
    """One output position, one vector of channels."""
    rank = len(spec.out_extents)
    position, outer = loops[:rank], loops[rank:-1]
    best = allocate(width, spec.dtype)
    _largest(spec, x, best, width, lowest, position, dot(outer, spec.in_outer) + first * spec.in_channel)
    target = dot(position, spec.out_strides) + dot(outer, spec.out_outer) + first
    assign(out, target, width, lambda j: best[j])


def _largest(spec: PoolSpec, x: Expr, best: Expr, width: int, lowest: Expr, position: Sequence[Expr], at: Expr) -> None:
    """Emits ``best = largest value under the window``; ``at`` is the offset of time and channel."""
    assign(best, 0, width, lambda _: lowest)
    with nest(spec.window.kernel) as offsets:
        geometry = zip(position, offsets, spec.window.stride, spec.window.padding, strict=True)
        source = [index * stride + offset - pad for index, offset, stride, pad in geometry]
        inside = [T.And(i >= 0, i < extent) for i, extent in zip(source, spec.window.in_extents, strict=True)]
        base = T.int32(spec.in_offset) + dot(source, spec.in_strides) + at
        with when(all_of(inside)):
            assign(best, 0, width, lambda j: T.max(best[j], x[base + j * spec.in_channel]))


@dataclass(frozen=True)
class PoolNeuronSpec:
    """A pooling of an integer layer's bare sums, and what follows: scale, bias and neurons over all time steps.

    A positive scale and a bias keep the order of numbers, rounded, shifted or not, so the largest sum gives the largest
    current, bit for bit.

    Attributes:
        pool: shapes; ``outer`` is time; the sums are int16 or int32.
        has_bias: whether there is a bias.
        params: of the neurons.
        keeps_state: whether the potential is loaded and stored (step mode); it lies dense, channels innermost.
        out_dtype: of the spikes.
        fixed, drop, lift: as in :class:`svitkit.runtime.kernels.linear.LinearShape`.
    """

    pool: PoolSpec
    has_bias: bool
    params: Neuron
    keeps_state: bool
    out_dtype: str = "uint8"
    fixed: bool = False
    drop: int = 0
    lift: int = 0

    @property
    def current_dtype(self) -> str:
        """Type of scale, bias and finished currents."""
        return "int32" if self.fixed else "float32"


def build_pool_neurons(spec: PoolNeuronSpec) -> Expr:
    """Returns the TIR function; arguments: sums, scale, [bias], [v_state], out."""
    pool = spec.pool
    arguments = [("sums", pool.in_elements, pool.dtype), ("scale", pool.channels, spec.current_dtype)]
    arguments += [("bias", pool.channels, spec.current_dtype)] if spec.has_bias else []
    if spec.keeps_state:
        arguments.append(("v_state", prod(pool.out_extents) * pool.channels, state_dtype(spec.params)))
    arguments.append(("out", pool.out_elements, spec.out_dtype))
    names = [name for name, _, _ in arguments]

    def body(*buffers: Expr) -> None:
        by_name = dict(zip(names, buffers, strict=True))
        for run in panel_runs(pool.channels, NEURON_LANES):
            with shared_nest((*pool.out_extents, run.count)) as (*position, panel):
                _neurons(spec, by_name, run.width, position, T.int32(run.start) + panel * run.width)

    return function(arguments, body)


def _neurons(spec: PoolNeuronSpec, b: dict[str, Expr], width: int, position: Sequence[Expr], first: Expr) -> None:
    """One output position, one vector of channels, all time steps."""
    pool = spec.pool
    v = allocate(width, potential_dtype(spec.params))
    number = row_major(position, pool.out_extents) * pool.channels + first

    def before(j: Expr) -> Expr:
        return from_state(b["v_state"][number + j], spec.params) if spec.keeps_state else resting(spec.params)

    assign(v, 0, width, before)
    with nest(pool.outer) as outer:
        best = allocate(width, pool.dtype)
        lowest = _lowest(pool.dtype)
        at = dot(outer, pool.in_outer) + first * pool.in_channel
        _largest(pool, b["sums"], best, width, lowest, position, at)

        def current(j: Expr) -> Expr:
            value, scale = T.cast(best[j], spec.current_dtype), b["scale"][first + j]
            bias = b["bias"][first + j] if spec.has_bias else None
            made = rescaled(value, scale, bias, drop=spec.drop if spec.fixed else None, lift=spec.lift)
            return as_current(made, spec.current_dtype, spec.params)

        assign(v, 0, width, lambda j: charge(current(j), v[j], spec.params))
        target = dot(position, pool.out_strides) + dot(outer, pool.out_outer) + first
        fire(v, b["out"], target, width, spec.params)
    if spec.keeps_state:
        assign(b["v_state"], number, width, lambda j: to_state(v[j], spec.params))
