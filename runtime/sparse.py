"""Weights of which most are 0, in the weights file: a bitmap and the elements that are not background.

    bitmap: bit i % 8 of byte i // 8 (the lowest first) is 1 where element i of the array is stored
    values: these elements in order; every other element is the background

An array is what a kernel reads: float32 or int8 rows and panels, words of two channels, or packed bits. Its background
is what a weight of 0 looks like there, which is also the kernel's padding. ``libsvit`` expands it once, when it loads
the bundle, so that kernels know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_SPARSITY = 0.25
"""Layers with a smaller fraction of zeros count as dense: rounding to few bits makes some, too."""
LEAST_SAVING = 0.1
"""Of an array's bytes; for less, memory for the expanded array does not pay."""
ELEMENTS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


@dataclass(frozen=True)
class SparseArray:
    """An array without its background.

    Attributes:
        bitmap: (ceil(elements / 8),) uint8.
        values: (stored,) of the array's type.
        background: the bits of every other element, as an unsigned number.
    """

    bitmap: NDArray[np.uint8]
    values: NDArray[Any]
    background: int

    @property
    def stored_bytes(self) -> int:
        """Bytes of bitmap and values."""
        return self.bitmap.nbytes + self.values.nbytes


def is_sparse(weight: NDArray[Any]) -> bool:
    """Whether so many weights of a layer are 0 that it was pruned, and not only rounded."""
    return float(np.mean(weight == 0)) >= LEAST_SPARSITY


def sparse_array(array: NDArray[Any]) -> SparseArray | None:
    """Returns an array without its most frequent element; None if that does not take clearly less.

    Args:
        array: of any shape; elements of 1, 2 or 4 bytes. -0.0 is another element than 0.0.
    """
    bits = np.ravel(array).view(ELEMENTS[array.itemsize])
    elements, counts = np.unique(bits, return_counts=True)
    background = elements[counts.argmax()]
    stored = bits != background
    found = SparseArray(np.packbits(stored, bitorder="little"), np.ravel(array)[stored], int(background))
    return found if found.values.size > 0 and found.stored_bytes <= (1 - LEAST_SAVING) * array.nbytes else None
