"""The search for tokens that blocks may skip, on networks that are formulas."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest

from svitkit.compress.journal import Measurement, plan_key
from svitkit.compress.options import CompressOptions, configure
from svitkit.compress.token_blocks import Block
from svitkit.compress.token_plan import TokenPlan
from svitkit.compress.token_skip import Rate, SkipSearch, TokenSkipConfig, _steps
from svitkit.errors import ConfigError
from svitkit.models.spec import TokenReduction

TOKENS = 16
BLOCKS = tuple(
    Block(name=name, grid=(4, 4), channels=8, currents=False) for name in ("cheap", "dear", "needed", "idle")
)
WORK = {"cheap": 10.0, "dear": 30.0, "needed": 20.0, "idle": 20.0}
LOSS = {"cheap": 0.5, "dear": 1.0, "needed": 100.0, "idle": 0.0}
"""Operations that a token of a block needs, and points that the network loses with it."""
BEST = {"cheap": "grid", "dear": "activity", "needed": "grid", "idle": "difference"}
"""The criterion by which a block loses least; by the others, twice as much."""
BEFORE = 90.0


def lost(plan: TokenPlan) -> float:
    return sum(
        (each.tokens - each.kept) * LOSS[each.block] * (1 if each.criterion == BEST[each.block] else 2)
        for each in plan.reductions
    )


class Formula:
    """Measures plans by formula, and notes them."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.asked: list[TokenPlan] = []
        self.floors: list[float | None] = []

    def each(self, plans: Sequence[TokenPlan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        for plan in plans:
            self.asked.append(plan)
            self.floors.append(floor)
            yield Measurement(
                key=plan_key(plan, self.stage),
                accuracy=BEFORE - lost(plan),
                parameter_bytes=100,
                divergence=lost(plan) / 100 - 1e-9,
            )


def work_of(plan: TokenPlan) -> float:
    return 5000.0 - sum((each.tokens - each.kept) * WORK[each.block] for each in plan.reductions)


def search(**told: Any) -> tuple[SkipSearch, Formula, Formula]:
    full, probes = Formula("validation"), Formula("probe")
    config = TokenSkipConfig(**{"margin": 0.0, "steps": 4, **told})
    baseline = Measurement(key="whole", accuracy=BEFORE, parameter_bytes=100)
    found = SkipSearch(
        config=config,
        blocks=BLOCKS,
        evaluator=full,
        probes=probes,
        operations=work_of,
        baseline=baseline,
        images=1000,
        original_bytes=100,
        progress=lambda stage, done, total: None,
    )
    return found, full, probes


def kept(plan: TokenPlan) -> dict[str, int]:
    return {each.block: each.kept for each in plan.reductions}


def test_every_block_has_the_criterion_by_which_it_diverges_least() -> None:
    searched, _, probes = search(max_drop=20.0)
    outcome = searched.run()
    chosen = {each.block: each.criterion for each in outcome.plan.reductions}
    assert chosen == {name: BEST[name] for name in ("cheap", "dear", "idle")}
    first = [(plan.reductions[0].block, plan.reductions[0].criterion, plan.reductions[0].kept) for plan in probes.asked]
    wanted = [(block.name, criterion, 8) for block in BLOCKS for criterion in ("difference", "activity", "grid")]
    assert first[: len(wanted)] == wanted
    assert first[len(wanted) :] == [(name, BEST[name], count) for name in BEST for count in (12, 8, 4, 1)]


@pytest.mark.parametrize("max_drop", [0.0, 1.9, 2.0, 6.0, 20.0, 60.0])
def test_no_step_is_left_that_the_allowed_loss_has_room_for(max_drop: float) -> None:
    searched, full, _ = search(max_drop=max_drop)
    outcome = searched.run()
    assert lost(outcome.plan) <= max_drop
    assert outcome.measurement.accuracy == BEFORE - lost(outcome.plan)
    assert kept(outcome.plan)["idle"] == 1
    assert "needed" not in kept(outcome.plan)
    steps = [16, 12, 8, 4, 1]
    for block in BLOCKS:
        now = kept(outcome.plan).get(block.name, TOKENS)
        if now > 1:
            more = (now - steps[steps.index(now) + 1]) * LOSS[block.name]
            assert lost(outcome.plan) + more > max_drop
    assert [plan for plan, _ in outcome.measured] == full.asked
    assert full.floors == [BEFORE - max_drop] * len(full.asked)


def test_tokens_whose_loss_buys_most_operations_go_first() -> None:
    searched, _, _ = search(max_drop=4.0)
    # a token of "dear" costs 1 point for 30 operations, one of "cheap" 1/2 for 10: four of "dear" fit
    assert kept(searched.run().plan) == {"dear": 12, "idle": 1}


def test_the_margin_keeps_the_search_away_from_the_edge() -> None:
    bold, careful = (search(max_drop=6.0, margin=margin)[0] for margin in (0.0, 1.0))
    assert bold.floor == BEFORE - 6
    assert bold.floor < careful.floor < BEFORE
    assert lost(careful.run().plan) < lost(bold.run().plan) <= 6


def test_rates_are_those_of_single_blocks_and_what_they_save() -> None:
    searched, _, _ = search(max_drop=6.0, criteria=("grid",))
    outcome = searched.run()
    for rate in outcome.rates:
        assert rate.saved == (TOKENS - rate.kept) * WORK[rate.block]
        assert rate.divergence >= 0
    assert {rate.block for rate in outcome.rates} == set(WORK)


def rate(saved: float, divergence: float) -> Rate:
    return Rate(block="b", criterion="grid", kept=1, divergence=divergence, saved=saved)


def test_steps_are_the_corners_of_the_lower_convex_hull() -> None:
    first, above, second, third = rate(1, 0.1), rate(2, 0.5), rate(3, 0.6), rate(4, 1.6)
    steps = _steps([first, above, second, third])
    assert [step for _, step in steps] == [first, second, third]
    assert [slope for slope, _ in steps] == pytest.approx([0.1, 0.25, 1.0])


def test_a_rate_that_diverges_less_than_all_before_it_is_one_step() -> None:
    rates = [rate(1, 0.5), rate(2, 0.4), rate(3, 0.3)]
    assert [(slope, step) for slope, step in _steps(rates)] == [(pytest.approx(0.1), rates[2])]
    assert _steps([]) == []


def test_steps_of_a_straight_line_are_joined() -> None:
    assert [step for _, step in _steps([rate(1, 1), rate(2, 2), rate(3, 3)])] == [rate(3, 3)]


def reduction(count: int, **changes: Any) -> TokenReduction:
    return BLOCKS[0].reduced(count, "grid", **changes)


def test_a_plan_is_named_by_what_it_keeps_and_by_all_else_in_a_hash() -> None:
    plan = TokenPlan(reductions=(reduction(4), BLOCKS[1].reduced(8, "activity")))
    assert plan.label().startswith("tokens cheap=4/16 dear=8/16, ")
    assert TokenPlan().label().startswith("tokens whole, ")
    assert plan_key(plan) == f"validation, {plan.label()}"
    assert plan_key(plan, "probe") == f"probe, {plan.label()}"
    plans = [reduction(4), reduction(5), reduction(4, skip=False), reduction(4, seed=1), BLOCKS[0].reduced(4, "random")]
    assert len({TokenPlan(reductions=(each,)).label() for each in plans}) == len(plans)


def options(method: str, **told: Any) -> Callable[[], CompressOptions]:
    settings = {"bn_recalibration": 0, "finetune_epochs": 0, "seed": 0, "limit": None, **told}
    return lambda: CompressOptions(method=method, config=configure(method, None, None, {}), **settings)


@pytest.mark.parametrize("told", [{"finetune_epochs": 1}, {"bn_recalibration": 8}])
def test_a_method_that_trains_by_itself_is_not_followed_by_training(told: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"method 'token-select' trains the network itself.*setting 'epochs'"):
        options("token-select", **told)()


def test_the_search_may_be_followed_by_training() -> None:
    assert options("token-skip", finetune_epochs=1)().finetune_epochs == 1


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("token-skip", {"steps": 1}, "steps is 1: Input should be greater"),
        ("token-skip", {"criteria": ("beauty",)}, "criteria.0 is 'beauty'"),
        ("token-skip", {"criteria": None}, "criteria is ()"),
        ("token-skip", {"stteps": 4}, "Did you mean 'steps'"),
        ("token-select", {"ratio": 1.0}, "ratio is 1.0: Input should be less than 1"),
        ("token-select", {"criterion": "grid"}, "criterion is 'grid'"),
        ("token-select", {"first": 0}, "first is 0"),
        ("token-select", {"epochs": 0}, "epochs is 0"),
    ],
)
def test_a_wrong_setting_is_named(method: str, settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(method, None, None, settings)
    assert says in str(caught.value)


def test_a_single_criterion_may_stand_for_a_list_and_macs_are_no_objective() -> None:
    config = configure("token-skip", 2.0, None, {"criteria": "grid"})
    assert config == TokenSkipConfig(max_drop=2.0, criteria=("grid",))
    with pytest.raises(ConfigError, match="objective 'macs'"):
        configure("token-skip", None, None, {}, objective="macs")
