"""Removing channels: hand-made networks, equality with masking, and every refusal."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from spikingjelly.activation_based import layer
from torch import nn

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.manifest import from_json, to_json
from svitkit.models.families import build_family
from svitkit.models.liven import liven
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan, plan_sha256
from svitkit.models.run import forward_logits


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)
    ).eval()


def chain_group(blocks: int = 1) -> PruneGroup:
    tensors = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"]
    members = [Member(tensor=name, dim=0) for name in tensors]
    return PruneGroup(name="0", channels=6, blocks=blocks, members=(*members, Member(tensor="3.weight", dim=1)))


def plan_of(group: PruneGroup, *kept: int) -> PrunePlan:
    return PrunePlan(groups=(PrunedGroup(group=group, kept=kept),))


def test_removed_channels_leave_every_tensor_and_every_attribute() -> None:
    model = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    apply_plan(model, plan_of(chain_group(), 0, 3, 5))
    kept = [0, 3, 5]
    for name in ("0.weight", "0.bias", "1.weight", "1.running_var", "2.weight"):
        assert torch.equal(model.state_dict()[name], before[name][kept])
    assert torch.equal(model.state_dict()["3.weight"], before["3.weight"][:, kept])
    assert (model[0].in_channels, model[0].out_channels, model[1].num_features) == (2, 3, 3)
    assert (model[2].in_channels, model[2].out_channels, model[2].groups) == (3, 3, 3)
    assert (model[3].in_channels, model[3].out_channels) == (3, 4)


def test_a_group_of_absurdly_many_channels_or_blocks_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1048576"):
        replace(chain_group(), channels=1 << 60)
    with pytest.raises(ConfigError, match=r"its 1048576 blocks must keep equally many channels, got \[1, 0, 0"):
        apply_plan(chain(), plan_of(replace(chain_group(), channels=1 << 20, blocks=1 << 20), 0))


def test_the_smaller_network_computes_what_the_masked_one_computes() -> None:
    masked, small = chain(), chain()
    x = torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        masked[3].weight[:, [1, 2, 4]] = 0
        apply_plan(small, plan_of(chain_group(), 0, 3, 5))
        assert torch.allclose(masked(x), small(x), atol=1e-6)


def test_offsets_and_inner_widths_name_the_rows_of_a_fused_projection() -> None:
    model = nn.Sequential(nn.Linear(2, 12, bias=False))
    rows = model[0].weight.detach().clone()
    member = Member(tensor="0.weight", dim=0, offsets=(0, 6), inner=2)
    apply_plan(model, plan_of(PruneGroup(name="g", channels=3, members=(member,)), 0, 2))
    assert torch.equal(model[0].weight, rows[[0, 1, 4, 5, 6, 7, 10, 11]])
    assert model[0].out_features == 8


def test_a_hidden_layer_of_a_trained_shape_equals_its_mask() -> None:
    arguments = {"in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 10, "embed_dims": 32}
    x = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    masked = build_family("spikformer", arguments)
    liven(masked, x)
    small = build_family("spikformer", arguments).eval()
    small.load_state_dict(masked.state_dict())
    fc1 = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    members = [Member(tensor=f"blocks.0.mlp.fc1.{name}", dim=0) for name in fc1]
    group = PruneGroup(name="fc1", channels=128, members=(*members, Member(tensor="blocks.0.mlp.fc2.0.weight", dim=1)))
    kept = tuple(range(0, 128, 3))
    apply_plan(small, plan_of(group, *kept))
    gone = [index for index in range(128) if index not in kept]
    with torch.no_grad():
        whole = forward_logits(masked, x)
        masked.blocks[0].mlp.fc2[0].weight[:, gone] = 0
        assert torch.allclose(forward_logits(masked, x), forward_logits(small, x), atol=1e-5)
        assert not torch.allclose(whole, forward_logits(small, x), atol=1e-5)


@pytest.mark.parametrize(
    ("kept", "blocks", "says"),
    [
        ((), 1, "keeps no channel"),
        ((3, 1), 1, "ascend"),
        ((1, 1), 1, "ascend"),
        ((0, 6), 1, "keeps channel 6 of 6"),
        ((-1, 2), 1, "keeps channel -1"),
        ((0, 1, 3), 2, "equally many"),
        ((0, 1), 4, "do not divide"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(kept: tuple[int, ...], blocks: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        apply_plan(chain(), plan_of(chain_group(blocks), *kept))


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (Member(tensor="9.weight", dim=0), "no tensor '9.weight'"),
        (Member(tensor="0.nothing", dim=0), "no tensor '0.nothing'"),
        (Member(tensor="0.weight", dim=4), "no axis 4"),
        (Member(tensor="0.weight", dim=0, offsets=(1,)), "reaches index 6"),
        (Member(tensor="0.weight", dim=0, offsets=(-1,)), "zero or more"),
        (Member(tensor="0.weight", dim=0), "'bias' has 6 entries"),
    ],
)
def test_a_plan_that_does_not_fit_the_network_is_refused(member: Member, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        apply_plan(chain(), plan_of(PruneGroup(name="g", channels=6, members=(member,)), 0, 1))


def test_two_groups_cannot_own_the_same_index() -> None:
    groups = [PruneGroup(name=name, channels=6, members=chain_group().members) for name in "ab"]
    with pytest.raises(ConfigError, match="own the same index"):
        apply_plan(chain(), PrunePlan(groups=tuple(PrunedGroup(group=group, kept=(0,)) for group in groups)))


def heads_and_widths() -> tuple[PruneGroup, PruneGroup]:
    """Three heads of two channels in one linear layer."""
    heads = PruneGroup(name="heads", channels=3, members=(Member(tensor="0.weight", dim=0, inner=2),))
    widths = PruneGroup(name="widths", channels=6, blocks=3, members=(Member(tensor="0.weight", dim=0),))
    return heads, widths


def test_a_head_that_goes_takes_its_channels_along() -> None:
    heads, widths = heads_and_widths()
    model = nn.Sequential(nn.Linear(2, 6, bias=False))
    rows = model[0].weight.detach().clone()
    pruned = (PrunedGroup(group=heads, kept=(0, 2)), PrunedGroup(group=widths, kept=(1, 2, 4)))
    apply_plan(model, PrunePlan(groups=pruned))
    assert torch.equal(model[0].weight, rows[[1, 4]])


def test_heads_that_do_not_cover_the_widths_inside_cannot_share_their_axes() -> None:
    heads, widths = heads_and_widths()
    widths = replace(widths, blocks=2)
    pruned = (PrunedGroup(group=heads, kept=(0,)), PrunedGroup(group=widths, kept=(0, 3)))
    with pytest.raises(ConfigError, match="own the same index"):
        apply_plan(nn.Sequential(nn.Linear(2, 6)), PrunePlan(groups=pruned))


def test_stored_integers_follow_every_group_that_names_them() -> None:
    heads, widths = heads_and_widths()
    model = nn.Sequential(nn.Linear(2, 6, bias=False))
    model.width, model.heads = 6, 3
    heads, widths = replace(heads, attributes=("heads", "width")), replace(widths, attributes=("width",))
    pruned = (PrunedGroup(group=heads, kept=(0, 2)), PrunedGroup(group=widths, kept=(1, 2, 4)))
    apply_plan(model, PrunePlan(groups=pruned))
    assert (model.heads, model.width) == (2, 2)


@pytest.mark.parametrize(
    ("stored", "says"), [(None, "stores no integer 'width'"), (True, "no integer"), (5, "would become 3.33")]
)
def test_an_integer_that_is_missing_or_would_become_a_fraction_is_refused(stored: object, says: str) -> None:
    heads, _ = heads_and_widths()
    model = nn.Sequential(nn.Linear(2, 6))
    if stored is not None:
        model.width = stored
    with pytest.raises(ConfigError, match=says):
        apply_plan(model, plan_of(replace(heads, attributes=("width",)), 0, 2))


def test_a_plan_of_two_rounds_counts_in_what_the_first_leaves() -> None:
    model = chain()
    rows = model[0].weight.detach().clone()
    first = plan_of(chain_group(), 0, 2, 3, 5)
    second = replace(plan_of(replace(chain_group(), channels=4), 1, 3), before=first)
    apply_plan(model, second)
    assert torch.equal(model[0].weight, rows[[2, 5]])
    assert from_json(to_json(second, PrunePlan), PrunePlan, source="here") == second


def test_a_first_round_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="keeps no channel"):
        apply_plan(chain(), replace(plan_of(chain_group(), 0), before=plan_of(chain_group())))


def test_a_group_listed_twice_is_refused() -> None:
    entry = PrunedGroup(group=chain_group(), kept=(0,))
    with pytest.raises(ConfigError, match="twice"):
        apply_plan(chain(), PrunePlan(groups=(entry, entry)))


def test_a_grouped_convolution_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2, bias=False))
    group = PruneGroup(name="g", channels=4, members=(Member(tensor="0.weight", dim=0),))
    with pytest.raises(UnsupportedError, match="layer '0'"):
        apply_plan(model, plan_of(group, 0, 1))


def test_the_hash_of_a_plan_depends_on_what_is_kept() -> None:
    one, other = plan_of(chain_group(), 0, 1), plan_of(chain_group(), 0, 2)
    assert plan_sha256(one) == plan_sha256(plan_of(chain_group(), 0, 1))
    assert plan_sha256(one) != plan_sha256(other)
    assert len(plan_sha256(one)) == 64
