from __future__ import annotations

from svitkit.compress.axes import Piece, cut, fix, merge, new_axes, regroup, whole


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
