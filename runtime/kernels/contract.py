"""Products of two activations, as attention needs them.

    out[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n]

Spikes and counts multiply in integers, so the result is exact on every processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, assign, dot, function, nest
from svitkit.runtime.kernels.pointwise import Operand, accumulate


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

    def body(a: Expr, b: Expr, out: Expr) -> None:
        def add(total: Expr, width: int, loops: Sequence[Expr]) -> None:
            with nest(spec.reduced) as parts:
                left = T.int32(spec.a.offset) + dot(loops, spec.a.strides) + dot(parts, spec.a_reduced)
                right = T.int32(spec.b.offset) + dot(loops, spec.b.strides) + dot(parts, spec.b_reduced)

                def product(j: Expr) -> Expr:
                    factor = T.cast(a[left + j * spec.a.strides[-1]], dtype)
                    return factor * T.cast(b[right + j * spec.b.strides[-1]], dtype)

                assign(total, 0, width, lambda j: total[j] + product(j))

        accumulate(spec.extents, spec.out, out, dtype, add, lambda total, j: total[j])

    arguments = [("a", spec.a.elements, spec.a.dtype), ("b", spec.b.elements, spec.b.dtype)]
    return function([*arguments, ("out", spec.out.elements, dtype)], body)
