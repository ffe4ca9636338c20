"""Shared pieces of the TIR emitters: loops over atoms, vector statements, the LIF update.

Emitters run inside a TVM ``IRBuilder``; they are plain Python that writes loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import frexp
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from svitkit.lif import LIFParams

Expr = Any  # a TIR expression; TVM ships no types
NAME = "kernel"


def function(arguments: Sequence[tuple[str, int, str]], body: Callable[..., None]) -> Expr:
    """Builds a TIR function over flat buffers.

    Args:
        arguments: name, number of elements and dtype of every buffer.
        body: called with the buffers; emits the statements.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name(NAME)
        T.func_attr({"global_symbol": NAME, "tir.noalias": True})
        body(*[T.arg(name, T.buffer((elements,), dtype)) for name, elements, dtype in arguments])
    return builder.get()


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
    """Emits a vector statement over ``width`` lanes."""
    if width == 1:
        statement(T.int32(0))
        return
    with T.vectorized(0, width) as lane:
        statement(lane)


def assign(target: Expr, base: Expr, width: int, value: Callable[[Expr], Expr], *, stride: int = 1) -> None:
    """Emits ``target[base + lane * stride] = value(lane)`` for ``width`` lanes."""
    lanes(width, lambda lane: T.buffer_store(target, value(lane), [base + lane * stride]))


def row_major(indices: Sequence[Expr], extents: Sequence[int]) -> Expr:
    """Number of a position, the last index running fastest."""
    number: Expr = T.int32(0)
    for index, extent in zip(indices, extents, strict=True):
        number = number * extent + index
    return number


def fence(value: Expr) -> Expr:
    """Keeps LLVM from joining a product and the sum behind it into one rounding; ONNX Runtime rounds twice."""
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


def divide(value: Expr, divisor: float) -> Expr:
    """Division by a constant; by a power of two it is an exact multiplication."""
    is_power_of_two = frexp(divisor)[0] == 0.5
    return value * T.float32(1.0 / divisor) if is_power_of_two else value / T.float32(divisor)


def charge(x: Expr, v: Expr, params: LIFParams) -> Expr:
    """Membrane potential before firing: the operations of svitkit.lif.lif_step, in the same order."""
    rest = v if params.v_initial == 0 else v - T.float32(params.v_initial)
    if params.decay_input:
        return v + divide(x - rest, params.tau)
    return v - divide(rest, params.tau) + x


def fire(v: Expr, out: Expr, base: Expr, width: int, params: LIFParams, *, stride: int = 1) -> None:
    """Emits spike and reset for potentials that already hold h."""
    threshold = T.float32(params.v_threshold)

    def reset(lane: Expr) -> Expr:
        after = v[lane] - threshold if params.v_reset is None else T.float32(params.v_reset)
        return T.Select(v[lane] >= threshold, after, v[lane])

    assign(out, base, width, lambda lane: T.cast(v[lane] >= threshold, "uint8"), stride=stride)
    assign(v, 0, width, reset)
