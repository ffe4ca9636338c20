from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import pytest
import torch

from svitkit.compress.groups import FoundGroup
from svitkit.compress.journal import Measurement, Stopped
from svitkit.compress.primesvt import Outcome, PrimeSVTConfig, Search
from svitkit.models.plan import PruneGroup, PrunePlan

WIDTH = 100
Cost = Callable[[dict[str, int]], float]


class Imaginary:
    """Measures plans by a formula; below the floor it says no more than that."""

    def __init__(self, cost: Cost, sizes: dict[str, int]) -> None:
        self.cost, self.sizes = cost, sizes
        self.asked: list[dict[str, int]] = []

    def each(self, plans: Sequence[PrunePlan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        for plan in plans:
            gone = {pruned.group.name: len(pruned.removed()) for pruned in plan.groups}
            self.asked.append(gone)
            size = sum(self.sizes.values()) - sum(self.sizes[name] * count // WIDTH for name, count in gone.items())
            accuracy, stopped = 90.0 - self.cost(gone), None
            if floor is not None and accuracy < floor:
                stopped = Stopped(images=40, accuracy=accuracy, certain=True)
                accuracy = floor - 0.01
            yield Measurement(key=str(gone), accuracy=accuracy, parameter_bytes=size, stopped=stopped)


def search(
    cost: Cost, sizes: dict[str, int], filters: dict[str, int] | None = None, **settings: object
) -> tuple[Outcome, list[dict[str, int]]]:
    """Runs the method on imaginary groups of 100 channels; ``cost`` maps removed channels to points lost."""
    evaluator = Imaginary(cost, sizes)
    groups = [
        (
            FoundGroup(
                group=PruneGroup(name=name, channels=WIDTH, members=()),
                producers=(),
                consumers=(),
                size_bytes=size,
                filter_bytes=(filters or sizes)[name],
            ),
            norms(),
        )
        for name, size in sizes.items()
    ]
    run = Search(
        config=PrimeSVTConfig(**{"channel_multiple": 1, "rates": (0.25, 0.5), **settings}),  # type: ignore[arg-type]
        evaluator=evaluator,
        baseline=next(evaluator.each([PrunePlan()])),
        original_bytes=sum(sizes.values()),
        progress=lambda stage, done, total: None,
    )
    return run.run(groups), evaluator.asked


def norms() -> torch.Tensor:
    return torch.arange(WIDTH, dtype=torch.float32)


def removed(outcome: Outcome) -> dict[str, int]:
    return {pruned.group.name: len(pruned.removed()) for pruned in outcome.plan.groups}


def test_every_group_is_swept_alone_and_the_largest_is_pruned_first() -> None:
    outcome, asked = search(lambda gone: 0.0, {"small": 1000, "large": 6000, "middle": 3000}, min_saving=0.4)
    assert asked[1:7] == [
        {"large": 25},
        {"large": 50},
        {"middle": 25},
        {"middle": 50},
        {"small": 25},
        {"small": 50},
    ]
    assert asked[7:] == [{"large": 50}, {"large": 50, "middle": 50}]
    assert removed(outcome) == {"large": 50, "middle": 50}
    assert outcome.satisfied


def test_the_largest_rate_that_keeps_the_accuracy_is_taken() -> None:
    outcome, _ = search(
        lambda gone: 0.03 * gone.get("a", 0) if gone.get("a", 0) <= 25 else 4.0, {"a": 5000, "b": 5000}, min_saving=0.3
    )
    assert removed(outcome) == {"a": 25, "b": 50}
    assert outcome.measurement.accuracy == 90.0 - 0.75
    assert "rate 0.25" in outcome.reasons["a"]


def test_the_weakest_channels_go() -> None:
    outcome, _ = search(lambda gone: 0.0, {"a": 5000}, min_saving=0.2)
    assert outcome.plan.groups[0].kept == tuple(range(50, 100))


def test_a_group_that_no_rate_leaves_robust_is_no_target() -> None:
    outcome, asked = search(
        lambda gone: 2.0 if "a" in gone else 0.0, {"a": 9000, "b": 1000}, min_saving=0.05, epsilon=1.0
    )
    assert removed(outcome) == {"b": 50}
    assert outcome.swept[0].score is None
    assert all("a" not in plan for plan in asked[5:])


def test_without_an_epsilon_a_group_may_lose_alone_what_may_be_lost_in_all() -> None:
    outcome, _ = search(lambda gone: 2.0 if "a" in gone else 0.0, {"a": 9000, "b": 1000}, min_saving=0.3, max_drop=2.0)
    assert removed(outcome) == {"a": 50}


def test_the_score_is_the_best_product_of_accuracy_and_memory_gain_among_robust_rates() -> None:
    outcome, _ = search(
        lambda gone: 1.5 if gone.get("a", 0) > 25 else 0.5 if gone else 0.0, {"a": 8000, "b": 2000}, epsilon=1.0
    )
    assert outcome.swept[0].score == pytest.approx(0.895 * 0.2)


def test_where_one_group_eats_the_accuracy_a_smaller_budget_is_tried() -> None:
    def cost(gone: dict[str, int]) -> float:
        a, b = gone.get("a", 0), gone.get("b", 0)
        return {0: 0.0, 25: 0.5, 50: 3.0}[a] + {0: 0.0, 25: 0.5, 50: 1.0}[b]

    outcome, _ = search(cost, {"a": 5000, "b": 4000}, min_saving=0.3, epsilon=1.0)
    assert removed(outcome) == {"a": 25, "b": 50}
    assert outcome.satisfied
    assert [(candidate.budget, candidate.satisfied) for candidate in outcome.candidates] == [(1.0, False), (0.5, True)]
    assert outcome.candidates[1].plan == outcome.plan
    assert {p.group.name: len(p.removed()) for p in outcome.candidates[0].plan.groups} == {"a": 50}
    outcome, _ = search(cost, {"a": 5000, "b": 4000}, min_saving=0.3, epsilon=1.0, budgets=(1.0,))
    assert removed(outcome) == {"a": 50}
    assert not outcome.satisfied


def test_if_both_constraints_cannot_be_met_the_candidate_that_saves_most_is_kept() -> None:
    outcome, _ = search(lambda gone: 0.0, {"a": 5000, "b": 5000}, min_saving=0.6)
    assert not outcome.satisfied
    assert removed(outcome) == {"a": 50, "b": 50}
    assert outcome.measurement.parameter_bytes == 5000


def test_nothing_is_pruned_where_nothing_need_be_saved() -> None:
    outcome, _ = search(lambda gone: 0.0, {"a": 5000}, min_saving=0.0)
    assert outcome.plan == PrunePlan()
    assert outcome.satisfied


def test_the_descent_goes_on_past_the_saving_if_told_so() -> None:
    outcome, _ = search(lambda gone: 0.0, {"a": 5000, "b": 5000}, min_saving=0.1, stop_at_saving=False)
    assert removed(outcome) == {"a": 50, "b": 50}


def test_groups_can_be_ordered_by_their_filters_alone() -> None:
    sizes, filters = {"a": 6000, "b": 4000}, {"a": 1000, "b": 3000}
    outcome, _ = search(lambda gone: 0.0, sizes, filters, min_saving=0.15, order_by="filters")
    assert [group.found.group.name for group in outcome.swept] == ["b", "a"]
    assert removed(outcome) == {"b": 50}


def test_a_cap_keeps_the_targets_of_the_highest_scores_in_the_order_of_size() -> None:
    def cost(gone: dict[str, int]) -> float:
        return 4.0 if gone.get("large", 0) > 25 else 0.0

    sizes = {"small": 1000, "large": 5000, "middle": 4000}
    outcome, _ = search(cost, sizes, min_saving=0.9, epsilon=1.0, max_targets=2)
    assert [(group.found.group.name, group.target) for group in outcome.swept] == [
        ("large", True),
        ("middle", True),
        ("small", False),
    ]
    assert removed(outcome) == {"large": 25, "middle": 50}
    outcome, _ = search(cost, sizes, min_saving=0.9, epsilon=1.0, max_targets=1)
    assert removed(outcome) == {"middle": 50}


def test_the_gain_can_be_a_share_of_the_group() -> None:
    outcome, _ = search(lambda gone: 1.0 if gone else 0.0, {"a": 8000, "b": 2000}, gain_of="group")
    assert [group.score for group in outcome.swept] == [pytest.approx(0.89 * 0.5)] * 2


def test_every_rate_says_its_score_and_whether_it_is_robust() -> None:
    outcome, _ = search(lambda gone: 0.04 * gone.get("a", 0), {"a": 10000}, epsilon=1.0, min_saving=0.2)
    trials = outcome.swept[0].trials
    assert [trial.robust for trial in trials] == [True, False]
    assert [trial.score for trial in trials] == [pytest.approx(0.89 * 0.25), pytest.approx(0.88 * 0.5)]


def test_a_rate_whose_evaluation_stopped_is_listed_with_its_estimate_and_never_taken() -> None:
    outcome, _ = search(lambda gone: 0.0 if gone.get("a", 0) <= 25 else 8.0, {"a": 5000}, min_saving=0.4)
    low, high = outcome.swept[0].trials
    assert (low.robust, low.accuracy, low.images) == (True, 90.0, None)
    assert (high.robust, high.accuracy, high.images) == (False, 82.0, 40)
    assert removed(outcome) == {"a": 25}
    assert outcome.measurement.accuracy == 90.0
