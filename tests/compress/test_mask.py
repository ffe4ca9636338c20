from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.mask import silence
from svitkit.models.checkpoint import Checkpoint, build_model
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import forward_logits, forward_spikes
from tests.compress.networks import FAMILIES, firing_checkpoint, groups_of, probe


def prune_everything(family: str, checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The network without half of every group, streams and heads too, and the one where that half is silent."""
    groups = groups_of(family, residual_widths=True, heads=True).values()
    assert all(found.prunable for found in groups)
    masked = model = checkpoint.model.to(dtype)
    chosen = []
    for found in groups:
        pruned = keep_strongest(found.group, filter_norms(model, found), 0.5, multiple=1)
        assert pruned is not None
        masked = silence(masked, found.producers, pruned.removed())
        chosen.append(pruned)
    smaller = copy.deepcopy(model)
    apply_plan(smaller, PrunePlan(groups=tuple(chosen)))
    return smaller, masked


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_smaller_network_computes_what_the_masked_one_computes(
    family: str, dtype: torch.dtype, tolerance: float
) -> None:
    checkpoint = firing_checkpoint(family)
    smaller, masked = prune_everything(family, checkpoint, dtype)
    x = probe(checkpoint.spec).to(dtype)
    got, spikes = forward_spikes(smaller, x)
    wanted, silent = forward_spikes(masked, x)
    with torch.no_grad():
        whole = forward_logits(checkpoint.model, x)
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
    assert (wanted - whole).abs().max() > 100 * tolerance
    assert list(spikes) == list(silent)
    for name, fired in spikes.items():
        assert torch.equal(fired.flatten(2).sum(2), silent[name].flatten(2).sum(2))
    assert sum(float(layer.mean()) > 0 for layer in spikes.values()) > 0.8 * len(spikes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_group_can_be_pruned_alone(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    x = probe(checkpoint.spec).double()
    model = checkpoint.model.double()
    for entry in groups_of(family, residual_widths=True, heads=True).values():
        pruned = keep_strongest(entry.group, filter_norms(model, entry), 0.5, multiple=1)
        assert pruned is not None
        smaller = copy.deepcopy(model)
        apply_plan(smaller, PrunePlan(groups=(pruned,)))
        with torch.no_grad():
            wanted = forward_logits(silence(model, entry.producers, pruned.removed()), x)
            torch.testing.assert_close(forward_logits(smaller, x), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_parameter_of_the_smaller_network_is_a_mask(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    found = next(iter(groups_of(family, residual_widths=True, heads=True).values()))
    pruned = keep_strongest(found.group, filter_norms(checkpoint.model, found), 0.5, multiple=1)
    assert pruned is not None
    smaller = build_model(checkpoint.spec)
    names = set(smaller.state_dict())
    apply_plan(smaller, PrunePlan(groups=(pruned,)))
    assert set(smaller.state_dict()) == names
    for member in found.group.members:
        before = checkpoint.model.state_dict()[member.tensor].shape[member.dim]
        gone = len(member.offsets) * member.inner * len(pruned.removed())
        assert smaller.state_dict()[member.tensor].shape[member.dim] == before - gone
