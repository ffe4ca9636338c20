from __future__ import annotations

from svitkit.compress.axes import Piece, cut, fix, merge, new_axes, regroup, take, undivided, whole


def sizes(axis: tuple[Piece, ...]) -> list[int]:
    return [piece.size for piece in whole(axis)]


def test_a_reshape_cuts_the_pieces_of_the_axis_and_of_every_tensor_that_shares_them() -> None:
    (weight,) = new_axes((96,))
    value = ((Piece(2),), weight, (Piece(16),))
    reshaped = regroup(value, (2, 3, 4, 8, 16))
    assert sizes(weight) == [3, 4, 8]
    assert [sizes(axis) for axis in reshaped] == [[2], [3], [4], [8], [16]]
    assert whole(reshaped[3])[0] is whole(weight)[2]


def test_flattening_keeps_the_channel_outermost() -> None:
    channel, height, width = new_axes((5, 3, 2))
    assert sizes(regroup((channel, height, width), (30,))[0]) == [5, 3, 2]


def test_merging_a_cut_axis_with_a_whole_one_cuts_both_alike() -> None:
    (left,), (right,) = new_axes((24,)), new_axes((24,))
    cut(whole(left)[0], 4)
    merge(left, right)
    assert sizes(right) == [4, 6]
    assert whole(left)[1] is whole(right)[1]


def test_merging_carries_the_reason_against_pruning_over() -> None:
    (left,), (right,) = new_axes((6,)), new_axes((6,))
    fix(right, "it is the input")
    merge(left, right)
    assert whole(left)[0].fixed == "it is the input"


def test_factors_that_cannot_be_matched_are_fixed_and_not_merged() -> None:
    (left,), (right,) = new_axes((12,)), new_axes((12,))
    cut(whole(left)[0], 4)
    cut(whole(right)[0], 3)
    merge(left, right)
    assert all(piece.fixed for piece in whole(left) + whole(right))
    assert not set(whole(left)) & set(whole(right))


def test_a_reshape_across_axes_that_do_not_divide_fixes_them() -> None:
    first, second = new_axes((4, 3))
    regroup((first, second), (3, 4))
    assert all(piece.fixed for piece in whole(first) + whole(second))


def test_slices_divide_an_axis_into_widths_that_are_independent() -> None:
    (fused,) = new_axes((96,))
    q, k, v = (take(fused, start, start + 32) for start in (0, 32, 64))
    assert q is not None
    assert k is not None
    assert v is not None
    merge(q, k)
    regroup((v,), (4, 8))
    first, second, *inside = undivided(fused)
    assert first is second
    assert [piece.size for piece in inside] == [4, 8]
    assert sizes(fused) == [96]


def test_a_slice_along_an_outer_factor_leaves_the_factors_inside_shared() -> None:
    (fused,) = new_axes((96,))
    regroup((fused,), (3, 4, 8))
    q, k = take(fused, 0, 32), take(fused, 32, 64)
    assert q is not None
    assert k is not None
    assert sizes(q) == [4, 8]
    assert whole(q) == whole(k)


def test_a_slice_through_an_inner_factor_is_refused() -> None:
    (fused,) = new_axes((96,))
    regroup((fused,), (3, 4, 8))
    assert take(fused, 0, 20) is None


def test_a_slice_across_a_border_takes_parts_of_both_sides() -> None:
    (axis,) = new_axes((10,))
    take(axis, 0, 4)
    middle = take(axis, 2, 7)
    assert middle is not None
    assert [piece.size for piece in undivided(middle)] == [2, 3]
    assert [piece.size for piece in undivided(axis)] == [2, 2, 3, 3]


def test_axes_divided_at_different_places_meet_at_all_of_them() -> None:
    (left,), (right,) = new_axes((10,)), new_axes((10,))
    take(left, 0, 4)
    take(right, 0, 7)
    merge(left, right)
    assert [piece.size for piece in undivided(left)] == [4, 3, 3]
    assert list(undivided(left)) == list(undivided(right))


def test_an_axis_divided_side_by_side_hands_its_parts_to_what_it_meets() -> None:
    (left,), (right,) = new_axes((10,)), new_axes((10,))
    take(left, 0, 4)
    fix(right, "it is the input")
    merge(right, left)
    assert [piece.fixed for piece in undivided(right)] == ["it is the input"] * 2
    assert list(undivided(left)) == list(undivided(right))


def test_a_reshape_through_parts_side_by_side_fixes_them() -> None:
    (axis,) = new_axes((12,))
    take(axis, 0, 4)
    regroup((axis,), (3, 4))
    assert all(piece.fixed for piece in undivided(axis))
