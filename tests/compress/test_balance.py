from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import pytest
from torch import nn

from svitkit.compress.balance import BalanceConfig, BalanceSearch
from svitkit.compress.eliminate import Elimination
from svitkit.compress.groups import FoundGroup
from svitkit.compress.journal import Measurement
from svitkit.compress.layer_costs import LayerCost, LayerCosts
from svitkit.compress.primesvt import Outcome
from svitkit.models.plan import Member, PruneGroup, PrunePlan

WIDTH = 48
Widths = dict[str, int]


class _Network(nn.Module):
    """Layers "a", "b" and "c" of 48 outputs, which nobody runs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, WIDTH), nn.Linear(40, WIDTH), nn.Linear(160, WIDTH)


def _group(name: str, blocks: int = 1) -> tuple[FoundGroup, Elimination]:
    group = PruneGroup(name=name, channels=WIDTH, blocks=blocks, members=(Member(tensor=f"{name}.weight", dim=0),))
    rounds = [[block * (WIDTH // blocks) + at for block in range(blocks)] for at in range(WIDTH // blocks - 1)]
    found = FoundGroup(group=group, producers=(), consumers=(), size_bytes={"a": 1, "b": 4, "c": 16}[name])
    return found, Elimination(group=group, order=tuple(channel for row in rounds for channel in row))


def _removed(plan: PrunePlan) -> Widths:
    return {pruned.group.name: len(pruned.removed()) for pruned in plan.groups}


class _Laboratory:
    """Answers a search's questions from a formula, and remembers them."""

    def __init__(self, loss: Callable[[Widths], float]) -> None:
        self.loss = loss
        self.asked: list[Widths] = []
        self.floors: set[float | None] = set()
        sizes = {"a": 480, "b": 1920, "c": 7680}
        self.costs = LayerCosts(
            _Network(), {name: LayerCost(weights=size) for name, size in sizes.items()}, unit="bytes"
        )

    def each(self, plans: Sequence[PrunePlan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        for plan in plans:
            self.asked.append(_removed(plan))
            self.floors.add(floor)
            yield self.measure(plan)

    def measure(self, plan: PrunePlan, divergence: float | None = None) -> Measurement:
        removed = _removed(plan)
        return Measurement(
            key=str(removed),
            accuracy=90.0 - self.loss(removed),
            parameter_bytes=int(4 * self.costs.of(plan)),
            divergence=divergence,
        )

    def run(self, groups: str = "abc", images: int = 10**9, **settings: object) -> Outcome:
        search = BalanceSearch(
            config=BalanceConfig(**settings),  # type: ignore[arg-type]
            evaluator=self,
            probes=_Probes(self),
            contexts=_Probes(self),
            costs=self.costs,
            baseline=self.measure(PrunePlan()),
            images=images,
            original_bytes=4 * int(self.costs.total),
            progress=lambda stage, done, total: None,
        )
        return search.run([_group(name) for name in groups])


class _Probes:
    def __init__(self, laboratory: _Laboratory) -> None:
        self.laboratory = laboratory

    def each(self, plans: Sequence[PrunePlan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        for plan in plans:
            yield self.laboratory.measure(plan, self.laboratory.loss(_removed(plan)) / 100)


def test_more_is_taken_where_it_saves_more_for_the_same_damage() -> None:
    laboratory = _Laboratory(lambda removed: 0.002 * sum(count**2 for count in removed.values()))
    outcome = laboratory.run(max_drop=3.0)
    assert outcome.satisfied
    widths = {name: WIDTH - count for name, count in _removed(outcome.plan).items()}
    assert widths["c"] < widths.get("b", WIDTH) <= widths.get("a", WIDTH)
    assert 2.0 < laboratory.loss(_removed(outcome.plan)) <= 3.0


def test_accuracy_is_kept_however_damages_add_up() -> None:
    laboratory = _Laboratory(lambda removed: 0.00005 * sum(removed.values()) ** 2.5)
    outcome = laboratory.run(max_drop=1.0)
    assert 90.0 - outcome.measurement.accuracy <= 1.0
    assert outcome.measurement.accuracy == 90.0 - laboratory.loss(_removed(outcome.plan))
    assert all(floor is None or floor == pytest.approx(89.0, abs=1e-2) for floor in laboratory.floors)


def test_the_fewer_images_judge_the_more_must_be_kept() -> None:
    def kept(images: int) -> float:
        laboratory = _Laboratory(lambda removed: 0.001 * sum(removed.values()) ** 2)
        return laboratory.run(images=images, max_drop=4.0).measurement.accuracy

    assert 90.0 - kept(10**9) <= 4.0
    assert 90.0 - kept(10000) <= 4.0 - 2 * 100 * (0.24 / 10000) ** 0.5
    assert kept(100) == 90.0
    assert 90.0 > kept(10000) > kept(10**9)


def test_measuring_the_curves_again_corrects_damages_that_depend_on_each_other() -> None:
    def loss(removed: Widths) -> float:
        c, b = removed.get("c", 0), removed.get("b", 0)
        return 0.02 * c + 0.02 * b + (0.004 * c * b) + 0.05 * removed.get("a", 0)

    saved = [
        _Laboratory(loss).run(max_drop=3.0, rounds=rounds, fill_tries=0).measurement.parameter_bytes
        for rounds in (0, 2)
    ]
    assert saved[1] <= saved[0]


def test_nothing_is_pruned_where_every_cut_costs_too_much() -> None:
    outcome = _Laboratory(lambda removed: 50.0 * bool(removed)).run(max_drop=1.0, min_saving=0.1)
    assert outcome.plan == PrunePlan()
    assert not outcome.satisfied


def test_widths_divide_by_the_multiple_asked_for() -> None:
    outcome = _Laboratory(lambda removed: 0.02 * sum(removed.values())).run(max_drop=1.0, channel_multiple=8)
    assert outcome.plan.groups
    assert all(len(pruned.kept) % 8 == 0 for pruned in outcome.plan.groups)


def test_few_candidates_are_evaluated() -> None:
    laboratory = _Laboratory(lambda removed: 0.002 * sum(count**2 for count in removed.values()))
    laboratory.run(max_drop=3.0, rounds=1, fill_tries=4)
    assert len(laboratory.asked) < 30


def test_what_was_decided_is_said_for_every_group() -> None:
    outcome = _Laboratory(lambda removed: 0.01 * sum(removed.values())).run()
    assert set(outcome.reasons) == {"a", "b", "c"}
    for group in outcome.swept:
        assert [trial.ratio for trial in group.trials] == [0.15, 0.3, 0.45, 0.6, 0.75, 0.88]
    assert [group.found.group.name for group in outcome.swept] == ["c", "b", "a"]


@pytest.mark.parametrize("settings", [{"rates": (0.5, 0.2)}, {"max_drop": -1.0}, {"objective": "beauty"}])
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        BalanceConfig(**settings)  # type: ignore[arg-type]
