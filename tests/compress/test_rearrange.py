from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from svitkit.compress.axes import Axes, new_axes, undivided, whole
from svitkit.compress.propagate import propagate
from svitkit.compress.values import Roles, Tensor


def apply(op: str, axes: Axes, shape: Sequence[int], **given: Any) -> tuple[Axes, ...]:
    return propagate(op, Roles(), {"self": Tensor(axes=axes), **given}, shape)


def fixed(axes: Axes) -> list[bool]:
    return [any(piece.fixed for piece in undivided(axis)) for axis in axes]


@pytest.mark.parametrize(
    ("op", "given", "order"),
    [
        ("movedim", {"source": 0, "destination": 2}, (1, 2, 0)),
        ("movedim", {"source": [0, 1], "destination": [-1, 0]}, (1, 2, 0)),
        ("moveaxis", {"source": [2, 0], "destination": [0, 1]}, (2, 0, 1)),
        ("swapaxes", {"axis0": 0, "axis1": 2}, (2, 1, 0)),
        ("transpose", {"dim0": 1, "dim1": -1}, (0, 2, 1)),
        ("mT", {}, (0, 2, 1)),
        ("numpy_T", {}, (2, 1, 0)),
        ("permute", {"dims": [1, 2, 0]}, (1, 2, 0)),
    ],
)
def test_axes_that_change_places_stay_themselves(op: str, given: dict[str, Any], order: tuple[int, ...]) -> None:
    axes = new_axes((2, 3, 5))
    (moved,) = apply(op, axes, [(2, 3, 5)[at] for at in order], **given)
    assert moved == tuple(axes[at] for at in order)
    assert fixed(axes) == [False] * 3


@pytest.mark.parametrize(
    ("op", "given"), [("select", {"dim": 0, "index": 1}), ("unbind", {"dim": 0})], ids=["select", "unbind"]
)
def test_picking_single_indices_fixes_the_axis_they_are_picked_from_and_no_other(
    op: str, given: dict[str, Any]
) -> None:
    axes = new_axes((3, 4, 8))
    results = apply(op, axes, (4, 8), **given)
    assert all(result == axes[1:] for result in results)
    assert fixed(axes) == [True, False, False]


@pytest.mark.parametrize(
    ("op", "given"),
    [("slice", {"dim": 1, "start": 3, "end": 5, "step": 1}), ("narrow", {"dim": 1, "start": -5, "length": 2})],
)
def test_a_slice_has_a_width_of_its_own(op: str, given: dict[str, Any]) -> None:
    axes = new_axes((2, 8))
    (part,) = apply(op, axes, (2, 2), **given)
    assert [piece.size for piece in undivided(axes[1])] == [3, 2, 3]
    assert whole(part[1])[0] is list(undivided(axes[1]))[1]
    assert fixed(axes) == [False, False]


def test_every_second_index_is_no_width() -> None:
    axes = new_axes((2, 8))
    apply("slice", axes, (2, 4), dim=1, start=0, end=8, step=2)
    assert fixed(axes) == [False, True]


def test_unequal_parts_have_widths_of_their_own_and_equal_ones_share_theirs() -> None:
    axes = new_axes((2, 8))
    parts = apply("split_with_sizes", axes, (2, 3), dim=1, split_sizes=[3, 5])
    assert [piece.size for piece in undivided(axes[1])] == [3, 5]
    assert [whole(part[1])[0].size for part in parts] == [3, 5]
    axes = new_axes((2, 8))
    first, second = apply("chunk", axes, (2, 4), dim=1, chunks=2)
    assert whole(first[1]) == whole(second[1])


@pytest.mark.parametrize(
    ("op", "given", "shape", "wanted"),
    [
        ("pad", {"pad": [1, 1]}, (2, 3, 7), [False, False, True]),
        ("roll", {"shifts": 1, "dims": 1}, (2, 3, 5), [False, True, False]),
        ("flip", {"dims": [0, 2]}, (2, 3, 5), [True, False, True]),
        ("roll", {"shifts": 1, "dims": []}, (2, 3, 5), [True, True, True]),
    ],
)
def test_elements_that_are_added_or_change_places_fix_their_axis(
    op: str, given: dict[str, Any], shape: tuple[int, ...], wanted: list[bool]
) -> None:
    axes = new_axes((2, 3, 5))
    (result,) = apply(op, axes, shape, **given)
    assert fixed(axes) == wanted
    assert [a is b for a, b in zip(axes, result, strict=True)] == [
        size == after for size, after in zip((2, 3, 5), shape, strict=True)
    ]


def test_stacked_tensors_meet_along_all_axes_and_their_number_is_fixed() -> None:
    first, second = new_axes((3, 5)), new_axes((3, 5))
    (stacked,) = propagate(
        "stack", Roles(), {"tensors": [Tensor(axes=first), Tensor(axes=second)], "dim": 1}, (3, 2, 5)
    )
    assert [whole(axis) for axis in first] == [whole(axis) for axis in second]
    assert fixed(stacked) == [False, True, False]
    assert (stacked[0], stacked[2]) == first
