from __future__ import annotations

from functools import partial

import pytest
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.layer.attention import (
    ChannelQKAttention,
    QKAttention,
    SpikeDrivenSelfAttention,
    SpikingSelfAttention,
    TokenQKAttention,
)
from torch import nn

from svitkit.models.attention import free_widths, separate_widths
from svitkit.models.run import forward_spikes

LAYERS = {
    "self": SpikingSelfAttention,
    "tokens": partial(QKAttention, qka_type="token"),
    "channels": partial(QKAttention, qka_type="channel"),
    "token class": TokenQKAttention,
    "channel class": ChannelQKAttention,
    "spike driven": SpikeDrivenSelfAttention,
}


class Lone(nn.Module):
    """One attention as a network: logits are the sums over its tokens."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.attention, SpikeDrivenSelfAttention):
            x = x.flatten(3)
        return self.attention(x).flatten(3).sum(3)


def lively(kind: str) -> Lone:
    torch.manual_seed(0)
    model = Lone(LAYERS[kind](16, num_heads=4)).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=0.5)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.8)
    functional.set_step_mode(model, "m")
    return model


@pytest.mark.parametrize("kind", LAYERS)
def test_attention_of_free_width_computes_what_spikingjellys_computes(kind: str) -> None:
    x = 2.0 * (torch.rand(4, 3, 16, 3, 5, generator=torch.Generator().manual_seed(1)) < 0.3)
    model = lively(kind)
    wanted, spikes = forward_spikes(model, x)
    names = set(model.state_dict())
    for step in (free_widths, separate_widths):
        step(model)
        assert type(model.attention).__module__ == "svitkit.models.attention"
        got, free_spikes = forward_spikes(model, x)
        assert torch.equal(got, wanted)
        assert set(model.state_dict()) == names
        assert list(free_spikes) == list(spikes)
        for name, fired in spikes.items():
            assert 0.02 < float(fired.mean()) < 0.98
            assert torch.equal(free_spikes[name].flatten(), fired.flatten())


def test_a_class_derived_from_spikingjellys_is_left_alone() -> None:
    class Derived(QKAttention):
        pass

    model = nn.Sequential(Derived(8, num_heads=2))
    free_widths(model)
    assert type(model[0]) is Derived
