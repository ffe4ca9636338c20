"""What PTX instructions compute, after NVIDIA's "Parallel Thread Execution ISA", chapter 9.7, for all threads at once.

Integers wrap around, and a single operation of float32 is rounded once to nearest even; subnormal numbers stay. Of the
bits of a NaN nothing is promised. An instruction that is not here is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.ptx.parser import PtxError

Array = NDArray[Any]
TYPES: dict[str, np.dtype[Any]] = {
    "pred": np.dtype(bool),
    **{f"{letter}{bits}": np.dtype(f"u{bits // 8}") for letter in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
}
_INTEGERS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "min": np.minimum,
    "max": np.maximum,
    "not": np.invert,
    "neg": np.negative,
    "abs": np.abs,
}
_COMPARISONS: dict[str, Callable[..., Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_FLOATS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}
_NAN_BEYOND = "u"  # of a comparison that is true where a number is NaN: geu


@dataclass(frozen=True)
class Operation:
    """What an instruction computes.

    Attributes:
        compute: from arrays of the types of its sources.
        sources: types of the operands behind the first.
        result: type of the first.
    """

    compute: Callable[..., Array]
    sources: tuple[str, ...]
    result: str


@cache
def operation(opcode: tuple[str, ...]) -> Operation:
    """Finds an instruction by the parts of its name.

    Raises:
        PtxError: it is not known.
    """
    match opcode:
        case ("mov", kind):
            return Operation(np.copy, (kind,), kind)
        case ("add" | "sub" | "and" | "or" | "xor" | "min" | "max" as name, kind) if kind[0] != "f":
            return Operation(_INTEGERS[name], (kind, kind), kind)
        case ("not" | "neg" | "abs" as name, kind):
            return Operation(_INTEGERS[name], (kind,), kind)
        case ("mul", "lo", kind):
            return Operation(np.multiply, (kind, kind), kind)
        case ("mul", "wide", kind):
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            return Operation(lambda a, b: a.astype(TYPES[wide]) * b, (kind, kind), wide)
        case ("mul", "hi", kind):
            return Operation(_high_u64 if kind == "u64" else _high, (kind, kind), kind)
        case ("mad", "lo", kind):
            return Operation(lambda a, b, c: a * b + c, (kind, kind, kind), kind)
        case ("shl" | "shr" as name, kind):
            return Operation(_left if name == "shl" else _right, (kind, "u32"), kind)
        case ("bfe", "u32" | "s32" as kind):
            return Operation(_bit_field, (kind, "u32", "u32"), kind)
        case ("prmt", "b32"):
            return Operation(_permute_bytes, ("b32", "b32", "b32"), "b32")
        case ("popc", "b32"):
            return Operation(np.bitwise_count, ("b32",), "u8")
        case ("setp", name, kind):
            return Operation(_comparison(name, kind), (kind, kind), "pred")
        case ("selp", kind):
            return Operation(lambda a, b, chosen: np.where(chosen, a, b), (kind, kind, "pred"), kind)
        case ("add" | "sub" | "mul" | "div" as name, "rn", "f32"):
            return Operation(_FLOATS[name], ("f32", "f32"), "f32")
        case ("fma", "rn", "f32"):
            return Operation(fused_multiply_add, ("f32", "f32", "f32"), "f32")
        case ("min" | "max" as name, "f32"):
            return Operation(_least if name == "min" else _greatest, ("f32", "f32"), "f32")
        case ("cvt", *how, result, source):
            return Operation(_conversion(tuple(how), TYPES[result], TYPES[source]), (source,), result)
    raise PtxError(f"the instruction {'.'.join(opcode)} is not known")


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """Returns ``a * b + c`` of float32, rounded once.

    The product is exact in float64. Of the sum, what its rounding to float64 lost is found (Knuth, TAOCP 2, 4.2.2), and
    a sum that is not exact gets an odd last bit: rounding it again to float32 then gives what rounding the exact sum
    would have given (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE ToC 2008).
    """
    product = a.astype(np.float64) * b
    total = np.asarray(product + c)
    back = total - product
    lost = (product - (total - back)) + (c - back)
    inexact = (lost != 0) & np.isfinite(total)
    if inexact.any():
        bits = total.view(np.int64)
        away = np.where((lost > 0) == (total > 0), 1, -1)
        total = np.where(inexact & (bits & 1 == 0), bits + away, bits).view(np.float64)
    return total.astype(np.float32)


def _high(a: Array, b: Array) -> Array:
    if a.itemsize > 4:
        raise PtxError(f"the upper half of a product of {a.dtype} is not known")
    wide = np.dtype(f"{a.dtype.kind}{2 * a.itemsize}")
    return (a.astype(wide) * b >> 8 * a.itemsize).astype(a.dtype)


def _high_u64(a: Array, b: Array) -> Array:
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    inner = (a & low) * (b & low) >> half
    middle = (a >> half) * (b & low) + inner
    other = (a & low) * (b >> half) + (middle & low)
    return (a >> half) * (b >> half) + (middle >> half) + (other >> half)


def _left(a: Array, amount: Array) -> Array:
    bits = a.dtype.itemsize * 8
    return np.where(amount < bits, a << np.minimum(amount, bits - 1).astype(a.dtype), 0).astype(a.dtype)


def _right(a: Array, amount: Array) -> Array:
    bits = a.dtype.itemsize * 8
    shifted = a >> np.minimum(amount, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(amount < bits, shifted, 0).astype(a.dtype)


def _bit_field(a: Array, position: Array, length: Array) -> Array:
    """The field at the top, where its sign is, and then down; beyond the word there are zeros, or the word's sign."""
    position, length = position & 0xFF, length & 0xFF
    above = np.uint32(32) - np.minimum(position + length, np.uint32(32))
    return np.where(length == 0, 0, _right(_left(a, above), above + position)).astype(a.dtype)


def _permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    if len(selector) != 1:
        raise PtxError("another choice of bytes for each thread is not known")
    chosen = int(selector[0]) >> np.arange(0, 16, 4)
    words = np.stack(np.broadcast_arrays(a, b), axis=1)
    picked = words.view(np.int8)[:, chosen & 7]
    return np.ascontiguousarray(np.where(chosen & 8, picked >> 7, picked)).view(np.uint32)[:, 0]


def _comparison(name: str, kind: str) -> Callable[..., Array]:
    if kind[0] != "f":
        return _COMPARISONS[name]
    compare = _COMPARISONS[name.removesuffix(_NAN_BEYOND)]
    if name.endswith(_NAN_BEYOND):
        return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)
    return lambda a, b: compare(a, b) & ~(np.isnan(a) | np.isnan(b))


def _least(a: Array, b: Array) -> Array:
    return _first_of(a, b, (a < b) | ((a == b) & np.signbit(a)))


def _greatest(a: Array, b: Array) -> Array:
    return _first_of(a, b, (a > b) | ((a == b) & ~np.signbit(a)))


def _first_of(a: Array, b: Array, first: Array) -> Array:
    return np.where((first & ~np.isnan(a)) | np.isnan(b), a, b)


def _conversion(how: tuple[str, ...], result: np.dtype[Any], source: np.dtype[Any]) -> Callable[[Array], Array]:
    match how, source.kind, result.kind:
        case (), "i" | "u", "i" | "u":
            return lambda a: a.astype(result)
        case (("rn",), "i" | "u", "f") | (("rn",), "f", "f") if result.itemsize <= 4:
            return lambda a: a.astype(result)
        case (), "f", "f" if source.itemsize < result.itemsize:
            return lambda a: a.astype(result)
        case ("rni",), "f", "f" if source == result:
            return np.rint
        case ("rni" | "rzi" as mode,), "f", "i" | "u" if result.itemsize <= 4:
            return lambda a: _to_integer(np.rint(a) if mode == "rni" else np.trunc(a), result)
    raise PtxError(f"the conversion {'.'.join(how)} from {source} to {result} is not known")


def _to_integer(a: Array, result: np.dtype[Any]) -> Array:
    """What lies outside of the type becomes its nearest end, NaN becomes 0."""
    limits = np.iinfo(result)
    return np.nan_to_num(np.clip(a.astype(np.float64), limits.min, limits.max), nan=0).astype(result)
