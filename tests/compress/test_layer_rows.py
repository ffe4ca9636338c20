from __future__ import annotations

import pytest
import torch
from torch import nn

from svitkit.compress.layer_rows import chooser, input_rows, linear_layers, output_rows
from svitkit.models.run import example_input
from tests.compress.networks import FAMILIES, firing_checkpoint

LAYERS = {
    "conv": (nn.Conv2d(3, 5, 3, padding=1, stride=2), (4, 3, 9, 7)),
    "dilated conv": (nn.Conv2d(3, 5, (3, 2), padding=(2, 1), dilation=(2, 1)), (2, 3, 9, 7)),
    "conv over one axis": (nn.Conv1d(6, 4, 3, padding=1), (3, 6, 11)),
    "conv with time ahead": (nn.Conv2d(3, 5, 1), (2, 4, 3, 6, 6)),
    "linear": (nn.Linear(7, 3), (2, 4, 7)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_of_the_output_are_rows_of_the_input_times_the_weights(kind: str) -> None:
    layer, shape = LAYERS[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = layer(x.flatten(0, -4)) if len(shape) == 5 else layer(x)
    take = chooser(kind, 17)
    wanted = input_rows(layer, x, take) @ layer.weight.flatten(1).T + layer.bias
    got = output_rows(layer, y, take)
    assert len(got) <= 17
    torch.testing.assert_close(got, wanted)


def test_a_choice_is_the_same_for_the_same_layer_only() -> None:
    first = chooser("a", 50)(1000)
    assert torch.equal(first, chooser("a", 50)(1000))
    assert not torch.equal(first, chooser("b", 50)(1000))
    assert len(set(first.tolist())) == 50


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_listed_with_the_norm_behind_it(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    layers = linear_layers(checkpoint.model, example_input(checkpoint.spec))
    modules = dict(checkpoint.model.named_modules())
    reached = {name for name, module in modules.items() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)}
    assert {layer.name for layer in layers} == reached
    for layer in layers:
        if layer.norm is None:
            assert layer.name.startswith("head")
        else:
            assert modules[layer.norm].num_features == len(modules[layer.name].weight)
    assert len({layer.norm for layer in layers}) == len(layers)


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice, self.grouped, self.head = nn.Linear(4, 4), nn.Conv1d(4, 4, 1, groups=4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(x.flatten(2)))
        x = self.grouped(x.transpose(1, 2)).transpose(1, 2)
        return self.head(x)


def test_layers_that_run_twice_and_grouped_convolutions_are_left_out() -> None:
    assert [layer.name for layer in linear_layers(_Shared(), torch.zeros(2, 3, 1, 2, 2))] == ["head"]
