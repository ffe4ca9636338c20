from __future__ import annotations

from svitkit.compress.axes import new_axes, undivided, whole
from svitkit.compress.propagate import propagate
from svitkit.compress.values import Roles, Tensor


def test_axes_of_one_letter_meet_and_those_that_the_result_lacks_are_summed() -> None:
    q, k, roles = new_axes((2, 6, 8)), new_axes((2, 5, 8)), Roles()
    given = {"equation": "bnd, bmd -> bnm", "tensors": [Tensor(axes=q), Tensor(axes=k)]}
    (result,) = propagate("einsum", roles, given, (2, 6, 5))
    assert whole(q[0]) == whole(k[0]) == whole(result[0])
    assert whole(q[2]) == whole(k[2]) == whole(roles.summed)
    assert [whole(axis) for axis in result[1:]] == [whole(q[1]), whole(k[1])]
    assert not any(piece.fixed for axis in (*q, *k) for piece in undivided(axis))


def test_a_diagonal_an_ellipsis_or_a_missing_arrow_fixes_all_axes() -> None:
    for equation in ("bnn->bn", "...n->...", "bnm"):
        axes = new_axes((2, 6, 6))
        propagate("einsum", Roles(), {"equation": equation, "tensors": [Tensor(axes=axes)]}, (2, 6))
        assert all(piece.fixed for axis in axes for piece in undivided(axis))


def test_the_axis_between_two_factors_is_summed() -> None:
    a, b, roles = new_axes((4, 3)), new_axes((3, 5)), Roles()
    propagate("matmul", roles, {"self": Tensor(axes=a), "other": Tensor(axes=b)}, (4, 5))
    assert whole(roles.summed) == whole(a[1]) == whole(b[0])


def test_a_sum_is_noted_and_a_mean_fixes() -> None:
    axes, roles = new_axes((4, 3)), Roles()
    propagate("sum", roles, {"self": Tensor(axes=axes), "dim": [1]}, (4,))
    assert whole(roles.summed) == whole(axes[1])
    propagate("mean", roles, {"self": Tensor(axes=axes), "dim": [0]}, (3,))
    assert [piece.fixed for axis in axes for piece in whole(axis)] == ["a mean is taken over it", None]


def test_an_operator_without_a_rule_fixes_what_it_is_given() -> None:
    axes = new_axes((4, 3))
    propagate("unheard_of", Roles(), {"self": Tensor(axes=axes)}, (4, 3))
    assert {piece.fixed for axis in axes for piece in whole(axis)} == {"the operator 'unheard_of' has no rule"}
