"""LIF neurons on their own, for input that is not a layer's accumulator: attention, pooling, residual streams.

The loops run over neurons in storage order and then over time, a block of channels at once, so the potential stays in
registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    Neuron,
    allocate,
    assign,
    charge,
    dot,
    fire,
    from_state,
    function,
    nest,
    potential_dtype,
    resting,
    row_major,
    scaled_current,
    shared_nest,
    state_dtype,
    to_state,
)
from svitkit.runtime.kernels.panels import panel_runs
from svitkit.runtime.kernels.pointwise import Operand

LANES = 32


@dataclass(frozen=True)
class NeuronSpec:
    """Shapes of a layer of neurons.

    Attributes:
        extents: loops over neurons in storage order; the last one is the vector axis.
        timesteps: T, with the time strides of input and output.
        scale: factor of the input, 1 for none; a real product is rounded before the neuron adds it.
        keeps_state: whether the potential is loaded and stored (step mode); it lies dense in loop order.
        row: how many of the last loops run along one row of channels.
    """

    extents: tuple[int, ...]
    timesteps: int
    x: Operand
    x_time: int
    out: Operand
    out_time: int
    scale: float
    params: Neuron
    keeps_state: bool
    row: int = 1


def build_neurons(spec: NeuronSpec) -> Expr:
    """Returns the TIR function; arguments: x, [v], out."""
    arguments = [("x", spec.x.elements, spec.x.dtype)]
    arguments += [("v_state", prod(spec.extents), state_dtype(spec.params))] if spec.keeps_state else []

    def body(*buffers: Expr) -> None:
        for run in panel_runs(spec.extents[-1], LANES):
            with shared_nest((*spec.extents[:-1], run.count), row=spec.row) as loops:
                _neurons(spec, buffers, run.width, [*loops[:-1], T.int32(run.start) + loops[-1] * run.width])

    return function([*arguments, ("out", spec.out.elements, spec.out.dtype)], body)


def _neurons(spec: NeuronSpec, buffers: Sequence[Expr], width: int, where: Sequence[Expr]) -> None:
    """One vector of neurons, all time steps."""
    x, *states, out = buffers
    v = allocate(width, potential_dtype(spec.params))
    number = row_major(where, spec.extents)
    if spec.keeps_state:
        assign(v, 0, width, lambda j: from_state(states[0][number + j], spec.params))
    else:
        assign(v, 0, width, lambda _: resting(spec.params))
    source = T.int32(spec.x.offset) + dot(where, spec.x.strides)
    target = dot(where, spec.out.strides)
    with nest((spec.timesteps,)) as (t,):
        _step(spec, x, out, v, width, source + t * spec.x_time, target + t * spec.out_time)
    if spec.keeps_state:
        assign(states[0], number, width, lambda j: to_state(v[j], spec.params))


def _step(spec: NeuronSpec, x: Expr, out: Expr, v: Expr, width: int, source: Expr, target: Expr) -> None:
    """One time step of one vector of neurons."""

    def current(j: Expr) -> Expr:
        return scaled_current(x[source + j * spec.x.strides[-1]], spec.x.dtype, spec.scale, spec.params)

    assign(v, 0, width, lambda j: charge(current(j), v[j], spec.params))
    fire(v, out, target, width, spec.params, stride=spec.out.strides[-1])
