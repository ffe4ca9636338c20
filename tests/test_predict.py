"""Predicted times of networks and of plans; what they are worth is shown by benchmarks/bench_prediction.py."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable

import pytest
import torch

import svitkit.predict
from svitkit.boards.board import load_board
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.run import example_input
from svitkit.predict import LatencyCosts, PlanPredictor, predict_latency
from tests.compress.networks import FAMILIES, firing_checkpoint

BOARD = "qemu-cortex-a72"


def inputs(checkpoint: Checkpoint) -> torch.Tensor:
    example = example_input(checkpoint.spec)
    return torch.randn(example.shape[0], 4, *example.shape[2:], generator=torch.Generator().manual_seed(0))


def thinner(group: PruneGroup, share: float) -> PrunedGroup:
    size = group.channels // group.blocks
    left = max(1, round(size * share))
    return PrunedGroup(group=group, kept=tuple(b * size + c for b in range(group.blocks) for c in range(left)))


def prunable(checkpoint: Checkpoint) -> list[FoundGroup]:
    found = find_groups(checkpoint.model, example_input(checkpoint.spec), residual_widths=True)
    return [group for group in found if group.prunable]


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest) -> tuple[Checkpoint, PlanPredictor, list[FoundGroup]]:
    checkpoint = firing_checkpoint(request.param)
    return checkpoint, PlanPredictor(checkpoint, load_board(BOARD), inputs(checkpoint)), prunable(checkpoint)


Subject = tuple[Checkpoint, PlanPredictor, list[FoundGroup]]


def test_a_plan_is_predicted_as_the_network_built_from_it(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, predictor, groups = subject
    plan = PrunePlan(
        groups=tuple(thinner(found.group, 0.5 if "attn" in found.group.name else 0.75) for found in groups)
    )
    smaller = copy.deepcopy(checkpoint.model)
    apply_plan(smaller, plan)
    pruned = dataclasses.replace(checkpoint, model=smaller)
    built = predict_latency(pruned, load_board(BOARD), inputs(checkpoint))
    monkeypatch.setattr(svitkit.predict, "predict_latency", None)  # the way round, for networks of other code
    planned = predictor.predict(plan)
    assert len(planned.calls) == len(built.calls)
    assert planned.total_cycles == pytest.approx(built.total_cycles, rel=0.1)


def test_every_group_is_followed_by_sizes_alone(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    _, predictor, groups = subject
    monkeypatch.setattr(svitkit.predict, "predict_latency", None)
    whole = predictor.predict(PrunePlan()).total_cycles
    for found in groups:
        assert predictor.predict(PrunePlan(groups=(thinner(found.group, 0.5),))).total_cycles < whole


def test_costs_of_plans_are_those_predicted_and_mostly_known(subject: Subject) -> None:
    _, predictor, groups = subject
    costs, draw = LatencyCosts(predictor), random.Random(1)
    asked = 0

    def counting(predict: Callable[..., object]) -> Callable[..., object]:
        def counted(plan: PrunePlan) -> object:
            nonlocal asked
            asked += 1
            return predict(plan)

        return counted

    costs._predictor = copy.copy(predictor)
    costs._predictor.predict = counting(predictor.predict)  # type: ignore[method-assign, assignment]
    drawn = [[(found, draw.choice((0.25, 0.5))) for found in groups if draw.random() < 0.5] for _ in range(60)]
    plans = [PrunePlan(groups=tuple(thinner(found.group, share) for found, share in each)) for each in drawn]
    for plan in plans:
        assert costs.of(plan) == pytest.approx(predictor.predict(plan).total_cycles, rel=1e-3)
    assert costs.of(PrunePlan()) == costs.total == pytest.approx(predictor.predict(PrunePlan()).total_cycles)
    assert asked < len(plans) + len(groups)
    asked = 0
    for plan in plans:
        costs.of(plan)
    assert asked == 0


def test_an_emulated_board_has_cycles_and_no_time(subject: Subject) -> None:
    _, predictor, _ = subject
    estimate = predictor.predict(PrunePlan())
    assert sum(estimate.per_layer_cycles.values()) == pytest.approx(estimate.total_cycles)
    assert estimate.total_ns is None
    assert estimate.per_layer_ns is None
    timed = dataclasses.replace(estimate, clock_mhz=2000)
    assert timed.total_ns == pytest.approx(estimate.total_cycles / 2)
    assert timed.per_layer_ns == {layer: cycles / 2 for layer, cycles in estimate.per_layer_cycles.items()}


def test_layers_have_the_names_of_the_network(subject: Subject) -> None:
    checkpoint, predictor, _ = subject
    layers = predictor.predict(PrunePlan()).per_layer_cycles
    linear = [
        name for name, each in checkpoint.model.named_modules() if hasattr(each, "weight") and each.weight.ndim > 1
    ]
    assert set(linear) <= set(layers)


def test_the_board_and_the_origin_of_its_costs_are_named(subject: Subject) -> None:
    _, predictor, _ = subject
    unit = LatencyCosts(predictor).unit
    assert BOARD in unit
    assert "estimated" in unit
