"""Kernels for GPUs that compute what another kernel would have stored: fewer launches, and less memory to go through.

An argument of a kernel may be *inlined*: where the kernel reads an element, the element is computed. Or it may be
*continued*: where the kernel stores an element, an elementwise kernel goes on with it. Both know the element by its
address alone, so that kernels need not know of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from math import prod
from typing import Any

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    allocate,
    charge,
    dot,
    fire,
    potential_dtype,
    put,
    resting,
    scaled_current,
)
from svitkit.runtime.kernels.gpu_linear import GpuLinearSpec, build_gpu_linear
from svitkit.runtime.kernels.launch import DeviceBuffer, Gpu, Target, argument, current_gpu
from svitkit.runtime.kernels.neurons import NeuronSpec, build_neurons
from svitkit.runtime.kernels.pointwise import (
    ElementwiseSpec,
    ReduceSpec,
    build_elementwise,
    build_reduce,
    elementwise_value,
    reduced_value,
)
from svitkit.runtime.kernels.pool import PoolSpec, pooled_value
from svitkit.runtime.view import PACKED

Producer = ElementwiseSpec | PoolSpec | ReduceSpec
Argument = tuple[str, int, str]  # name, elements and type of a buffer


@dataclass(frozen=True)
class Inlined:
    """An argument whose elements are computed where they are read.

    Attributes:
        argument: its name.
        producer: how they are computed; may be fused itself.
        keeps: whether they are stored as well, for other readers.
    """

    argument: str
    producer: Any
    keeps: bool


@dataclass(frozen=True)
class Continued:
    """An argument whose elements, where they are stored, go on through an elementwise kernel, and perhaps neurons.

    Attributes:
        argument: its name.
        consumer: the elementwise kernel.
        operand: which of its operands they are.
        keeps: whether they are stored as well.
        neurons: neurons that read the elementwise kernel's result; the thread that stores the argument goes through the
            time steps of a neuron in order. None for none.
        keeps_result: whether what the neurons read is stored.
    """

    argument: str
    consumer: ElementwiseSpec
    operand: int
    keeps: bool
    neurons: NeuronSpec | None = None
    keeps_result: bool = True


@dataclass(frozen=True)
class FusedSpec:
    """A kernel with some of its arguments inlined or continued."""

    base: Any
    fusions: tuple[Inlined | Continued, ...]


BUILDERS: Mapping[type, Callable[[Any], Expr]] = {
    ElementwiseSpec: build_elementwise,
    ReduceSpec: build_reduce,
    NeuronSpec: build_neurons,
    GpuLinearSpec: build_gpu_linear,
}


def build_fused(spec: FusedSpec) -> Expr:
    """Returns the TIR function; arguments: the base kernel's, with others in the place of those that are fused.

    An inlined argument is replaced by the producer's inputs, and itself if it is kept; a continued one by itself if it
    is kept, the consumer's other operands, its result if that is kept, and the neurons' spikes.
    """
    gpu = current_gpu()
    assert gpu is not None
    gpu.declare = {fusion.argument: _declaration(fusion) for fusion in spec.fusions}
    return BUILDERS[type(spec.base)](spec.base)


def _declaration(fusion: Inlined | Continued) -> Callable[[Gpu, Argument], Any]:
    def declare(gpu: Gpu, given: Argument) -> Any:
        if isinstance(fusion, Inlined):
            return _inline(gpu, fusion, given)
        name, elements, dtype = given
        kept = argument(gpu, name, elements, dtype) if fusion.keeps else None
        others = [
            argument(gpu, f"{name}_x{index}", operand.elements, operand.dtype)
            for index, operand in enumerate(fusion.consumer.operands)
            if index != fusion.operand
        ]
        result, spikes, neurons = fusion.consumer.out, None, fusion.neurons
        out = argument(gpu, f"{name}_out", result.elements, result.dtype) if fusion.keeps_result else None
        if neurons is not None:
            spikes = argument(gpu, f"{name}_spikes", neurons.out.elements, neurons.out.dtype)
            gpu.packs = gpu.packs or neurons.out.dtype == PACKED
        return _ContinuedBuffer(fusion, kept, tuple(others), out, spikes)

    return declare


def _inline(gpu: Gpu, fusion: Inlined, given: Argument) -> _InlinedBuffer:
    name, elements, dtype = given
    producer = fusion.producer
    inner: dict[str, Inlined] = {}
    if isinstance(producer, FusedSpec):
        inner = {each.argument: each for each in producer.fusions if isinstance(each, Inlined)}
        producer = producer.base
    inputs = []
    for own, size, kind in _inputs(producer):
        prefixed = (f"{name}_{own}", size, kind)
        inputs.append(_inline(gpu, inner[own], prefixed) if own in inner else argument(gpu, *prefixed))
    kept = argument(gpu, name, elements, dtype) if fusion.keeps else None
    return _InlinedBuffer(producer, tuple(inputs), kept, dtype)


@dataclass(frozen=True)
class _InlinedBuffer:
    """Reads as a buffer does."""

    producer: Producer
    inputs: tuple[Any, ...]
    kept: DeviceBuffer | None
    dtype: str

    def __getitem__(self, address: Expr) -> Expr:
        extents, strides = turns_of(self.producer)
        element = allocate(1, self.dtype)
        put(element, 0, value_of(self.producer, self.inputs, located(address, extents, strides)))
        if self.kept is not None:
            self.kept.store(address, element[0])
        return element[0]


@dataclass(frozen=True)
class _ContinuedBuffer(Target):
    """Stores as a buffer does."""

    fusion: Continued
    kept: DeviceBuffer | None
    others: tuple[DeviceBuffer, ...]
    out: DeviceBuffer | None
    spikes: DeviceBuffer | None
    potential: Expr = None

    def with_validity(self, valid: Expr) -> _ContinuedBuffer:
        """The same, stored only where ``valid``."""
        stored = {name: getattr(self, name) for name in ("kept", "out", "spikes")}
        return replace(self, **{name: each and each.with_validity(valid) for name, each in stored.items()})

    def opened(self) -> _ContinuedBuffer:
        """The same, with the neuron's potential at rest."""
        neurons = self.fusion.neurons
        if neurons is None:
            return self
        potential = allocate(1, potential_dtype(neurons.params))
        put(potential, 0, resting(neurons.params))
        return replace(self, potential=potential)

    def store(self, address: Expr, value: Expr) -> None:
        """Emits what becomes of an element."""
        consumer, operand = self.fusion.consumer, self.fusion.operand
        element = allocate(1, consumer.operands[operand].dtype)
        put(element, 0, value)
        if self.kept is not None:
            self.kept.store(address, element[0])
        read = consumer.operands[operand]
        loops = located(address - read.offset, consumer.extents, read.strides)
        sources: list[Any] = list(self.others)
        sources.insert(operand, _Element(element[0]))
        result = allocate(1, consumer.out.dtype)
        put(result, 0, elementwise_value(consumer, sources, loops))
        place = dot(loops, consumer.out.strides)
        if self.out is not None:
            self.out.store(place, result[0])
        if self.fusion.neurons is not None:
            self._fire(self.fusion.neurons, place, result[0])

    def _fire(self, neurons: NeuronSpec, place: Expr, value: Expr) -> None:
        """One time step of the neuron that reads a result."""
        potential, params = self.potential, neurons.params
        strides = (*neurons.x.strides, neurons.x_time)
        *where, t = located(place, (*neurons.extents, neurons.timesteps), strides)
        current = scaled_current(value, neurons.x.dtype, neurons.scale, params)
        put(potential, 0, charge(current, potential[0], params))
        fire(potential, self.spikes, dot(where, neurons.out.strides) + t * neurons.out_time, 1, params)


@dataclass(frozen=True)
class _Element:
    """An element that is known, whatever its address."""

    value: Expr

    def __getitem__(self, address: Expr) -> Expr:
        return self.value


def located(address: Expr, extents: Sequence[int], strides: Sequence[int]) -> list[Expr]:
    """The loops' variables at which a dense buffer's element is; rows may be filled up behind their end."""
    order = sorted((index for index, extent in enumerate(extents) if extent > 1), key=lambda index: -strides[index])
    loops: list[Expr] = [T.int32(0)] * len(extents)
    rest = address
    for index in order:
        stride = strides[index]
        loops[index] = rest if stride == 1 else T.truncdiv(rest, T.int32(stride))
        rest = T.truncmod(rest, T.int32(stride))  # of rows, which need not be multiples of what is in them
    return loops


def covers(extents: Sequence[int], strides: Sequence[int], elements: int) -> bool:
    """Whether loops visit every element of a buffer once, those that fill up rows left out."""
    pairs = sorted(((stride, extent) for stride, extent in zip(strides, extents, strict=True) if extent > 1))
    reached = 1
    for stride, extent in pairs:
        if stride < reached:
            return False
        reached = stride * extent
    return reached <= elements


def turns_of(spec: Producer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents of a producer's loops, and the strides of its result."""
    if isinstance(spec, PoolSpec):
        extents = (*spec.out_extents, *spec.outer, spec.channels)
        return extents, (*spec.out_strides, *spec.out_outer, 1)
    return spec.extents, spec.out.strides


def _inputs(spec: Producer) -> list[Argument]:
    if isinstance(spec, PoolSpec):
        return [("x", spec.in_elements, spec.dtype)]
    if isinstance(spec, ReduceSpec):
        return [("x", spec.x.elements, spec.x.dtype)]
    return [(f"x{index}", operand.elements, operand.dtype) for index, operand in enumerate(spec.operands)]


@singledispatch
def value_of(spec: Any, inputs: Sequence[Any], loops: Sequence[Expr]) -> Expr:
    """Emits what an element takes, and returns it."""
    raise TypeError(f"{type(spec).__name__} cannot be inlined")


@value_of.register
def _(spec: ElementwiseSpec, inputs: Sequence[Any], loops: Sequence[Expr]) -> Expr:
    return elementwise_value(spec, inputs, loops)


@value_of.register
def _(spec: PoolSpec, inputs: Sequence[Any], loops: Sequence[Expr]) -> Expr:
    return pooled_value(spec, inputs[0], loops)


@value_of.register
def _(spec: ReduceSpec, inputs: Sequence[Any], loops: Sequence[Expr]) -> Expr:
    return reduced_value(spec, inputs[0], loops)


def reads_of(spec: Producer) -> int:
    """Elements that a producer reads for one of its own."""
    if isinstance(spec, PoolSpec):
        return spec.window.taps
    return prod(spec.reduced) if isinstance(spec, ReduceSpec) else 1
