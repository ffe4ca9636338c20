"""Bytes of the parameters as deployed, counted by hand."""

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from svitkit.models.families import build_family
from svitkit.models.size import layer_parameters, parameter_bytes


class Small(nn.Module):
    """A convolution that folds, a lone batch norm, a linear layer with bias, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layer.SeqToANNContainer(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.lif = neuron.LIFNode(step_mode="m")
        self.alone = layer.BatchNorm2d(4, step_mode="m")
        self.dead = nn.Linear(100, 100)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.alone(self.lif(self.conv(x)))
        return self.head(x.flatten(3).mean(-1))


def test_batch_norms_fold_where_they_follow_a_layer_and_dead_layers_do_not_count() -> None:
    x = torch.zeros(2, 1, 1, 5, 5)
    assert layer_parameters(Small(), x) == {"conv.0": 4 * 9 + 4, "alone": 8, "head": 15}
    assert parameter_bytes(Small(), x) == 4 * (40 + 8 + 15)


class Placed(Small):
    """Adds a learned place to every pixel, and holds one that it does not add."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.unread = nn.Parameter(torch.zeros(1, 5, 5)), nn.Parameter(torch.zeros(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + self.place)


def test_parameters_outside_of_layers_count_where_they_are_read() -> None:
    x = torch.zeros(2, 1, 1, 5, 5)
    assert layer_parameters(Placed(), x) == {"conv.0": 4 * 9 + 4, "alone": 8, "head": 15, "": 25}
    assert parameter_bytes(Placed(), x) == 4 * (40 + 8 + 15 + 25)


def test_a_bias_and_a_batch_norm_behind_it_are_one_bias() -> None:
    model = nn.Sequential(layer.Conv2d(1, 4, 3, bias=True, step_mode="m"), layer.BatchNorm2d(4, step_mode="m"), Mean())
    assert parameter_bytes(model, torch.zeros(2, 1, 1, 5, 5)) == 4 * (36 + 4)


class Mean(nn.Module):
    """Logits (T, B, C) of (T, B, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((-2, -1))


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_mode_and_the_statistics_alone(training: bool) -> None:
    model = Small().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameter_bytes(model, torch.ones(2, 1, 1, 5, 5))
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_spikformer_has_one_bias_for_every_folded_batch_norm() -> None:
    arguments = {"in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 10, "embed_dims": 32, "depths": 1}
    model = build_family("spikformer", arguments)
    stem = 9 * (1 * 4 + 4 * 8 + 8 * 16 + 16 * 32 + 32 * 32) + (4 + 8 + 16 + 32 + 32)
    block = 32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32
    assert parameter_bytes(model, torch.zeros(4, 1, 1, 16, 16)) == 4 * (stem + block + 32 * 10 + 10)
