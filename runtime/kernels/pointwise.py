"""Elementwise arithmetic and reductions over strided views.

The loops follow the storage order of the output, so the innermost one runs along channels and LLVM vectorizes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, as_float, divide, dot, function, nest

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
    """out = a op b over common loops; ``copy`` has one operand; ``constant`` replaces a scalar second one."""

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


def _load(buffer: Expr, operand: Operand, loops: list[Expr], dtype: str) -> Expr:
    value = buffer[T.int32(operand.offset) + dot(loops, operand.strides)]
    return as_float(value, operand.dtype) if dtype == "float32" else T.cast(value, dtype)


def _combine(operator: Operator, a: Expr, b: Expr) -> Expr:
    if operator == "add":
        return a + b
    if operator == "sub":
        return a - b
    return a * b if operator == "mul" else a / b


def build_elementwise(spec: ElementwiseSpec) -> Expr:
    """Returns the TIR function; arguments: the operands, then out."""
    dtype = spec.out.dtype

    def body(*buffers: Expr) -> None:
        *sources, out = buffers
        with nest(spec.extents) as loops:
            value = _load(sources[0], spec.operands[0], loops, dtype)
            if spec.constant is not None and spec.operator == "div":
                value = divide(value, spec.constant)
            elif spec.constant is not None:
                value = _combine(spec.operator, value, T.float32(spec.constant))
            elif spec.operator != "copy":
                value = _combine(spec.operator, value, _load(sources[1], spec.operands[1], loops, dtype))
            T.buffer_store(out, value, [dot(loops, spec.out.strides)])

    arguments = [(f"x{index}", operand.elements, operand.dtype) for index, operand in enumerate(spec.operands)]
    return function([*arguments, ("out", spec.out.elements, dtype)], body)


def build_reduce(spec: ReduceSpec) -> Expr:
    """Returns the TIR function; arguments: x, out."""
    exact = spec.x.dtype != "float32"
    dtype = "int32" if exact else "float32"

    def body(x: Expr, out: Expr) -> None:
        inner = spec.extents[-1] if spec.extents else 1
        outer = spec.extents[:-1]
        total = T.alloc_buffer((inner,), dtype)
        with nest(outer) as loops:
            with nest((inner,)) as (j,):
                T.buffer_store(total, T.cast(T.int32(0), dtype), [j])
            with nest(spec.reduced) as parts, nest((inner,)) as (j,):
                index = T.int32(spec.x.offset) + dot([*loops, j][: len(spec.extents)], spec.x.strides)
                value = T.cast(x[index + dot(parts, spec.x_reduced)], dtype)
                T.buffer_store(total, total[j] + value, [j])
            with nest((inner,)) as (j,):
                result = as_float(total[j], dtype) if spec.out.dtype == "float32" else total[j]
                if spec.divisor != 1:
                    result = result / T.float32(spec.divisor)
                T.buffer_store(out, result, [dot([*loops, j][: len(spec.extents)], spec.out.strides)])

    return function([("x", spec.x.elements, spec.x.dtype), ("out", spec.out.elements, spec.out.dtype)], body)
