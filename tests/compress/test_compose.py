from __future__ import annotations

import copy
from dataclasses import replace

import torch

from svitkit.compress.compose import compose
from svitkit.compress.groups import find_groups
from svitkit.models.checkpoint import build_model
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.run import example_input, forward_logits
from tests.compress.networks import firing_checkpoint, probe


def plan(name: str, channels: int, kept: tuple[int, ...], *tensors: str) -> PrunePlan:
    members = tuple(Member(tensor=tensor, dim=0) for tensor in tensors)
    return PrunePlan(groups=(PrunedGroup(group=PruneGroup(name=name, channels=channels, members=members), kept=kept),))


def test_the_earlier_plan_comes_before_the_later_one() -> None:
    earlier, later = plan("a", 6, (0, 2, 3, 5), "w"), plan("a", 4, (1, 3), "w")
    assert compose(earlier, later) == PrunePlan(groups=later.groups, before=earlier)


def test_three_rounds_keep_their_order() -> None:
    first, second, third = (plan("a", 6 - at, tuple(range(5 - at)), "w") for at in range(3))
    expected = PrunePlan(groups=third.groups, before=PrunePlan(groups=second.groups, before=first))
    assert compose(compose(first, second), third) == expected
    assert compose(first, compose(second, third)) == expected


def test_an_empty_plan_is_no_round() -> None:
    earlier = plan("a", 4, (0, 1), "w")
    assert compose(earlier, PrunePlan()) == earlier
    assert compose(None, earlier) == earlier


def test_a_network_pruned_twice_is_rebuilt_with_its_heads_and_widths() -> None:
    checkpoint = firing_checkpoint("spikformer")
    model, x = copy.deepcopy(checkpoint.model), example_input(checkpoint.spec)
    whole: PrunePlan | None = None
    for drop in (1, 2):
        groups = [found.group for found in find_groups(model, x, residual_widths=True, heads=True)]
        chosen = []
        for group in groups:
            width = group.channels // group.blocks
            gone = {block * width + (block + drop) % width for block in range(group.blocks)}
            chosen.append(PrunedGroup(group=group, kept=tuple(c for c in range(group.channels) if c not in gone)))
        round_plan = PrunePlan(groups=tuple(chosen))
        apply_plan(model, round_plan)
        whole = compose(whole, round_plan)
    rebuilt = build_model(replace(checkpoint.spec, plan=whole))
    rebuilt.load_state_dict(model.state_dict())
    attention = rebuilt.blocks[0].attn
    assert (attention.num_heads, attention.qk_width, attention.v_width) == (2, 2 * 6, 2 * 6)
    assert attention.qkv_conv_bn[0].weight.shape == (3 * 2 * 6, 30, 1)
    images = probe(checkpoint.spec)
    with torch.no_grad():
        assert torch.equal(forward_logits(rebuilt, images), forward_logits(model, images))
