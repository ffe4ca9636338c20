"""Products of two activations, as attention needs them.

    out[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n]

Spikes and counts multiply in integers, so the result is exact on every processor.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, dot, function, nest
from svitkit.runtime.kernels.pointwise import Operand


@dataclass(frozen=True)
class ContractSpec:
    """Loops over the output in storage order, and over the contracted axis.

    Attributes:
        extents: output loops; operands carry stride 0 for the loops they do not depend on.
        reduced: extents of the contracted atoms.
        a, b: the factors; ``a_reduced`` and ``b_reduced`` their strides along ``reduced``.
        out: the result, int32 or float32.
    """

    extents: tuple[int, ...]
    reduced: tuple[int, ...]
    a: Operand
    a_reduced: tuple[int, ...]
    b: Operand
    b_reduced: tuple[int, ...]
    out: Operand


def build_contract(spec: ContractSpec) -> Expr:
    """Returns the TIR function; arguments: a, b, out."""
    dtype = spec.out.dtype
    inner = spec.extents[-1]

    def body(a: Expr, b: Expr, out: Expr) -> None:
        total = T.alloc_buffer((inner,), dtype)
        with nest(spec.extents[:-1]) as loops:
            with nest((inner,)) as (j,):
                T.buffer_store(total, T.cast(T.int32(0), dtype), [j])
            with nest(spec.reduced) as parts, nest((inner,)) as (j,):
                index = [*loops, j]
                left = a[T.int32(spec.a.offset) + dot(index, spec.a.strides) + dot(parts, spec.a_reduced)]
                right = b[T.int32(spec.b.offset) + dot(index, spec.b.strides) + dot(parts, spec.b_reduced)]
                T.buffer_store(total, total[j] + T.cast(left, dtype) * T.cast(right, dtype), [j])
            with nest((inner,)) as (j,):
                T.buffer_store(out, total[j], [dot([*loops, j], spec.out.strides)])

    arguments = [("a", spec.a.elements, spec.a.dtype), ("b", spec.b.elements, spec.b.dtype)]
    return function([*arguments, ("out", spec.out.elements, dtype)], body)
