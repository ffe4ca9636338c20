from __future__ import annotations

import pytest
import torch
from torch import nn

from svitkit.compress.evaluate import Batch, Candidates, load_batches
from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.recalibrate import Recalibration
from svitkit.data import Dataset
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunePlan
from svitkit.models.run import example_input
from tests.compress.networks import own_labels


@pytest.fixture(scope="module")
def validation(checkpoint: Checkpoint, digits: Dataset) -> list[Batch]:
    data = own_labels(checkpoint, digits)
    return load_batches(data, "validation", timesteps=2, seed=0, batch_size=32)


@pytest.fixture(scope="module")
def plan(checkpoint: Checkpoint) -> PrunePlan:
    found = next(g for g in find_groups(checkpoint.model, example_input(checkpoint.spec)) if g.prunable)
    pruned = keep_strongest(found.group, filter_norms(checkpoint.model, found), 0.5, multiple=1)
    assert pruned is not None
    return PrunePlan(groups=(pruned,))


def test_a_repair_sees_the_pruned_network_and_the_plan_and_its_work_is_kept(
    checkpoint: Checkpoint, digits: Dataset, plan: PrunePlan
) -> None:
    seen: list[tuple[int, PrunePlan]] = []

    def repair(model: nn.Module, removed: PrunePlan) -> None:
        seen.append((sum(parameter.numel() for parameter in model.parameters()), removed))
        for parameter in model.parameters():
            parameter.data.zero_()

    validation = load_batches(digits, "validation", timesteps=2, limit=8)
    built = Candidates(checkpoint.model, validation, repair).build(plan)
    whole = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert [removed for _, removed in seen] == [plan]
    assert seen[0][0] < whole
    assert not any(parameter.any() for parameter in built.parameters())
    assert any(parameter.any() for parameter in checkpoint.model.parameters())


def test_the_whole_network_is_not_repaired(checkpoint: Checkpoint, digits: Dataset) -> None:
    def repair(model: nn.Module, removed: PrunePlan) -> None:
        raise AssertionError("nothing was removed")

    validation = load_batches(digits, "validation", timesteps=2, limit=8)
    built = Candidates(checkpoint.model, validation, repair).build(PrunePlan())
    assert all(torch.equal(value, checkpoint.model.state_dict()[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize("repaired", [False, True])
def test_the_fast_way_measures_what_the_plain_way_measures(
    checkpoint: Checkpoint, validation: list[Batch], plan: PrunePlan, repaired: bool
) -> None:
    images = [x for x, _ in validation[:2]]
    plain = Candidates(checkpoint.model, validation, Recalibration(images) if repaired else None)
    repair = Recalibration(images, reuse_bytes=1 << 30) if repaired else None
    fast = Candidates(checkpoint.model, validation, repair, reuse_bytes=1 << 30)
    assert fast.measure(PrunePlan()) == plain.measure(PrunePlan())
    found = plain.measure(plan)
    assert found.accuracy < 90.0
    for floor in (None, found.accuracy, found.accuracy - 1):
        assert fast.measure(plan, floor=floor) == found


def test_the_fast_way_stops_where_the_floor_is_missed_and_says_how_far_it_came(
    checkpoint: Checkpoint, validation: list[Batch], plan: PrunePlan
) -> None:
    fast = Candidates(checkpoint.model, validation, reuse_bytes=0)
    exact = fast.measure(plan)
    assert exact.stopped is None
    found = fast.measure(plan, floor=99.0)
    assert found.stopped is not None
    assert found.stopped.images < sum(len(y) for _, y in validation)
    assert exact.accuracy <= found.accuracy < 99.0
    assert found.stopped.accuracy <= found.accuracy
    assert found.parameter_bytes == exact.parameter_bytes
    plain = Candidates(checkpoint.model, validation)
    assert plain.measure(plan, floor=99.0) == exact
