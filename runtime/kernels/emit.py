"""Shared pieces of the TIR emitters: loops over atoms, vector statements, the LIF update.

Emitters run inside a TVM ``IRBuilder``; they are plain Python that writes loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from math import frexp, prod
from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from svitkit.lif import LIFParams
from svitkit.lif_integer import IntegerLIF
from svitkit.onnx_lif import REAL_LIMIT
from svitkit.runtime.kernels.launch import DeviceBuffer, Gpu, Target, argument, current_gpu, threads
from svitkit.runtime.view import PACKED

Expr = Any  # a TIR expression; TVM ships no types
Neuron = LIFParams | IntegerLIF  # what neurons compute with: real numbers, or integers
NAME = "kernel"
# Loops are joined until they have this many turns: then the largest of 8 parts is at most half as long again as 1/8.
LEAST_TURNS = 16

_part: ContextVar[tuple[Expr, Expr]] = ContextVar("part")  # the two last arguments of the function that is being built


def function(arguments: Sequence[tuple[str, int, str]], body: Callable[..., None]) -> Expr:
    """Builds a TIR function over flat buffers, with two int32 arguments ``part`` and ``parts`` behind them.

    A call computes part number ``part`` of ``parts``; all parts together, in any order or at once, are the whole. A
    body that does not divide its work (:func:`share`, :func:`shared_nest`) must be called as part 0 of 1.

    Args:
        arguments: name, number of elements and dtype of every buffer.
        body: called with the buffers; emits the statements.

    Inside :func:`svitkit.runtime.kernels.launch.for_gpu` it is a GPU kernel without these two arguments; the body opens
    its threads with one :func:`shared_nest`.
    """
    gpu = current_gpu()
    if gpu is not None:
        return _gpu_function(gpu, arguments, body)
    with IRBuilder() as builder, T.prim_func():
        T.func_name(NAME)
        T.func_attr({"global_symbol": NAME, "tir.noalias": True})
        buffers = [T.arg(name, T.buffer((elements,), dtype)) for name, elements, dtype in arguments]
        token = _part.set((T.arg("part", T.int32()), T.arg("parts", T.int32())))
        try:
            body(*buffers)
        finally:
            _part.reset(token)
    return builder.get()


def _gpu_function(gpu: Gpu, arguments: Sequence[tuple[str, int, str]], body: Callable[..., None]) -> Expr:
    gpu.packs = arguments[-1][2] == PACKED
    with IRBuilder() as builder, T.prim_func():
        T.func_name(NAME)
        T.func_attr({"global_symbol": NAME, "tir.noalias": True})
        body(*(gpu.declare.get(each[0], _plain_argument)(gpu, each) for each in arguments))
    return builder.get()


def _plain_argument(gpu: Gpu, given: tuple[str, int, str]) -> DeviceBuffer:
    return argument(gpu, *given)


def current_part() -> tuple[Expr, Expr]:
    """The arguments ``part`` and ``parts`` of the function that is being built."""
    return _part.get()


def share(extent: int) -> tuple[Expr, Expr]:
    """First turn of this part of a loop of ``extent`` turns, and the one behind its last; a part may be empty."""
    part, parts = current_part()
    return T.truncdiv(part * extent, parts), T.truncdiv((part + 1) * extent, parts)


@contextmanager
def shared_nest(extents: Sequence[int], *, row: int = 1) -> Iterator[list[Expr]]:
    """Opens loops like :func:`nest`, the outermost ones joined into one of which every part runs its share.

    The last loop is left whole, for the vectors, unless it is the only one. On a GPU every turn is a thread;
    ``row`` says how many of the last loops run along one row of channels.
    """
    gpu = current_gpu()
    if gpu is not None:
        with threads(gpu, extents, row) as indices:
            yield indices
        return
    joined = 1
    while joined < len(extents) and prod(extents[:joined]) < LEAST_TURNS and prod(extents[joined:-1]) > 1:
        joined += 1
    if prod(extents[:joined]) == 1:
        joined = len(extents)
    turns = prod(extents[:joined])
    begin, end = share(turns)
    with T.serial(begin, end) as turn, nest(extents[joined:]) as inner:
        if joined < len(extents):  # tells TVM the range, so that it drops conditions that are always true
            turn = T.max(T.min(turn, T.int32(turns - 1)), T.int32(0))
        outer = []
        for index, extent in enumerate(extents[:joined]):
            number = T.truncdiv(turn, T.int32(prod(extents[index + 1 : joined])))
            outer.append(T.truncmod(number, T.int32(extent)) if index else number)
        yield [*outer, *inner]


@contextmanager
def nest(extents: Sequence[int]) -> Iterator[list[Expr]]:
    """Opens serial loops, outermost first, and yields their variables; an extent of 1 becomes the constant 0."""
    with ExitStack() as stack:
        yield [stack.enter_context(T.serial(0, extent)) if extent > 1 else T.int32(0) for extent in extents]


def dot(indices: Sequence[Expr], strides: Sequence[int]) -> Expr:
    """Address arithmetic: sum of index times stride."""
    address: Expr = T.int32(0)
    for index, stride in zip(indices, strides, strict=True):
        if stride:
            address = address + index * stride
    return address


def lanes(width: int, statement: Callable[[Expr], None]) -> None:
    """Emits a vector statement over ``width`` lanes; on a GPU a thread goes through them."""
    if width == 1:
        statement(T.int32(0))
        return
    with T.serial(0, width) if current_gpu() else T.vectorized(0, width) as lane:
        statement(lane)


def allocate(width: int, dtype: str) -> Expr:
    """Allocates ``width`` values that the function keeps to itself."""
    if current_gpu() is None:
        return T.alloc_buffer((width,), dtype)
    return T.alloc_buffer((width,), "uint8" if dtype == PACKED else dtype, scope="local")


def put(target: Expr, index: Expr, value: Expr) -> None:
    """Emits ``target[index] = value``."""
    if isinstance(target, Target):
        target.store(index, value)
    else:
        T.buffer_store(target, value, [index])


def assign(target: Expr, base: Expr, width: int, value: Callable[[Expr], Expr], *, stride: int = 1) -> None:
    """Emits ``target[base + lane * stride] = value(lane)`` for ``width`` lanes."""
    lanes(width, lambda lane: put(target, base + lane * stride, value(lane)))


def row_major(indices: Sequence[Expr], extents: Sequence[int]) -> Expr:
    """Number of a position, the last index running fastest."""
    number: Expr = T.int32(0)
    for index, extent in zip(indices, extents, strict=True):
        number = number * extent + index
    return number


def fence(value: Expr) -> Expr:
    """Keeps LLVM from joining a product and the sum behind it into one rounding; ONNX Runtime rounds twice.

    OpenCL C has a pragma for that, which stands in front of the kernels.
    """
    gpu = current_gpu()
    if gpu is not None and gpu.api == "opencl":
        return value
    return T.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", value)


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Emits the block under a condition."""
    with T.If(condition), T.Then():
        yield


def all_of(conditions: Sequence[Expr]) -> Expr:
    """Conjunction of conditions; true if there is none."""
    result: Expr = T.bool(True)
    for condition in conditions:
        result = T.And(result, condition)
    return result


def as_float(value: Expr, dtype: str) -> Expr:
    """Converts a loaded element to float32."""
    return value if dtype == "float32" else T.cast(value, "float32")


def real(value: float) -> Expr:
    """A float32 constant with all its bits; TVM writes seven digits into OpenCL C, which hold simple numbers only."""
    exact, gpu = np.float32(value), current_gpu()
    if gpu is None or gpu.api == "cuda" or not np.isfinite(exact) or np.float32(f"{exact:e}") == exact:
        return T.float32(value)
    return T.call_pure_extern("float32", "as_float", T.uint32(int(exact.view(np.uint32))))


def divide(value: Expr, divisor: float) -> Expr:
    """Division by a constant; by a power of two it is an exact multiplication."""
    return value * real(1.0 / divisor) if is_power_of_two(divisor) else value / real(divisor)


def is_power_of_two(factor: float) -> bool:
    """Whether a product with the factor is exact."""
    return abs(frexp(factor)[0]) == 0.5


def potential_dtype(neuron: Neuron) -> str:
    """Type of a potential in registers."""
    return "int32" if isinstance(neuron, IntegerLIF) else "float32"


def state_dtype(neuron: Neuron) -> str:
    """Type of a potential in memory."""
    return neuron.state_dtype if isinstance(neuron, IntegerLIF) else "float32"


def resting(neuron: Neuron) -> Expr:
    """The potential before the first time step, as it is in registers."""
    return T.int32(0) if isinstance(neuron, IntegerLIF) else real(neuron.v_initial)


def from_state(value: Expr, neuron: Neuron) -> Expr:
    """A loaded potential as it is in registers."""
    return T.cast(value, "int32") if isinstance(neuron, IntegerLIF) else value


def to_state(value: Expr, neuron: Neuron) -> Expr:
    """A potential as it is in memory."""
    return T.cast(value, neuron.state_dtype) if isinstance(neuron, IntegerLIF) else value


def as_current(value: Expr, dtype: str, neuron: Neuron) -> Expr:
    """A finished current as the neuron takes it: real, or in steps; integer neurons round what is real."""
    if not isinstance(neuron, IntegerLIF):
        return as_float(value, dtype)
    if dtype != "float32":
        return value if dtype == "int32" else T.cast(value, "int32")
    steps, limit = 2.0**neuron.current_fraction, real(REAL_LIMIT * 2.0**neuron.current_fraction)
    nearest = T.nearbyint(value * real(steps))
    return T.cast(T.max(T.min(nearest, limit), real(0) - limit), "int32")


def scaled_current(value: Expr, dtype: str, factor: float, neuron: Neuron) -> Expr:
    """A sum times a constant as the neuron takes it; real products are rounded before anything is added to them."""
    if isinstance(neuron, IntegerLIF) and dtype != "float32":
        whole = as_current(value, dtype, neuron)
        return whole if factor == 1 else whole * T.int32(int(factor))
    value = as_float(value, dtype)
    if factor != 1:
        product = value * real(factor)
        value = product if is_power_of_two(factor) else fence(product)
    return as_current(value, "float32", neuron)


def rescaled(value: Expr, scale: Expr | None, bias: Expr | None, *, drop: int | None, lift: int) -> Expr:
    """Makes a current of a converted sum: ``value * scale + bias``.

    Args:
        value: float32, or int32 for currents in steps.
        scale: of the same type; None for none.
        bias: of the same type; None for none.
        drop: None for real currents, whose product is rounded before the bias is added; else by how many bits an
            integer that is not negative is shifted.
        lift: what is subtracted after a shift.
    """
    if scale is not None:
        value = fence(value * scale) if drop is None else value * scale
    value = value if bias is None else value + bias
    return T.shift_right(value, T.int32(drop)) - T.int32(lift) if drop else value


def charge(x: Expr, v: Expr, neuron: Neuron) -> Expr:
    """Membrane potential before firing: the operations of lif_step or integer_lif_step, in the same order."""
    if isinstance(neuron, IntegerLIF):
        drive = x if neuron.gain == 1 else x * T.int32(neuron.gain)
        return drive + v * T.int32(neuron.keep)
    rest = v if neuron.v_initial == 0 else v - real(neuron.v_initial)
    if neuron.decay_input:
        return v + divide(x - rest, neuron.tau)
    return v - divide(rest, neuron.tau) + x


def fire(v: Expr, out: Expr, base: Expr, width: int, neuron: Neuron, *, stride: int = 1) -> None:
    """Emits spike and reset for potentials that already hold h."""
    if isinstance(neuron, IntegerLIF):
        params, threshold, silent = neuron.params, T.int32(neuron.threshold), T.int32(0)
    else:
        params, threshold, silent = neuron, real(neuron.v_threshold), real(neuron.v_initial)

    def reset(lane: Expr) -> Expr:
        after = v[lane] - threshold if params.v_reset is None else silent
        left = T.Select(v[lane] >= threshold, after, v[lane])
        return _rounded(left, neuron) if isinstance(neuron, IntegerLIF) else left

    assign(out, base, width, lambda lane: T.cast(v[lane] >= threshold, "uint8"), stride=stride)
    assign(v, 0, width, reset)


def _rounded(left: Expr, neuron: IntegerLIF) -> Expr:
    """What is left of a sum as a potential on the membrane's grid."""
    rounded = T.shift_right(left + T.int32(1 << (neuron.drop - 1)), T.int32(neuron.drop))
    return T.max(T.min(rounded, T.int32(neuron.membrane.high)), T.int32(neuron.membrane.low))
