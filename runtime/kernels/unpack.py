"""Integer weights of fewer than 8 bits lie packed in the weights file; before a layer runs they become bytes.

Weights are cut into blocks of ``BLOCK``, and the bits of a block's weights into *planes* of 4, 2 or 1 bits, as many as
the width is a sum of (3 = 2 + 1), lowest first. In a plane of p bits the i-th 64 p weights of the block are the i-th
parts of 64 p neighbouring bytes, so that unpacking is a load, a shift and a mask over whole vectors. A block takes
``BLOCK * bits / 8`` bytes: a layer has in the file what its width promises, but for the end of the last block.

Words of two channels (:mod:`svitkit.runtime.kernels.row_layout`) are packed as the low channels of all words, and then
the high ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, assign, function, put, shared_nest, when
from svitkit.runtime.kernels.launch import current_gpu
from svitkit.runtime.kernels.row_layout import LOW

BLOCK = 512
VECTOR = 64
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
BYTE_BITS = 8


@dataclass(frozen=True)
class UnpackSpec:
    """What is unpacked.

    Attributes:
        elements: of the result.
        bits: of a weight, 2 to 7.
        words: whether an element is a word of two channels, not a byte of one.
    """

    elements: int
    bits: int
    words: bool

    @property
    def block_bytes(self) -> int:
        """Bytes of a packed block."""
        return BLOCK * self.bits // BYTE_BITS

    @property
    def blocks(self) -> int:
        """Blocks of the low channels, or of all; the high ones have as many."""
        return -(-self.elements // BLOCK)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed weights."""
        return self.blocks * self.block_bytes * (2 if self.words else 1)


def width_of(weight: NDArray[np.int8]) -> int:
    """Returns the fewest bits, 2 to 8, that hold all of some symmetric integers."""
    largest = int(np.abs(weight.astype(np.int16)).max(initial=0))
    return min(max(2, largest.bit_length() + 1), BYTE_BITS)


def unpack_spec(array: NDArray[Any], bits: int) -> UnpackSpec:
    """Describes how an array in a kernel's layout, int8 or int16 words, is unpacked."""
    return UnpackSpec(array.size, bits, array.dtype == np.int16)


def pack_planes(array: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Packs an array in a kernel's layout, int8 or int16 words.

    Returns:
        (packed_bytes of its spec,).
    """
    flat = np.ravel(array)
    if array.dtype == np.int8:
        return _pack(flat, bits)
    low = (flat & 0xFF) - LOW
    return np.concatenate([_pack(low.astype(np.int8), bits), _pack((flat >> BYTE_BITS).astype(np.int8), bits)])


def _pack(weights: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    blocks = np.zeros((-(-weights.size // BLOCK), BLOCK), np.uint8)
    blocks.reshape(-1)[: weights.size] = weights.view(np.uint8)
    planes = []
    for width, lowest in _planes(bits):
        shares = ((blocks >> lowest) & (2**width - 1)).reshape(len(blocks), BYTE_BITS // width, -1)
        shifts = np.arange(0, BYTE_BITS, width, dtype=np.uint8)[None, :, None]
        planes.append(np.bitwise_or.reduce(shares << shifts, axis=1))
    return np.concatenate(planes, axis=1).ravel()


def build_unpack(spec: UnpackSpec) -> Expr:
    """Returns the TIR function; arguments: packed, out."""
    dtype = "int16" if spec.words else "int8"

    def body(packed: Expr, out: Expr) -> None:
        if current_gpu() is not None:
            with shared_nest((spec.elements,)) as (number,):
                block, within = T.truncdiv(number, T.int32(BLOCK)), T.truncmod(number, T.int32(BLOCK))
                vector, lane = T.truncdiv(within, T.int32(VECTOR)), T.truncmod(within, T.int32(VECTOR))
                put(out, number, _weight(spec, packed, block * spec.block_bytes + lane, vector))
            return
        full, rest = divmod(spec.elements, BLOCK)
        with shared_nest((spec.blocks, 1)) as (block, _):
            if full:
                with when(block < full):
                    _emit_block(spec, packed, out, block, BLOCK)
            if rest:
                with when(block == full):
                    _emit_block(spec, packed, out, block, rest)

    return function([("packed", spec.packed_bytes, "uint8"), ("out", spec.elements, dtype)], body)


def _emit_block(spec: UnpackSpec, packed: Expr, out: Expr, block: Expr, elements: int) -> None:
    for first in range(0, elements, VECTOR):
        _emit_vector(spec, packed, (out, block * BLOCK + first), block, first, min(VECTOR, elements - first))


def _emit_vector(
    spec: UnpackSpec, packed: Expr, target: tuple[Expr, Expr], block: Expr, first: int, width: int
) -> None:
    """Emits the weights of a block from ``first`` on."""

    def weight(lane: Expr, number: Expr) -> Expr:
        return _weight(spec, packed, number * spec.block_bytes + lane, first // VECTOR)

    def word(lane: Expr) -> Expr:
        high = T.shift_left(T.cast(weight(lane, block + spec.blocks), "int16"), T.int16(BYTE_BITS))
        return high + T.cast(weight(lane, block), "int16") + T.int16(LOW)

    assign(*target, width, word if spec.words else lambda lane: weight(lane, block))


def _weight(spec: UnpackSpec, packed: Expr, start: Expr, vector: int | Expr) -> Expr:
    """One weight of a vector as int8; ``start`` is its lane behind the beginning of the block."""
    number = T.int32(vector) if isinstance(vector, int) else vector
    whole: Expr = T.uint8(0)
    plane = 0
    for width, lowest in _planes(spec.bits):
        share = T.truncmod(number, T.int32(width))
        byte = packed[start + (plane + share * VECTOR)]
        part = T.bitwise_and(T.shift_right(byte, T.cast(number - share, "uint8")), T.uint8(2**width - 1))
        whole = T.bitwise_or(whole, T.shift_left(part, T.uint8(lowest)))
        plane += BLOCK * width // BYTE_BITS
    sign = T.uint8(1 << (spec.bits - 1))
    return T.cast(T.bitwise_xor(whole, sign) - sign, "int8")


def _planes(bits: int) -> Iterator[tuple[int, int]]:
    """Yields the width of every plane, and the lowest bit that it holds."""
    lowest = 0
    for width in PLANES[bits]:
        yield width, lowest
        lowest += width
