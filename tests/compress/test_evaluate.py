from __future__ import annotations

import pytest
import torch
from torch import nn

from svitkit.compress.evaluate import Candidates, load_batches
from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.data import Dataset, load_data
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunePlan
from svitkit.models.run import example_input
from tests.compress.networks import firing_checkpoint


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def checkpoint(digits: Dataset) -> Checkpoint:
    return firing_checkpoint("spikformer", digits)


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
