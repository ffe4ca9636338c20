"""Channels without effect: what counts as one, and that their removal changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from svitkit.compress import dead_channels
from svitkit.compress.dead_channels import remove_dead_channels
from svitkit.data import Dataset
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import forward_spikes
from tests.compress.networks import firing_checkpoint, probe

HIDDEN = "blocks.0.mlp.fc1.0"


@pytest.fixture(autouse=True)
def any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets single channels go."""
    monkeypatch.setattr(dead_channels, "MULTIPLE", 1)


@pytest.fixture
def network(digits: Dataset) -> Checkpoint:
    return firing_checkpoint("spikformer", digits)


def images(network: Checkpoint) -> torch.Tensor:
    return probe(network.spec)


def weight(model: nn.Module, layer: str) -> torch.Tensor:
    return model.get_parameter(f"{layer}.weight").data


def test_where_nothing_is_dead_the_network_stays_as_it_is(network: Checkpoint) -> None:
    removal = remove_dead_channels(network.model, images(network))
    assert removal.model is network.model
    assert not removal.plan.groups
    assert not removal.widths


def test_channels_that_nothing_reads_go(network: Checkpoint) -> None:
    weight(network.model, "blocks.0.mlp.fc2.0")[:, [3, 5]] = 0
    logits, spikes = forward_spikes(network.model, images(network))
    removal = remove_dead_channels(network.model, images(network))
    assert removal.widths == {HIDDEN: (128, 126)}
    (pruned,) = removal.plan.groups
    assert pruned.removed() == (3, 5)
    smaller, fewer = forward_spikes(removal.model, images(network))
    torch.testing.assert_close(smaller, logits)
    kept = list(pruned.kept)
    for name, before in spikes.items():
        same = before[:, :, kept] if before.shape != fewer[name].shape else before
        assert torch.equal(same, fewer[name]), name


def silence(model: nn.Module, layer: str, norm: str, channels: list[int], current: float) -> None:
    """Gives channels no weights and a constant current."""
    weight(model, layer)[channels] = 0
    module = model.get_submodule(norm)
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    assert module.running_mean is not None
    module.running_mean[channels] = 0
    module.bias.data[channels] = current
    bias = getattr(model.get_submodule(layer), "bias", None)
    if bias is not None:
        bias.data[channels] = 0


def test_channels_whose_constant_current_never_reaches_the_threshold_go(network: Checkpoint) -> None:
    silence(network.model, HIDDEN, "blocks.0.mlp.fc1.1", [1, 7], current=0.1)
    removal = remove_dead_channels(network.model, images(network))
    assert [pruned.removed() for pruned in removal.plan.groups] == [(1, 7)]


def test_channels_whose_constant_current_makes_them_fire_stay(network: Checkpoint) -> None:
    silence(network.model, HIDDEN, "blocks.0.mlp.fc1.1", [1, 7], current=5.0)
    assert not remove_dead_channels(network.model, images(network)).plan.groups


def test_a_silent_image_alone_is_no_proof(network: Checkpoint) -> None:
    module = network.model.get_submodule("blocks.0.mlp.fc1.1")
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    module.bias.data[4] = -1000.0  # silent on these images, by weights that are not 0
    assert not remove_dead_channels(network.model, images(network)).plan.groups


@pytest.mark.parametrize(("dead", "left"), [(7, 128), (8, 120), (23, 112)])
def test_what_is_left_divides_by_the_multiple(
    network: Checkpoint, monkeypatch: pytest.MonkeyPatch, dead: int, left: int
) -> None:
    monkeypatch.setattr(dead_channels, "MULTIPLE", 8)
    weight(network.model, "blocks.0.mlp.fc2.0")[:, :dead] = 0
    widths = remove_dead_channels(network.model, images(network)).widths
    assert widths == ({} if left == 128 else {HIDDEN: (128, left)})


def test_a_layer_that_is_dead_throughout_keeps_one_channel(network: Checkpoint) -> None:
    weight(network.model, "blocks.0.mlp.fc2.0")[:] = 0
    assert remove_dead_channels(network.model, images(network)).widths == {HIDDEN: (128, 1)}


def test_what_a_removal_leaves_without_reader_goes_in_the_next_pass(network: Checkpoint) -> None:
    first, second, third = (f"patch_embed.stages.{index}.conv_bn.block.0" for index in range(3))
    weight(network.model, third)[:, 2] = 0  # nothing reads channel 2 of the second, which alone reads channel 0
    weight(network.model, second)[:, 0] = 0
    weight(network.model, second)[2, 0] = 1
    removal = remove_dead_channels(network.model, images(network))
    assert removal.widths == {second: (8, 7), first: (4, 3)}
    assert removal.plan.before is not None
