"""A Spiking Vision Transformer that svitkit has never seen: no name, layer or block of it is a family's.

Two stages. In the first a convolution of two groups mixes the frame, and one ``Linear`` gives the attention's q, k and
v, which ``unbind`` takes apart. In the second ``select`` does so, and ``einsum`` computes (q k^T) v, whose scale is a
buffer. Both have membrane shortcuts (currents are added, not spikes), a depthwise convolution inside the MLP and a
positional parameter. Max pooling stands between them, average pooling before the head.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn


def fire(v_threshold: float = 1.0) -> neuron.LIFNode:
    return neuron.LIFNode(tau=2.0, v_threshold=v_threshold, detach_reset=True, step_mode="m")


class Norm(nn.Module):
    """Batch norm over the last axis of (T, B, N, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class UnboundAttention(nn.Module):
    """((q k^T) v) over heads; q, k and v come out of one layer and are taken apart along the axis of three."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.n_heads = heads
        self.enter = fire()
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.norm = Norm(3 * inner)
        self.spike = fire()
        self.register_buffer("scale", torch.tensor(0.25))
        self.mixed = fire(0.5)
        self.leave = nn.Linear(inner, width, bias=False)
        self.leave_norm = Norm(width)

    def apart(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return qkv.unbind(0)

    def mix(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(-2, -1)) @ v * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.spike(self.norm(self.to_qkv(self.enter(x))))
        steps, batch, tokens, _ = qkv.shape
        qkv = qkv.reshape(steps, batch, tokens, 3, self.n_heads, -1).permute(3, 0, 1, 4, 2, 5)
        mixed = self.mixed(self.mix(*self.apart(qkv)))
        return x + self.leave_norm(self.leave(mixed.transpose(2, 3).flatten(3)))


class SelectedAttention(UnboundAttention):
    """The same, written with ``select`` and ``einsum``."""

    def apart(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return qkv[0], qkv[1], qkv[2]

    def mix(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.einsum("tbhnd,tbhmd->tbhnm", q, k)
        return torch.einsum("tbhnm,tbhmd->tbhnd", scores, v) * self.scale


class Mixer(nn.Module):
    """An MLP with a depthwise convolution in its hidden layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = fire()
        self.up = layer.Conv2d(width, hidden, 1, bias=False, step_mode="m")
        self.up_norm = layer.BatchNorm2d(hidden, step_mode="m")
        self.up_spike = fire()
        self.local = layer.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False, step_mode="m")
        self.local_norm = layer.BatchNorm2d(hidden, step_mode="m")
        self.local_spike = fire()
        self.down = layer.Conv2d(hidden, width, 1, step_mode="m")
        self.down_norm = layer.BatchNorm2d(width, step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up_spike(self.up_norm(self.up(self.enter(x))))
        hidden = self.local_spike(self.local_norm(self.local(hidden)))
        return x + self.down_norm(self.down(hidden))


class Stage(nn.Module):
    """A convolution to the stage's width, a place for every token, attention, and an MLP."""

    def __init__(self, before: int, width: int, side: int, attention: UnboundAttention) -> None:
        super().__init__()
        self.grow = layer.Conv2d(before, width, 3, padding=1, step_mode="m")
        self.grow_norm = layer.BatchNorm2d(width, step_mode="m")
        self.place = nn.Parameter(0.1 * torch.randn(1, 1, side * side, width))
        self.attend = attention
        self.mixer = Mixer(width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grow_norm(self.grow(x))
        side = x.shape[-1]
        tokens = self.attend(x.flatten(3).transpose(2, 3) + self.place)
        return self.mixer(tokens.transpose(2, 3).unflatten(3, (side, side)))


class Kestrel(nn.Module):
    """Takes (T, B, 1, side, side) float32 and returns (T, B, classes)."""

    def __init__(self, side: int = 16, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.look = layer.Conv2d(1, width, 3, padding=1, step_mode="m")
        self.look_norm = layer.BatchNorm2d(width, step_mode="m")
        self.look_spike = fire()
        self.pairs = layer.Conv2d(width, width, 3, padding=1, groups=2, step_mode="m")
        self.pairs_norm = layer.BatchNorm2d(width, step_mode="m")
        self.pairs_spike = fire()
        self.pool = layer.MaxPool2d(2, 2, step_mode="m")
        self.first = Stage(width, width, side // 2, UnboundAttention(width, 24, heads=2))
        self.between = fire()
        self.second = Stage(width, 2 * width, side // 4, SelectedAttention(2 * width, 32, heads=4))
        self.last = fire()
        self.average = layer.AdaptiveAvgPool2d(1, step_mode="m")
        self.classify = layer.Linear(2 * width, classes, step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.look_spike(self.look_norm(self.look(x)))
        x = self.pool(self.pairs_spike(self.pairs_norm(self.pairs(x))))
        x = self.pool(self.between(self.first(x)))
        x = self.last(self.second(x))
        return self.classify(self.average(x).flatten(2))
