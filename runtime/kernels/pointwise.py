"""Elementwise arithmetic and reductions over strided views.

The loops follow the storage order of the output, so the innermost one runs along channels and LLVM vectorizes it, and
the outermost one, which is divided among threads, along positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    allocate,
    as_float,
    assign,
    divide,
    dot,
    fence,
    function,
    nest,
    put,
    real,
    shared_nest,
)
from svitkit.runtime.kernels.launch import current_gpu
from svitkit.runtime.kernels.panels import panel_runs

LANES = 32
Operator = Literal["add", "sub", "mul", "div", "copy"]


@dataclass(frozen=True)
class Operand:
    """A strided read: stride per loop, first element, and the buffer it reads."""

    strides: tuple[int, ...]
    offset: int
    elements: int
    dtype: str


@dataclass(frozen=True)
class ElementwiseSpec:
    """out = a op b over common loops; ``copy`` has one operand; ``constant`` replaces a scalar second one.

    Integers divide towards zero.
    """

    operator: Operator
    extents: tuple[int, ...]
    operands: tuple[Operand, ...]
    constant: float | None
    out: Operand


@dataclass(frozen=True)
class ReduceSpec:
    """out = sum of x over ``reduced`` loops, divided by ``divisor``; integers add up exactly in int32."""

    extents: tuple[int, ...]
    reduced: tuple[int, ...]
    x: Operand
    x_reduced: tuple[int, ...]
    divisor: int
    out: Operand


@dataclass(frozen=True)
class QuantizeSpec:
    """out = clip(round_half_even(x / scale) + zero_point, 0, 255)."""

    extents: tuple[int, ...]
    x: Operand
    scale: float
    zero_point: int
    out: Operand


def _load(buffer: Expr, operand: Operand, loops: Sequence[Expr], dtype: str) -> Expr:
    value = buffer[T.int32(operand.offset) + dot(loops, operand.strides)]
    return as_float(value, operand.dtype) if dtype == "float32" else T.cast(value, dtype)


def _combine(operator: Operator, a: Expr, b: Expr, dtype: str) -> Expr:
    if operator == "add":
        return a + b
    if operator == "sub":
        return a - b
    if operator == "mul":
        # on a GPU, what follows may be in the same kernel
        return fence(a * b) if dtype == "float32" and current_gpu() else a * b
    return a / b if dtype == "float32" else T.truncdiv(a, b)


def build_elementwise(spec: ElementwiseSpec) -> Expr:
    """Returns the TIR function; arguments: the operands, then out."""

    def body(*buffers: Expr) -> None:
        *sources, out = buffers
        with shared_nest(spec.extents) as loops:
            put(out, dot(loops, spec.out.strides), elementwise_value(spec, sources, loops))

    arguments = [(f"x{index}", operand.elements, operand.dtype) for index, operand in enumerate(spec.operands)]
    return function([*arguments, ("out", spec.out.elements, spec.out.dtype)], body)


def elementwise_value(spec: ElementwiseSpec, sources: Sequence[Expr], loops: Sequence[Expr]) -> Expr:
    """One element of the result."""
    dtype = spec.out.dtype
    value = _load(sources[0], spec.operands[0], loops, dtype)
    if spec.operator == "copy":
        return value
    if spec.constant is None:
        return _combine(spec.operator, value, _load(sources[1], spec.operands[1], loops, dtype), dtype)
    if dtype == "int32":
        return _combine(spec.operator, value, T.int32(int(spec.constant)), dtype)
    if spec.operator == "div":
        return divide(value, spec.constant)
    return _combine(spec.operator, value, real(spec.constant), dtype)


def build_quantize(spec: QuantizeSpec) -> Expr:
    """Returns the TIR function; arguments: x, out."""

    def body(x: Expr, out: Expr) -> None:
        with shared_nest(spec.extents) as loops:
            level = T.nearbyint(_load(x, spec.x, loops, "float32") / real(spec.scale))
            level = T.max(T.min(level + real(spec.zero_point), T.float32(255)), T.float32(0))
            put(out, dot(loops, spec.out.strides), T.cast(T.cast(level, "int32"), "uint8"))

    return function([("x", spec.x.elements, spec.x.dtype), ("out", spec.out.elements, "uint8")], body)


def build_reduce(spec: ReduceSpec) -> Expr:
    """Returns the TIR function; arguments: x, out."""

    def body(x: Expr, out: Expr) -> None:
        def add(total: Expr, width: int, loops: Sequence[Expr]) -> None:
            _add_reduced(spec, x, total, width, loops)

        accumulate(spec.extents, spec.out, out, _sum_dtype(spec), add, lambda total, j: _mean(spec, total[j]))

    return function([("x", spec.x.elements, spec.x.dtype), ("out", spec.out.elements, spec.out.dtype)], body)


def reduced_value(spec: ReduceSpec, x: Expr, loops: Sequence[Expr]) -> Expr:
    """One element of the result; emits the sum."""
    total = allocate(1, _sum_dtype(spec))
    put(total, 0, T.cast(T.int32(0), _sum_dtype(spec)))
    _add_reduced(spec, x, total, 1, loops)
    return _mean(spec, total[0])


def _sum_dtype(spec: ReduceSpec) -> str:
    return "float32" if spec.x.dtype == "float32" else "int32"


def _add_reduced(spec: ReduceSpec, x: Expr, total: Expr, width: int, loops: Sequence[Expr]) -> None:
    """Adds what is reduced to the sums of some lanes."""
    base, dtype = T.int32(spec.x.offset) + dot(loops, spec.x.strides), _sum_dtype(spec)
    with nest(spec.reduced) as parts:
        source = base + dot(parts, spec.x_reduced)
        assign(total, 0, width, lambda j: total[j] + T.cast(x[source + j * spec.x.strides[-1]], dtype))


def _mean(spec: ReduceSpec, total: Expr) -> Expr:
    value = as_float(total, _sum_dtype(spec)) if spec.out.dtype == "float32" else total
    return value if spec.divisor == 1 else value / real(spec.divisor)


def accumulate(
    extents: Sequence[int],
    target: Operand,
    out: Expr,
    dtype: str,
    add: Callable[[Expr, int, Sequence[Expr]], None],
    finish: Callable[[Expr, Expr], Expr],
) -> None:
    """Emits loops that keep a vector of sums in registers: zero, ``add`` to it, store what ``finish`` makes of it.

    Args:
        extents: output loops; the last one is the vector axis. Vectors stay below the size from which TVM would take
            them from a workspace allocator that boards do not have.
        target: how the output is written.
        out: the output buffer.
        dtype: of the sums.
        add: given sums, their number and the loop variables (of the first lane), emits the additions.
        finish: given sums and a lane, returns the result.
    """

    def vector(width: int, where: Sequence[Expr]) -> None:
        total = allocate(width, dtype)
        assign(total, 0, width, lambda _: T.cast(T.int32(0), dtype))
        add(total, width, where)
        assign(out, dot(where, target.strides), width, lambda j: finish(total, j), stride=target.strides[-1])

    for run in panel_runs(extents[-1], LANES):
        with shared_nest((*extents[:-1], run.count)) as loops:
            vector(run.width, [*loops[:-1], T.int32(run.start) + loops[-1] * run.width])
