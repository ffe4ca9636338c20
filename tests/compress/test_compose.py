from __future__ import annotations

import pytest

from svitkit.compress.compose import compose
from svitkit.errors import UnsupportedError
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan


def plan(name: str, channels: int, kept: tuple[int, ...], *tensors: str) -> PrunePlan:
    members = tuple(Member(tensor=tensor, dim=0) for tensor in tensors)
    return PrunePlan(groups=(PrunedGroup(group=PruneGroup(name=name, channels=channels, members=members), kept=kept),))


def test_indices_of_the_second_plan_are_translated_into_the_original_numbering() -> None:
    composed = compose(plan("a", 6, (0, 2, 3, 5), "w"), plan("a", 4, (1, 3), "w"))
    assert composed.groups[0].kept == (2, 5)
    assert composed.groups[0].group.channels == 6


def test_groups_of_either_plan_stay() -> None:
    composed = compose(plan("a", 4, (0, 1), "w"), plan("b", 4, (2,), "u"))
    assert [(pruned.group.name, pruned.kept) for pruned in composed.groups] == [("a", (0, 1)), ("b", (2,))]


def test_groups_that_overlap_without_being_the_same_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="shares axes"):
        compose(plan("a", 4, (0, 1), "w", "u"), plan("b", 2, (0,), "w"))
