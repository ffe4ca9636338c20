"""Fewer launches on a GPU: kernels that do little are computed within those before or behind them.

pooling, elementwise kernel or sum  ->  neurons, sum or elementwise kernel      inlined where its result is read
layer with weights                  ->  elementwise kernel                      continued where its result is stored
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from svitkit.runtime.kernels.fused import (
    Continued,
    FusedSpec,
    Inlined,
    build_fused,
    covers,
    reads_of,
    turns_of,
)
from svitkit.runtime.kernels.gpu_linear import GpuLinearSpec
from svitkit.runtime.kernels.launch import for_gpu
from svitkit.runtime.kernels.neurons import NeuronSpec
from svitkit.runtime.kernels.pointwise import ElementwiseSpec, Operand, ReduceSpec
from svitkit.runtime.kernels.pool import PoolSpec
from svitkit.runtime.program import Call, Chosen, Program
from svitkit.runtime.view import PACKED, Buffer

# Reads of one thread, one after the other, that take about as long as a launch.
MOST_READS = 512


@dataclass
class _Step:
    """A call that may change.

    Attributes:
        call: as it was; its layer and whether it prepares stay.
        kernel: the kernel's name.
        spec: what shapes its kernel now.
        arguments: buffers by the names of the base kernel's arguments; those behind fused ones follow them.
        inputs, outputs: buffers that are read, and those that are written.
        notes: what it does beside its own work.
    """

    call: Call
    kernel: str
    spec: Any
    arguments: list[tuple[Buffer, ...]]
    inputs: set[Buffer]
    outputs: set[Buffer]
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> Any:
        """The kernel behind all fusions."""
        return self.spec.base if isinstance(self.spec, FusedSpec) else self.spec


def fuse(program: Program) -> None:
    """Fuses calls of a program for a GPU, and builds the kernels anew that have changed."""
    steps = [_step(program, call) for call in program.calls]
    kept = {tap.view.buffer for tap in program.taps} | {program.output}
    done: list[_Step | None] = []
    moved: dict[int, int] = {}
    for index, step in enumerate(steps):
        while _inline_one(steps, done, step, index, kept):
            pass
        layer = _continue_one(steps, done, step, index, kept)
        layer = _continue_neurons(steps, done, step, index, kept) if layer is None else layer
        done.append(step if layer is None else None)
        if layer is not None:
            moved[index] = layer
    _rebuild(program, done, moved)


def _step(program: Program, call: Call) -> _Step:
    arguments: list[tuple[Buffer, ...]] = [(buffer,) for buffer in call.buffers]
    states = {buffer for buffer in call.buffers if buffer.space == "states"}
    outputs = {call.buffers[-1], *states}
    kernel = call.symbol.rpartition("_")[0]
    return _Step(call, kernel, program.specs[call.symbol], arguments, set(call.buffers) - outputs | states, outputs)


def _operands(spec: Any) -> Sequence[tuple[str, Operand, tuple[int, ...], tuple[int, ...]]]:
    """Arguments that may be inlined: name, operand, and extents and strides of the loops that read it."""
    if isinstance(spec, NeuronSpec):
        return [("x", spec.x, (*spec.extents, spec.timesteps), (*spec.x.strides, spec.x_time))]
    if isinstance(spec, ReduceSpec):
        return [("x", spec.x, (*spec.extents, *spec.reduced), (*spec.x.strides, *spec.x_reduced))]
    if isinstance(spec, ElementwiseSpec):
        return [(f"x{i}", operand, spec.extents, operand.strides) for i, operand in enumerate(spec.operands)]
    return []


def _reads_before(spec: Any) -> int:
    """Elements that one thread of a consumer reads, one after the other."""
    if isinstance(spec, NeuronSpec):
        return spec.timesteps
    return prod(spec.reduced) if isinstance(spec, ReduceSpec) else 1


def _inline_one(steps: list[_Step], done: list[_Step | None], step: _Step, index: int, kept: set[Buffer]) -> bool:
    """Inlines one producer into a step; returns whether there was one."""
    for position, (name, operand, extents, strides) in enumerate(_operands(step.base)):
        (buffer, *others) = step.arguments[position]
        found = next((i for i, each in enumerate(done) if each is not None and buffer in each.outputs), None)
        producer = None if found is None or others else done[found]
        if found is None or producer is None or not isinstance(producer.base, ElementwiseSpec | PoolSpec | ReduceSpec):
            continue
        if (buffer,) != producer.arguments[-1] or step.call.buffers.count(buffer) > 1:
            continue
        visits = operand.offset == 0 and prod(extents) == prod(turns_of(producer.base)[0])
        if not visits or not covers(extents, strides, buffer.elements):
            continue
        if _total_reads(producer.spec) * _reads_before(step.base) > MOST_READS:
            continue
        if any(buffer in each.inputs for each in done[found + 1 :] if each is not None):
            continue  # somebody reads it before this step
        keeps = buffer in kept or any(buffer in each.inputs for each in steps[index + 1 :])
        if keeps and buffer.dtype == PACKED:
            continue  # words are put together by threads that hold neighbouring channels
        step.spec = _with(step.spec, Inlined(name, producer.spec, keeps))
        step.arguments[position] = (*(b for each in producer.arguments[:-1] for b in each), *[buffer] * keeps)
        step.inputs = step.inputs - {buffer} | producer.inputs
        step.outputs = step.outputs | ({buffer} if keeps else set()) | (producer.outputs - {buffer})
        step.notes = (*producer.notes, *step.notes, f"with the {producer.kernel} before it")
        step.kernel = f"{producer.kernel}_{step.kernel}"
        done[found] = None
        return True
    return False


def _continue_one(
    steps: list[_Step], done: list[_Step | None], step: _Step, index: int, kept: set[Buffer]
) -> int | None:
    """Lets the layer that makes an operand go on with an elementwise step; returns the layer's number."""
    if not isinstance(step.spec, ElementwiseSpec):
        return None
    spec = step.spec
    for position, operand in enumerate(spec.operands):
        (buffer,) = step.arguments[position]
        found = next((i for i, each in enumerate(done) if each is not None and buffer in each.outputs), None)
        layer = None if found is None else done[found]
        if found is None or layer is None or not isinstance(layer.spec, GpuLinearSpec):
            continue
        others = {b for at, each in enumerate(step.arguments[:-1]) if at != position for b in each}
        made_later = {b for each in done[found:] if each is not None for b in each.outputs}
        values = (
            prod(spec.extents) == layer.spec.shape.positions * layer.spec.shape.timesteps * layer.spec.shape.outputs
        )
        if buffer in others or others & made_later or operand.offset or not values:
            continue
        if not covers(spec.extents, operand.strides, buffer.elements):
            continue
        keeps = buffer in kept or any(
            buffer in each.inputs for each in (*(d for d in done if d is not None), *steps[index + 1 :])
        )
        layer.spec = _with(layer.spec, Continued("out", spec, position, keeps))
        rest = [b for at, each in enumerate(step.arguments[:-1]) if at != position for b in each]
        (out,) = step.arguments[-1]
        layer.arguments[-1] = (*[buffer] * keeps, *rest, out)
        layer.inputs = layer.inputs | others
        layer.outputs = layer.outputs - ({buffer} if not keeps else set()) | {out}
        layer.notes = (*layer.notes, f"with the {step.kernel} behind it")
        layer.kernel = f"{layer.kernel}_{step.kernel}"
        return found
    return None


def _continue_neurons(
    steps: list[_Step], done: list[_Step | None], step: _Step, index: int, kept: set[Buffer]
) -> int | None:
    """Lets a layer that goes on with an elementwise step go on with the neurons that read its result."""
    spec = step.spec
    if not isinstance(spec, NeuronSpec) or spec.keeps_state:
        return None
    ((buffer,), (spikes,)) = step.arguments
    found = next((i for i, each in enumerate(done) if each is not None and buffer in each.outputs), None)
    layer = None if found is None else done[found]
    fused = layer.spec if layer is not None and isinstance(layer.spec, FusedSpec) else None
    last = fused.fusions[-1] if fused is not None else None
    if layer is None or fused is None or not isinstance(last, Continued) or last.neurons is not None:
        return None
    shape, consumer = fused.base.shape, last.consumer
    in_step = consumer.operands[last.operand].strides == consumer.out.strides and spec.x_time == shape.time_strides[1]
    visits = spec.x.offset == 0 and prod(spec.extents) * spec.timesteps == prod(consumer.extents)
    strides = (*spec.x.strides, spec.x_time)
    if not in_step or not visits or not covers((*spec.extents, spec.timesteps), strides, buffer.elements):
        return None
    keeps = buffer in kept or any(
        buffer in each.inputs for each in (*(d for d in done if d is not None), *steps[index + 1 :])
    )
    layer.spec = replace(fused, fusions=(*fused.fusions[:-1], replace(last, neurons=spec, keeps_result=keeps)))
    layer.arguments[-1] = (*(layer.arguments[-1] if keeps else layer.arguments[-1][:-1]), spikes)
    layer.outputs = layer.outputs - (set() if keeps else {buffer}) | {spikes}
    layer.notes = (*layer.notes, f"with the {step.kernel} behind it")
    layer.kernel = f"{layer.kernel}_{step.kernel}"
    layer.call = replace(layer.call, layer=step.call.layer)
    return found


def _total_reads(spec: Any) -> int:
    """Elements that one element of a producer takes."""
    if not isinstance(spec, FusedSpec):
        return reads_of(spec)
    inner = max((_total_reads(each.producer) for each in spec.fusions if isinstance(each, Inlined)), default=1)
    return reads_of(spec.base) * inner


def _with(spec: Any, fusion: Inlined | Continued) -> FusedSpec:
    if isinstance(spec, FusedSpec):
        return replace(spec, fusions=(*spec.fusions, fusion))
    return FusedSpec(spec, (fusion,))


def _rebuild(program: Program, done: Sequence[_Step | None], moved: dict[int, int]) -> None:
    """Puts the steps that are left into the program; ``moved`` says where those are that went into others."""
    assert program.gpu is not None
    numbers: dict[int, int] = {}
    symbols: dict[Any, str] = {}
    program.calls = []
    for old, step in enumerate(done):
        if step is None:
            continue
        numbers[old] = len(program.calls)
        symbol = step.call.symbol
        if isinstance(step.spec, FusedSpec):
            symbol = symbols.setdefault(step.spec, f"{step.kernel}_{len(program.functions)}")
            if symbol not in program.functions:
                with for_gpu(program.gpu.api) as kernel:
                    program.functions[symbol] = build_fused(step.spec)
                assert kernel.launch is not None
                program.launches[symbol], program.specs[symbol] = kernel.launch, step.spec
        buffers = tuple(buffer for each in step.arguments for buffer in each)
        program.calls.append(replace(step.call, symbol=symbol, buffers=buffers))
    used = {call.symbol for call in program.calls}
    for table in (program.functions, program.launches, program.specs):
        for symbol in set(table) - used:
            del table[symbol]
    program.taps = [replace(tap, call=numbers[moved.get(tap.call, tap.call)]) for tap in program.taps]
    program.kernels = [
        _noted(each, step, numbers[each.call]) for each in program.kernels if (step := done[each.call]) is not None
    ]


def _noted(chosen: Chosen, step: _Step, call: int) -> Chosen:
    """What was chosen for a step, with what it does now."""
    layer = step.call.layer
    return replace(chosen, call=call, layer=layer, kernel=step.kernel, reason="; ".join([chosen.reason, *step.notes]))
