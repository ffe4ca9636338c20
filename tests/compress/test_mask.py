from __future__ import annotations

import copy

import pytest
import torch

from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.mask import silence
from svitkit.models.checkpoint import build_model
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import example_input, forward_logits, forward_spikes
from tests.compress.networks import FAMILIES, firing_checkpoint, probe


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_smaller_network_computes_what_the_masked_one_computes(
    family: str, dtype: torch.dtype, tolerance: float
) -> None:
    checkpoint = firing_checkpoint(family)
    model = checkpoint.model.to(dtype)
    groups = find_groups(model.float(), example_input(checkpoint.spec), residual_widths=True)
    assert all(found.prunable for found in groups)
    model = model.to(dtype)
    masked, chosen = model, []
    for found in groups:
        pruned = keep_strongest(found.group, filter_norms(model, found), 0.5, multiple=1)
        assert pruned is not None
        masked = silence(masked, found.producers, pruned.removed())
        chosen.append(pruned)
    smaller = copy.deepcopy(model)
    apply_plan(smaller, PrunePlan(groups=tuple(chosen)))
    x = probe(checkpoint.spec).to(dtype)
    with torch.no_grad():
        got, wanted, whole = (forward_logits(network, x) for network in (smaller, masked, model))
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
    assert (wanted - whole).abs().max() > 100 * tolerance
    _, spikes = forward_spikes(smaller, x)
    assert sum(float(layer.mean()) > 0 for layer in spikes.values()) > 0.8 * len(spikes)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_parameter_of_the_smaller_network_is_a_mask(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    found = next(g for g in find_groups(checkpoint.model, example_input(checkpoint.spec)) if g.prunable)
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
