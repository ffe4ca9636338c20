"""The table of layers, against counts by hand and from recorded spikes."""

from dataclasses import replace

import pytest
import torch

from svitkit.data import batches, load_data
from svitkit.inspect_model import LayerRow, inspect_network
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.families import FAMILIES, build_family
from svitkit.models.liven import liven
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_spikes
from svitkit.zoo import ZOO

SPEC = replace(load_checkpoint(ZOO["digits-spikformer"]).spec, original_parameter_bytes=0)


def livened(family: str) -> tuple[Checkpoint, torch.Tensor]:
    heads = (1, 2, 4) if family == "qkformer" else 4
    told = {"in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 10, "embed_dims": 32}
    arguments = {**told, "num_heads": heads}
    torch.manual_seed(0)
    model = build_family(family, arguments)
    x, _ = next(batches(load_data("digits"), "validation", batch_size=4, timesteps=4))
    liven(model, x)
    return Checkpoint(model=model, spec=replace(SPEC, family=family, arguments=arguments)), x


def table(family: str) -> dict[str, LayerRow]:
    return {row.layer: row for row in inspect_network(*livened(family))}


def test_multiplications_of_a_spikformer_are_those_counted_by_hand() -> None:
    rows = table("spikformer")
    first = rows["patch_embed.stages.0.conv_bn.block.0"]
    assert first.macs == 4 * 16 * 16 * 4 * 9
    assert first.spike_rate is None
    assert first.synaptic_operations == first.macs
    assert rows["blocks.0.attn.qkv_conv_bn.0"].macs == 4 * 16 * 32 * 96
    assert rows["blocks.0.attn@0"].macs == rows["blocks.0.attn@1"].macs == 4 * 4 * 16 * 8 * 8
    assert rows["head"].macs == 4 * 32 * 10


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_of_all_rows_are_those_of_the_deployed_network(family: str) -> None:
    checkpoint, x = livened(family)
    rows = inspect_network(checkpoint, x)
    assert 4 * sum(row.parameters for row in rows) == checkpoint.parameter_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_rates_are_those_of_the_recorded_spikes(family: str) -> None:
    checkpoint, x = livened(family)
    _, spikes = forward_spikes(checkpoint.model, x)
    rows = {row.layer: row for row in inspect_network(checkpoint, x)}
    assert [name for name in rows if name in spikes] == list(spikes)
    for name, fired in spikes.items():
        assert rows[name].spike_rate == pytest.approx(float(fired.mean()))
        assert rows[name].kind == "LIFNode"


def test_operations_of_a_layer_are_its_multiplications_times_the_rate_of_its_input() -> None:
    rows = table("spikformer")
    source, layer = rows["patch_embed.stages.0.neuron"], rows["patch_embed.stages.1.conv_bn.block.0"]
    assert layer.spike_rate == source.spike_rate
    assert layer.synaptic_operations == pytest.approx(layer.macs * source.spike_rate)
    assert 0 < layer.synaptic_operations < layer.macs


def test_a_layer_tells_the_share_of_its_zeros() -> None:
    checkpoint, x = livened("spikformer")
    weight = checkpoint.model.get_submodule("head").get_parameter("weight")
    with torch.no_grad():
        weight[:5] = 0
    rows = {row.layer: row for row in inspect_network(checkpoint, x)}
    assert rows["head"].zeros == 0.5
    assert rows["blocks.0.mlp.fc1.0"].zeros == rows["blocks.0.attn@0"].zeros == 0.0


def test_products_of_an_attention_count_where_both_factors_spike() -> None:
    checkpoint, x = livened("spikformer")
    _, spikes = forward_spikes(checkpoint.model, x)
    qkv = spikes["blocks.0.attn.qkv_lif"].reshape(4, 4, 3, 4, 8, 16)
    products = (qkv[:, :, 2] @ qkv[:, :, 1].transpose(-1, -2)).sum() / 4
    row = {row.layer: row for row in inspect_network(checkpoint, x)}["blocks.0.attn@0"]
    assert row.synaptic_operations == pytest.approx(float(products))


def test_no_hook_stays_behind() -> None:
    checkpoint, x = livened("spikformer")
    inspect_network(checkpoint, x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in checkpoint.model.modules())
    assert neuron_layers(checkpoint.model)
