"""Weights of few bits: what is packed comes out of the kernel as it went in."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from svitkit.runtime.kernels.unpack import BLOCK, build_unpack, pack_planes, unpack_spec, width_of

KINDS = ("int8", "int16")


def unpacked(array: np.ndarray, bits: int, parts: int = 1) -> np.ndarray:
    spec = unpack_spec(array, bits)
    packed = pack_planes(array, bits)
    assert packed.nbytes == spec.packed_bytes == -(-array.size // BLOCK) * BLOCK * bits * array.itemsize // 8
    library = tvm.compile(tvm.IRModule({"kernel": build_unpack(spec)}), target="llvm")
    given, got = (tvm.runtime.tensor(each) for each in (packed, np.full(array.shape, 99, array.dtype)))
    for part in range(parts):
        library["kernel"](given, got, part, parts)
    return got.numpy()


def integers(count: int, bits: int) -> np.ndarray:
    top = 2 ** (bits - 1) - 1
    return np.random.default_rng(bits).integers(-top, top + 1, count).astype(np.int8)


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("count", [1, BLOCK, 3 * BLOCK + 77])
def test_bytes_come_out_as_they_went_in(bits: int, count: int) -> None:
    weights = integers(count, bits)
    np.testing.assert_array_equal(unpacked(weights, bits), weights)


@pytest.mark.parametrize("bits", [3, 6])
def test_words_of_two_channels_come_out_as_they_went_in(bits: int) -> None:
    low, high = integers(700, bits).astype(np.int16), integers(701, bits).astype(np.int16)[1:]
    words = high * 256 + low + 128
    np.testing.assert_array_equal(unpacked(words, bits), words)


@pytest.mark.parametrize("parts", [2, 8])
def test_parts_together_are_the_whole(parts: int) -> None:
    weights = integers(5 * BLOCK, 4)
    np.testing.assert_array_equal(unpacked(weights, 4, parts), weights)


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (7, 4), (8, 5), (31, 6), (32, 7), (64, 8), (127, 8)]
)
def test_the_width_is_that_of_the_largest_magnitude(largest: int, bits: int) -> None:
    assert width_of(np.array([0, -largest], np.int8)) == bits
