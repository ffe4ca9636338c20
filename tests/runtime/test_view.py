from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from svitkit.errors import UnsupportedError
from svitkit.runtime.view import Atom, Buffer, View, align, merge, store


def read(view: View, memory: np.ndarray) -> np.ndarray:
    """What a view shows of its buffer's memory."""
    atoms = view.atoms
    strides = [atom.stride * memory.itemsize for atom in atoms]
    return as_strided(memory[view.offset :], [atom.size for atom in atoms], strides).reshape(view.shape)


def whole(shape: tuple[int, ...]) -> tuple[View, np.ndarray]:
    """A row-major view and numbered memory."""
    axes = tuple(
        (Atom(size, int(np.prod(shape[i + 1 :])), "channel"),) if size > 1 else () for i, size in enumerate(shape)
    )
    return View(Buffer("x", "float32", shape), axes), np.arange(np.prod(shape), dtype=np.float32)


@pytest.mark.parametrize("shape", [(2, 12, 16), (24, 16), (2, 3, 4, 4, 4), (1, 2, 1, 12, 16), (384,)])
def test_reshape_shows_what_numpy_shows(shape: tuple[int, ...]) -> None:
    view, memory = whole((2, 12, 4, 4))
    assert view.reshape(shape).shape == shape
    np.testing.assert_array_equal(read(view.reshape(shape), memory), memory.reshape(shape))


def test_reshape_after_transpose_keeps_the_order_of_elements() -> None:
    view, memory = whole((2, 12, 16))
    moved = view.transpose((0, 2, 1)).reshape((2, 4, 4, 3, 4))
    np.testing.assert_array_equal(
        read(moved, memory), memory.reshape(2, 12, 16).transpose(0, 2, 1).reshape(2, 4, 4, 3, 4)
    )


def test_reshape_across_a_transposition_needs_no_copy_where_factors_fit() -> None:
    view, memory = whole((6, 4))
    np.testing.assert_array_equal(
        read(view.transpose((1, 0)).reshape((2, 12)), memory), memory.reshape(6, 4).T.reshape(2, 12)
    )


def test_reshape_that_cuts_factors_is_refused() -> None:
    view, _ = whole((3, 8))
    with pytest.raises(UnsupportedError, match="unevenly"):
        view.reshape((4, 6))
    with pytest.raises(UnsupportedError, match="sizes differ"):
        view.reshape((5, 5))


def test_slice_of_a_product_axis_respects_its_inner_factor() -> None:
    view, memory = whole((2, 12, 5))
    split = view.reshape((2, 3, 4, 5)).reshape((2, 12, 5))
    np.testing.assert_array_equal(read(split.slice(1, 4, 8), memory), memory.reshape(2, 12, 5)[:, 4:8])
    np.testing.assert_array_equal(read(split.slice(1, 3, 8), memory), memory.reshape(2, 12, 5)[:, 3:8])
    apart = view.reshape((2, 3, 4, 5)).transpose((0, 2, 1, 3)).reshape((2, 12, 5))
    with pytest.raises(UnsupportedError, match="cuts through"):
        apart.slice(1, 4, 8)


def test_expand_broadcasts_without_storage() -> None:
    view, memory = whole((1, 3, 2))
    wide = view.expand((4, 1, 3, 2), "time")
    np.testing.assert_array_equal(read(wide, memory), np.broadcast_to(memory.reshape(1, 3, 2), (4, 1, 3, 2)))
    assert wide.axes[0] == (Atom(4, 0, "time"),)


def test_store_puts_space_outside_time_outside_channels() -> None:
    view = store(
        "y", [[Atom(4, 1, "time")], [Atom(8, 1, "channel")], [Atom(3, 1, "space")], [Atom(5, 1, "space")]], "uint8"
    )
    assert view.shape == (4, 8, 3, 5)
    assert view.buffer.shape == (3, 5, 4, 8)
    assert [axis[0].stride for axis in view.axes] == [8, 1, 5 * 32, 32]


def test_store_leaves_broadcast_time_unstored() -> None:
    view = store("y", [[Atom(4, 0, "time")], [Atom(8, 1, "channel")]], "float32")
    assert view.shape == (4, 8)
    assert view.buffer.elements == 8


def test_align_splits_at_all_factor_boundaries() -> None:
    left, _ = whole((2, 12))
    right = left.reshape((2, 3, 4)).reshape((2, 12))
    ((pair,), inner) = align([left, right])
    assert [atom.size for atom in pair] == [2, 2]
    assert [tuple(atom.size for atom in atoms) for atoms in inner] == [(3, 3), (4, 4)]
    assert [tuple(atom.stride for atom in atoms) for atoms in inner] == [(4, 4), (1, 1)]


def test_align_broadcasts_axes_of_extent_one_with_stride_zero() -> None:
    left, _ = whole((2, 12))
    right, _ = whole((12,))
    ((first,), (second,)) = align([left, right])
    assert [atom.stride for atom in first] == [12, 0]
    assert [atom.stride for atom in second] == [1, 1]


def test_merge_joins_what_lies_behind_one_another() -> None:
    assert merge([Atom(3, 8, "space"), Atom(1, 99, "space"), Atom(4, 2, "space")]) == (Atom(12, 2, "space"),)
    assert len(merge([Atom(3, 1, "space"), Atom(4, 3, "space")])) == 2
