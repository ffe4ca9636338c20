from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from svitkit.compress import reconstruct
from svitkit.compress.eliminate import eliminate
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.compress.layer_rows import linear_layers
from svitkit.compress.moments import Moments, input_moments
from svitkit.compress.reconstruct import Compensation, Reconstruction, readers, removed_outputs
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import forward_logits
from svitkit.models.spec import ModelSpec
from tests.compress.networks import FAMILIES, firing_checkpoint


def _inputs(spec: ModelSpec, images: int = 48, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.timesteps, images, *spec.input_shape, generator=generator)


def _measured(model: nn.Module, inputs: torch.Tensor) -> tuple[list[FoundGroup], dict[str, Moments]]:
    groups = [found for found in find_groups(model, inputs[:, :1], residual_widths=True) if found.prunable]
    return groups, input_moments(model, sorted(readers(groups)), inputs, rows=4000)


def _plan(model: nn.Module, inputs: torch.Tensor, share: float) -> PrunePlan:
    groups, moments = _measured(model, inputs)
    layers = {layer.name: layer for layer in linear_layers(model, inputs[:, :1])}
    kept = (eliminate(model, g, layers, moments).keep(int(g.group.channels * share)) for g in groups)
    return PrunePlan(groups=tuple(pruned for pruned in kept if pruned is not None))


def _distance(model: nn.Module, other: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        return float((forward_logits(model, inputs) - forward_logits(other, inputs)).square().mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repaired_network_is_closer_to_the_original_on_images_it_has_not_seen(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    seen, unseen = _inputs(checkpoint.spec, 128), _inputs(checkpoint.spec, 32, seed=9)
    plan = _plan(checkpoint.model, seen, 0.5)
    pruned = copy.deepcopy(checkpoint.model)
    apply_plan(pruned, plan)
    repaired = copy.deepcopy(pruned)
    Reconstruction(checkpoint.model, seen)(repaired, plan)
    before = _distance(checkpoint.model, pruned, unseen)
    assert _distance(checkpoint.model, repaired, unseen) < 0.7 * before


def test_repair_gives_the_same_network_every_time_and_leaves_the_original_alone() -> None:
    checkpoint = firing_checkpoint("spikformer")
    inputs = _inputs(checkpoint.spec)
    before = copy.deepcopy(checkpoint.model.state_dict())
    plan = _plan(checkpoint.model, inputs, 0.5)
    repair = Reconstruction(checkpoint.model, inputs)
    results = []
    for _ in range(2):
        model = copy.deepcopy(checkpoint.model)
        apply_plan(model, plan)
        repair(model, plan)
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())


def test_nothing_changes_before_the_first_layer_that_lost_inputs() -> None:
    checkpoint = firing_checkpoint("spikformer")
    inputs = _inputs(checkpoint.spec)
    plan = _plan(checkpoint.model, inputs, 0.5)
    last = PrunePlan(groups=tuple(pruned for pruned in plan.groups if "mlp.fc1" in pruned.group.name))
    model = copy.deepcopy(checkpoint.model)
    apply_plan(model, last)
    cut = copy.deepcopy(model.state_dict())
    Reconstruction(checkpoint.model, inputs)(model, last)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, cut[name])}
    assert changed
    assert all(name.startswith(("blocks.0.mlp.fc2", "head")) for name in changed)


class _Reader(nn.Module):
    def __init__(self, *, biased: bool, normed: bool) -> None:
        super().__init__()
        self.made, self.read = nn.Linear(4, 8), nn.Linear(8, 3, bias=biased)
        self.norm = nn.BatchNorm1d(3) if normed else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.made(x.flatten(2)))
        y = self.read(hidden)
        return self.norm(y.flatten(0, 1)).reshape(y.shape)


@pytest.mark.parametrize(("biased", "normed"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_channel_that_repeats_another_is_replaced_exactly(
    biased: bool, normed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruct, "DAMPING", 1e-7)
    torch.manual_seed(0)
    model = _Reader(biased=biased, normed=normed).eval()
    with torch.no_grad():
        model.made.weight[7], model.made.bias[7] = model.made.weight[2], model.made.bias[2]
        if normed:
            model.norm.running_mean.fill_(0.3)
            model.norm.running_var.fill_(0.5)
    inputs = torch.randn(2, 128, 1, 2, 2)
    groups, moments = _measured(model, inputs)
    layers = {layer.name: layer for layer in linear_layers(model, inputs[:, :1])}
    pruned = eliminate(model, groups[0], layers, moments).keep(7)
    assert pruned is not None
    plan = PrunePlan(groups=(pruned,))
    assert plan.groups[0].removed() in ((7,), (2,))
    for repair in (Reconstruction(model, inputs), Compensation(model, layers, moments)):
        smaller = copy.deepcopy(model)
        apply_plan(smaller, plan)
        broken = _distance(model, smaller, inputs)
        repair(smaller, plan)
        assert _distance(model, smaller, inputs) < 1e-4 * broken


def test_removed_outputs_are_counted_in_every_copy() -> None:
    checkpoint = firing_checkpoint("spikformer")
    inputs = _inputs(checkpoint.spec)
    pruned = next(p for p in _plan(checkpoint.model, inputs, 0.5).groups if "qkv" in p.group.name)
    removed = removed_outputs(PrunePlan(groups=(pruned,)))
    made = next(member for member in pruned.group.members if member.tensor.endswith("qkv_conv_bn.0.weight"))
    wanted = {offset + channel for offset in made.offsets for channel in pruned.removed()}
    assert removed[made.tensor] == wanted
    assert len(wanted) == len(made.offsets) * len(pruned.removed()) > 0
