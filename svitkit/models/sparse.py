"""Weights of which most are 0, as they are stored: one bit a weight says whether it is not 0, and those values follow.

    bitmap: bit i % 8 of byte i // 8 (the lowest first) is 1 where weight i, in row-major order, is not 0
    values: the weights that are not 0, in the same order

A layer is stored so where that takes fewer bytes than all its weights.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError

BYTE_BITS = 8
Value = TypeVar("Value", bound=np.generic)


def bitmap_bytes(elements: int) -> int:
    """Returns the bytes of a bitmap of that many weights."""
    return math.ceil(elements / BYTE_BITS)


def sparse_bytes(elements: int, nonzero: int, bits: int) -> int:
    """Returns the bytes of bitmap and values.

    Args:
        elements: weights in all.
        nonzero: of these, how many are not 0.
        bits: of one value; values lie bit to bit.
    """
    return bitmap_bytes(elements) + math.ceil(nonzero * bits / BYTE_BITS)


def split(weights: NDArray[Value]) -> tuple[NDArray[np.uint8], NDArray[Value]]:
    """Returns the bitmap and the values of an array of any shape; -0.0 is 0."""
    flat = weights.reshape(-1)
    nonzero = flat != 0
    return np.packbits(nonzero, bitorder="little"), flat[nonzero]


def count_bits(bitmap: NDArray[np.uint8], elements: int, where: str) -> int:
    """Returns how many weights a bitmap says are not 0.

    Args:
        bitmap: as stored.
        elements: weights in all.
        where: what it is of, for the error message.

    Raises:
        ConfigError: it is of another type or length, or has bits behind the last weight.
    """
    if bitmap.dtype != np.uint8 or bitmap.shape != (bitmap_bytes(elements),):
        got = f"{bitmap.dtype} {bitmap.shape}"
        raise ConfigError(f"{where}: the bitmap is {got}, wanted uint8 ({bitmap_bytes(elements)},). Copy it again.")
    every = np.unpackbits(bitmap, bitorder="little")
    if every[elements:].any():
        raise ConfigError(f"{where}: the bitmap has bits behind its last weight, {elements}. Copy it again.")
    return int(every.sum())


def join(bitmap: NDArray[np.uint8], values: NDArray[Value], shape: tuple[int, ...], where: str) -> NDArray[Value]:
    """Undoes :func:`split`.

    Args:
        bitmap: one bit a weight.
        values: (nonzero,) none of them 0.
        shape: of the weights.
        where: what they are of, for the error message.

    Raises:
        ConfigError: bitmap, values and shape do not fit each other, or a value is 0.
    """
    elements = math.prod(shape)
    nonzero = count_bits(bitmap, elements, where)
    if values.shape != (nonzero,):
        raise ConfigError(f"{where}: got values of shape {values.shape}, but the bitmap has {nonzero} bits.")
    if not (values != 0).all():
        raise ConfigError(f"{where}: a value is 0, though the bitmap says that it is not. Make the file again.")
    weights = np.zeros(elements, values.dtype)
    weights[np.unpackbits(bitmap, count=elements, bitorder="little").astype(bool)] = values
    return weights.reshape(shape)
