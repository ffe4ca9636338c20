from __future__ import annotations

import pytest
import torch

from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.errors import UnsupportedError
from svitkit.models.families import build_family
from tests.compress.networks import FAMILIES, OwnNetwork, groups_of

INPUT = torch.zeros(2, 1, 1, 6, 6)


def prunable(groups: dict[str, FoundGroup]) -> dict[str, tuple[int, int]]:
    return {name: (g.group.channels, g.group.blocks) for name, g in groups.items() if g.prunable}


def own(**options: object) -> dict[str, FoundGroup]:
    model = OwnNetwork(**options).eval()  # type: ignore[arg-type]
    return {found.group.name: found for found in find_groups(model, INPUT)}


QKV = "blocks.0.attn.qkv_conv_bn.0"
Axes = dict[tuple[str, int], tuple[tuple[int, ...], int]]


def axes_of(found: FoundGroup) -> Axes:
    return {(m.tensor.removeprefix("blocks.0.attn."), m.dim): (m.offsets, m.inner) for m in found.group.members}


def test_spikformer_gives_its_stem_its_attention_and_its_mlp() -> None:
    assert prunable(groups_of("spikformer")) == {
        "patch_embed.stages.0.conv_bn.block.0": (4, 1),
        "patch_embed.stages.1.conv_bn.block.0": (8, 1),
        "patch_embed.stages.2.conv_bn.block.0": (16, 1),
        f"{QKV}[0:64]": (32, 4),
        f"{QKV}[64:96]": (32, 4),
        "blocks.0.mlp.fc1.0": (128, 1),
    }


def test_q_and_k_of_a_fused_projection_are_one_group_and_v_with_the_column_that_reads_it_another() -> None:
    groups = groups_of("spikformer")
    axes = axes_of(groups[f"{QKV}[0:64]"])
    assert axes[("qkv_conv_bn.0.weight", 0)] == ((0, 32), 1)
    assert axes[("qkv_conv_bn.1.running_var", 0)] == ((0, 32), 1)
    assert len(axes) == 5
    axes = axes_of(groups[f"{QKV}[64:96]"])
    assert axes[("qkv_conv_bn.0.weight", 0)] == ((64,), 1)
    assert axes[("proj_conv_bn.0.weight", 1)] == ((0,), 1)
    assert len(axes) == 6


def test_heads_are_groups_where_that_is_asked_for_and_take_the_widths_inside_along() -> None:
    groups = groups_of("spikformer", heads=True)
    heads = [found for found in groups.values() if found.heads]
    assert [(found.group.name, found.group.channels, found.prunable) for found in heads] == [(f"{QKV} heads", 4, True)]
    axes = axes_of(heads[0])
    assert axes[("qkv_conv_bn.0.weight", 0)] == ((0, 32, 64), 8)
    assert axes[("proj_conv_bn.0.weight", 1)] == ((0,), 8)
    assert heads[0].group.attributes == tuple(f"blocks.0.attn.{n}" for n in ("num_heads", "qk_width", "v_width"))
    assert groups[f"{QKV}[64:96]"].group.attributes == ("blocks.0.attn.v_width",)
    assert {name for name in groups if not groups[name].heads} == set(groups_of("spikformer"))


def test_every_stage_of_qkformer_has_heads_and_the_spike_driven_transformer_has_none() -> None:
    names = [name for name, found in groups_of("qkformer", heads=True).items() if found.heads and found.prunable]
    layers = ("stage1.0.attn.qk_conv_bn.0", "stage2.0.attn.qk_conv_bn.0", "stage3.0.attn.qkv_conv_bn.0")
    assert names == [f"{layer} heads" for layer in layers]
    assert not any(found.heads for found in groups_of("spike-driven-transformer", heads=True).values())


def test_the_mask_of_tokens_and_what_it_masks_have_widths_of_their_own() -> None:
    groups = groups_of("qkformer")
    q, k = (groups[f"stage1.0.attn.qk_conv_bn.0[{rows}]"] for rows in ("0:16", "16:32"))
    assert not q.consumers
    assert [member.tensor for member in k.consumers] == ["stage1.0.attn.proj_conv_bn.0.weight"]


def test_a_mask_of_channels_has_the_width_of_what_it_masks() -> None:
    arguments = {**FAMILIES["qkformer"], "qka_type": "channel"}
    model = build_family("qkformer", arguments).eval()
    groups = {found.group.name: found for found in find_groups(model, torch.zeros(2, 1, 1, 32, 32), heads=True)}
    assert prunable(groups)["stage1.0.attn.qk_conv_bn.0"] == (16, 1)
    assert "stage1.0.attn.qk_conv_bn.0 heads" not in groups


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


def test_a_number_of_heads_that_a_module_stores_follows_the_heads() -> None:
    groups = {found.group.name: found for found in find_groups(OwnNetwork().eval(), INPUT, heads=True)}
    assert groups["q heads"].prunable
    assert groups["q heads"].group.attributes == ("heads",)
    assert {m.tensor for m in groups["q heads"].group.members} == {f"{n}.weight" for n in ("q", "k", "v", "out")}


def test_a_head_size_that_a_module_stores_for_several_widths_makes_them_one_group() -> None:
    groups = own(head_size=4)
    assert prunable(groups) == {"widen": (12, 1), "q and 1 more": (8, 2)}
    together = groups["q and 1 more"].group
    assert together.attributes == ("head_size",)
    assert {member.tensor for member in together.members} == {f"{name}.weight" for name in ("q", "k", "v", "out")}


def test_a_head_size_written_into_the_code_makes_a_users_attention_unprunable() -> None:
    class Written(OwnNetwork):
        def split(self, x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (2, 4)).transpose(2, 3)

    groups = {found.group.name: found for found in find_groups(Written().eval(), INPUT)}
    assert "does not adapt" in str(groups["q"].reason)
    assert "does not adapt" in str(groups["v"].reason)
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
    model(INPUT)  # potentials that gradients hang on
    find_groups(model, INPUT)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_filters_of_a_group_are_the_rows_that_produce_it() -> None:
    groups = groups_of("spikformer")
    assert groups["blocks.0.mlp.fc1.0"].filter_bytes == 4 * 128 * 32
    assert groups[f"{QKV}[0:64]"].filter_bytes == 4 * 2 * 32 * 32
    assert all((group.filter_bytes > 0) == group.prunable for group in groups.values())
