"""Fewer launches on a GPU: kernels that do little are computed within those before or behind them.

pooling, elementwise kernel or sum  ->  neurons, sum or elementwise kernel      inlined where its result is read
layer with weights                  ->  elementwise kernel  ->  neurons         continued where its result is stored
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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


def fuse(program: Program) -> None:
    """Fuses calls of a program for a GPU, and builds the kernels anew that have changed."""
    fusion = _Fusion([_step(program, call) for call in program.calls])
    fusion.kept = {tap.view.buffer for tap in program.taps} | {program.output}
    for number in range(len(fusion.steps)):
        fusion.take(number)
    _rebuild(program, fusion)


@dataclass
class _Step:
    """A call that may change.

    Attributes:
        call: as it was; whether it prepares stays.
        kernel: the kernel's name.
        spec: what shapes its kernel now.
        arguments: buffers in the place of every argument of the base kernel.
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

    def add(self, fusion: Inlined | Continued) -> None:
        """Fuses one more argument."""
        fusions = self.spec.fusions if isinstance(self.spec, FusedSpec) else ()
        self.spec = FusedSpec(self.base, (*fusions, fusion))

    def goes_on_with(self, step: _Step) -> None:
        """Notes that a step behind this one is part of it."""
        self.notes = (*self.notes, f"with the {step.kernel} behind it")
        self.kernel = f"{self.kernel}_{step.kernel}"


def _step(program: Program, call: Call) -> _Step:
    arguments: list[tuple[Buffer, ...]] = [(buffer,) for buffer in call.buffers]
    states = {buffer for buffer in call.buffers if buffer.space == "states"}
    outputs = {call.buffers[-1], *states}
    kernel = call.symbol.rpartition("_")[0]
    return _Step(call, kernel, program.specs[call.symbol], arguments, set(call.buffers) - outputs | states, outputs)


@dataclass
class _Fusion:
    """The steps of a program on their way.

    Attributes:
        steps: all of them, by number.
        kept: buffers that must be stored whoever reads them.
        left: numbers of the steps that were taken and stay, in order.
        moved: the step that another one has become a part of, by their numbers.
    """

    steps: list[_Step]
    kept: set[Buffer] = field(default_factory=set)
    left: list[int] = field(default_factory=list)
    moved: dict[int, int] = field(default_factory=dict)

    def take(self, number: int) -> None:
        """Takes the next step: as it is, with others inlined, or as a part of the layer before it."""
        step = self.steps[number]
        while any(self._inline(number, position) for position in range(len(_operands(step.base)))):
            pass
        if not self._continue(number) and not self._continue_with_neurons(number):
            self.left.append(number)

    def _inline(self, number: int, position: int) -> bool:
        """Inlines what makes an operand of a step, if that is possible."""
        step = self.steps[number]
        name, operand, extents, strides = _operands(step.base)[position]
        if len(step.arguments[position]) > 1 or step.call.buffers.count(step.arguments[position][0]) > 1:
            return False
        (buffer,) = step.arguments[position]
        maker = self._maker(buffer)
        producer = None if maker is None else self.steps[maker]
        if maker is None or producer is None or not isinstance(producer.base, ElementwiseSpec | PoolSpec | ReduceSpec):
            return False
        is_result = producer.arguments[-1] == (buffer,)
        visits = operand.offset == 0 and prod(extents) == prod(turns_of(producer.base)[0])
        reads = _reads_for_one(producer.spec) * _reads_of_thread(step.base)
        if not is_result or not visits or not covers(extents, strides, buffer.elements) or reads > MOST_READS:
            return False
        # packed words are put together by threads that hold neighbouring channels, which readers need not be
        keeps = self._is_needed(buffer, number)
        if self._is_read_between(buffer, maker) or (keeps and buffer.dtype == PACKED):
            return False
        step.add(Inlined(name, producer.spec, keeps))
        step.arguments[position] = (*(each for given in producer.arguments[:-1] for each in given), *[buffer] * keeps)
        step.inputs = step.inputs - {buffer} | producer.inputs
        step.outputs = step.outputs | producer.outputs - (set() if keeps else {buffer})
        step.notes = (*producer.notes, *step.notes, f"with the {producer.kernel} before it")
        step.kernel = f"{producer.kernel}_{step.kernel}"
        self.left.remove(maker)
        return True

    def _continue(self, number: int) -> bool:
        """Makes an elementwise step a part of the layer that makes one of its operands, if that is possible."""
        step = self.steps[number]
        if not isinstance(step.spec, ElementwiseSpec):
            return False
        return any(self._continue_operand(number, position) for position in range(len(step.spec.operands)))

    def _continue_operand(self, number: int, position: int) -> bool:
        step, operand = self.steps[number], self.steps[number].spec.operands[position]
        (buffer,), (result,) = step.arguments[position], step.arguments[-1]
        maker = self._maker(buffer)
        layer = None if maker is None else self.steps[maker]
        if maker is None or layer is None or not isinstance(layer.spec, GpuLinearSpec):
            return False
        others = [each for at, given in enumerate(step.arguments[:-1]) if at != position for each in given]
        made_later = {each for at in self.left if at >= maker for each in self.steps[at].outputs}
        shape = layer.spec.shape
        visits = operand.offset == 0 and prod(step.spec.extents) == shape.positions * shape.timesteps * shape.outputs
        if made_later & set(others) or not visits or not covers(step.spec.extents, operand.strides, buffer.elements):
            return False
        keeps = self._is_needed(buffer, number) or self._is_read_between(buffer, maker)
        layer.add(Continued("out", step.spec, position, keeps))
        layer.arguments[-1] = (*[buffer] * keeps, *others, result)
        layer.inputs = layer.inputs | set(others)
        layer.outputs = layer.outputs - (set() if keeps else {buffer}) | {result}
        layer.goes_on_with(step)
        self.moved[number] = maker
        return True

    def _continue_with_neurons(self, number: int) -> bool:
        """Makes neurons a part of a layer that goes on with the elementwise step whose result they read, if it can."""
        step = self.steps[number]
        neurons = step.spec
        if not isinstance(neurons, NeuronSpec) or neurons.keeps_state:
            return False
        ((buffer,), (spikes,)) = step.arguments
        maker = self._maker(buffer)
        layer = None if maker is None else self.steps[maker]
        last = layer.spec.fusions[-1] if layer is not None and isinstance(layer.spec, FusedSpec) else None
        if maker is None or layer is None or not isinstance(last, Continued) or last.neurons is not None:
            return False
        result, extents = last.consumer.out, (*neurons.extents, neurons.timesteps)
        in_place = last.consumer.operands[last.operand].strides == result.strides  # so that time steps are the layer's
        in_step = neurons.x_time == layer.base.shape.time_strides[1]
        visits = neurons.x.offset == 0 and prod(extents) == prod(last.consumer.extents)
        strides = (*neurons.x.strides, neurons.x_time)
        if not (in_place and in_step and visits and covers(extents, strides, buffer.elements)):
            return False
        keeps = self._is_needed(buffer, number) or self._is_read_between(buffer, maker)
        fusions = (*layer.spec.fusions[:-1], replace(last, neurons=neurons, keeps_result=keeps))
        layer.spec = replace(layer.spec, fusions=fusions)
        layer.arguments[-1] = (*(layer.arguments[-1] if keeps else layer.arguments[-1][:-1]), spikes)
        layer.outputs = layer.outputs - (set() if keeps else {buffer}) | {spikes}
        layer.goes_on_with(step)
        layer.call = replace(layer.call, layer=step.call.layer)
        self.moved[number] = maker
        return True

    def _maker(self, buffer: Buffer) -> int | None:
        """The step that writes a buffer."""
        return next((number for number in self.left if buffer in self.steps[number].outputs), None)

    def _is_needed(self, buffer: Buffer, number: int) -> bool:
        """Whether somebody needs a buffer behind a step."""
        return buffer in self.kept or any(buffer in step.inputs for step in self.steps[number + 1 :])

    def _is_read_between(self, buffer: Buffer, maker: int) -> bool:
        """Whether a step that was taken reads a buffer."""
        return any(buffer in self.steps[number].inputs for number in self.left if number > maker)


def _operands(spec: Any) -> Sequence[tuple[str, Operand, tuple[int, ...], tuple[int, ...]]]:
    """Arguments that may be inlined: name, operand, and extents and strides of the loops that read it."""
    if isinstance(spec, NeuronSpec):
        return [("x", spec.x, (*spec.extents, spec.timesteps), (*spec.x.strides, spec.x_time))]
    if isinstance(spec, ReduceSpec):
        return [("x", spec.x, (*spec.extents, *spec.reduced), (*spec.x.strides, *spec.x_reduced))]
    if isinstance(spec, ElementwiseSpec):
        return [(f"x{i}", operand, spec.extents, operand.strides) for i, operand in enumerate(spec.operands)]
    return []


def _reads_of_thread(spec: Any) -> int:
    """Elements that one thread of a consumer reads, one after the other."""
    if isinstance(spec, NeuronSpec):
        return spec.timesteps
    return prod(spec.reduced) if isinstance(spec, ReduceSpec) else 1


def _reads_for_one(spec: Any) -> int:
    """Elements that one element of a producer takes."""
    if not isinstance(spec, FusedSpec):
        return reads_of(spec)
    inner = max((_reads_for_one(each.producer) for each in spec.fusions if isinstance(each, Inlined)), default=1)
    return reads_of(spec.base) * inner


def _rebuild(program: Program, fusion: _Fusion) -> None:
    """Puts the steps that are left into the program."""
    assert program.gpu is not None
    symbols: dict[Any, str] = {}
    numbers = {number: place for place, number in enumerate(fusion.left)}
    program.calls = []
    for number in fusion.left:
        step = fusion.steps[number]
        symbol = step.call.symbol
        if isinstance(step.spec, FusedSpec):
            symbol = symbols.setdefault(step.spec, f"{step.kernel}_{len(program.functions)}")
            if symbol not in program.functions:
                with for_gpu(program.gpu.api) as kernel:
                    program.functions[symbol] = build_fused(step.spec)
                assert kernel.launch is not None
                program.launches[symbol], program.specs[symbol] = kernel.launch, step.spec
        buffers = tuple(buffer for given in step.arguments for buffer in given)
        program.calls.append(replace(step.call, symbol=symbol, buffers=buffers))
    used = {call.symbol for call in program.calls}
    for table in (program.functions, program.launches, program.specs):
        for symbol in set(table) - used:
            del table[symbol]
    program.taps = [replace(tap, call=numbers[fusion.moved.get(tap.call, tap.call)]) for tap in program.taps]
    program.kernels = [
        _noted(each, fusion.steps[each.call], numbers[each.call]) for each in program.kernels if each.call in numbers
    ]


def _noted(chosen: Chosen, step: _Step, call: int) -> Chosen:
    """What was chosen for a step, with what it does now."""
    reason = "; ".join([chosen.reason, *step.notes])
    return replace(chosen, call=call, layer=step.call.layer, kernel=step.kernel, reason=reason)
