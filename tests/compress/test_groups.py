from __future__ import annotations

from functools import cache

import pytest
import torch

from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.errors import UnsupportedError
from svitkit.models.run import example_input
from tests.compress.networks import OwnNetwork, firing_checkpoint

INPUT = torch.zeros(2, 1, 1, 6, 6)


@cache
def groups_of(family: str, residual_widths: bool = False) -> dict[str, FoundGroup]:
    checkpoint = firing_checkpoint(family)
    groups = find_groups(checkpoint.model, example_input(checkpoint.spec), residual_widths=residual_widths)
    return {found.group.name: found for found in groups}


def prunable(groups: dict[str, FoundGroup]) -> dict[str, tuple[int, int]]:
    return {name: (g.group.channels, g.group.blocks) for name, g in groups.items() if g.prunable}


def own(**options: object) -> dict[str, FoundGroup]:
    model = OwnNetwork(**options).eval()  # type: ignore[arg-type]
    return {found.group.name: found for found in find_groups(model, INPUT)}


def test_spikformer_gives_its_stem_its_heads_and_its_mlp() -> None:
    assert prunable(groups_of("spikformer")) == {
        "patch_embed.stages.0.conv_bn.block.0": (4, 1),
        "patch_embed.stages.1.conv_bn.block.0": (8, 1),
        "patch_embed.stages.2.conv_bn.block.0": (16, 1),
        "blocks.0.attn.qkv_conv_bn.0": (32, 4),
        "blocks.0.mlp.fc1.0": (128, 1),
    }


def test_the_fused_projection_loses_the_same_channel_of_q_k_and_v_and_the_column_that_reads_it() -> None:
    members = groups_of("spikformer")["blocks.0.attn.qkv_conv_bn.0"].group.members
    axes = {(m.tensor.removeprefix("blocks.0.attn."), m.dim): (m.offsets, m.inner) for m in members}
    assert axes[("qkv_conv_bn.0.weight", 0)] == ((0, 32, 64), 1)
    assert axes[("qkv_conv_bn.1.running_var", 0)] == ((0, 32, 64), 1)
    assert axes[("proj_conv_bn.0.weight", 1)] == ((0,), 1)
    assert len(axes) == 6


def test_the_size_of_a_group_counts_rows_folded_biases_and_columns() -> None:
    assert groups_of("spikformer")["blocks.0.mlp.fc1.0"].size_bytes == 4 * 128 * (32 + 1 + 32)


def test_spike_driven_attention_is_pruned_in_q_k_v_and_the_projection_at_once_without_heads() -> None:
    groups = groups_of("spike-driven-transformer")
    assert prunable(groups) == {
        "patch_embed.stages.0.0": (4, 1),
        "patch_embed.stages.1.0": (8, 1),
        "patch_embed.stages.2.0": (16, 1),
        "blocks.0.attn.q_conv": (32, 1),
        "blocks.0.mlp.fc1": (128, 1),
    }
    weights = [m.tensor for m in groups["blocks.0.attn.q_conv"].group.members if m.tensor.endswith("conv.weight")]
    assert weights == [f"blocks.0.attn.{name}_conv.weight" for name in ("q", "k", "v", "proj")]


def test_the_first_convolution_of_qkformer_feeds_the_second_and_the_shortcut_in_one_group() -> None:
    groups = groups_of("qkformer")
    consumers = {member.tensor for member in groups["patch_embed1.conv1"].consumers}
    assert consumers == {"patch_embed1.conv2.weight", "patch_embed1.shortcut.0.weight"}
    assert prunable(groups)["stage3.0.attn.qkv_conv_bn.0"] == (64, 4)
    assert prunable(groups)["stage1.0.attn.qk_conv_bn.0"] == (16, 2)


STREAMS = {
    "spikformer": {"patch_embed.stages.3.conv_bn.block.0": 32},
    "spike-driven-transformer": {"patch_embed.final_stage.0": 32},
    "qkformer": {"patch_embed1.conv3": 16, "patch_embed2.conv2": 32, "patch_embed3.conv2": 64},
}


@pytest.mark.parametrize("family", STREAMS)
def test_a_residual_stream_is_one_group_and_not_prunable_unless_asked_for(family: str) -> None:
    streams = {name: found for name, found in groups_of(family).items() if found.residual}
    assert {name: found.group.channels for name, found in streams.items()} == STREAMS[family]
    assert all("residual" in str(found.reason) for found in streams.values())
    assert all(len(found.group.members) > 20 for found in streams.values())


@pytest.mark.parametrize("family", STREAMS)
def test_a_residual_stream_is_pruned_through_every_layer_of_its_stage(family: str) -> None:
    groups = groups_of(family, residual_widths=True)
    assert all(found.prunable for found in groups.values())
    assert {name for name, found in groups.items() if found.residual} == set(STREAMS[family])
    without = groups_of(family)
    assert {n: g.group for n, g in groups.items()} == {n: g.group for n, g in without.items()}


def test_a_users_class_with_separate_projections_couples_q_with_k_and_v_with_the_output() -> None:
    groups = own()
    assert prunable(groups) == {"widen": (12, 1), "q": (8, 2), "v": (8, 2)}
    assert {member.tensor for member in groups["q"].group.members} == {"q.weight", "k.weight"}
    assert {member.tensor for member in groups["v"].group.members} == {"v.weight", "out.weight"}
    assert {member.tensor for member in groups["widen"].consumers} == {"narrow.weight"}
    assert "mix.weight" in {member.tensor for member in groups["widen"].producers}


def test_a_head_size_written_into_the_code_makes_a_users_attention_unprunable() -> None:
    groups = own(head_size=4)
    assert not groups["q"].prunable
    assert groups["widen"].prunable


def test_neurons_that_fire_without_input_make_a_removal_differ_from_silence() -> None:
    assert "more than silencing" in str(own(threshold=-1.0)["widen"].reason)


def test_a_forward_pass_that_branches_on_values_is_refused_with_a_reason() -> None:
    class Branching(OwnNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(UnsupportedError, match=r"cannot be traced by torch\.export"):
        find_groups(Branching().eval(), INPUT)


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    model = OwnNetwork().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_groups(model, INPUT)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_filters_of_a_group_are_the_rows_that_produce_it() -> None:
    groups = groups_of("spikformer")
    assert groups["blocks.0.mlp.fc1.0"].filter_bytes == 4 * 128 * 32
    assert groups["blocks.0.attn.qkv_conv_bn.0"].filter_bytes == 4 * 3 * 32 * 32
    assert all((group.filter_bytes > 0) == group.prunable for group in groups.values())
