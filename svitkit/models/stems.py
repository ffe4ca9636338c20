"""Patch embeddings that the authors trained and spikingjelly's classes do not have.

Sources: the equations of Zhou et al., "Spikformer", ICLR 2023 (Section 3.2, as its authors' code orders pooling and
neurons), and of Zhou et al., "QKFormer", NeurIPS 2024 (Section 3.4, in the form for images of 32x32 pixels).
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import layer
from spikingjelly.activation_based.model.spikformer import SpikformerConv2dBNLIF, SpikformerPatchStem
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn


class PooledSpikes(nn.Module):
    """Convolution, batch norm, neurons, and then max pooling over 3x3 spikes in steps of 2.

    Its tensors have the names of spikingjelly's stage, which pools before the neurons.
    """

    def __init__(self, stage: SpikformerConv2dBNLIF) -> None:
        """Takes the layers of a stage that does not pool."""
        super().__init__()
        self.conv_bn = stage.conv_bn
        self.neuron = stage.neuron
        self.pool = _pool()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes a stage.

        Args:
            x: (T, B, C, H, W) float32, a frame or spikes.

        Returns:
            (T, B, D, ceil(H / 2), ceil(W / 2)) float32 of 0 and 1.
        """
        spikes: torch.Tensor = self.pool(self.neuron(self.conv_bn(x)))
        return spikes


def pool_after_neurons(stem: SpikformerPatchStem) -> None:
    """Makes every pooling stage of a Spikformer's stem pool what its neurons fire, not what they are given.

    Args:
        stem: spikingjelly's stem with fresh weights; its stages are replaced in place.
    """
    for index, stage in enumerate(stem.stages):
        conv, norm, *pools = stage.conv_bn.block
        if pools:
            stage.conv_bn.block = layer.SeqToANNContainer(conv, norm)
            stem.stages[index] = PooledSpikes(stage)


class FullSizeEmbedding(nn.Module):
    """First embedding of QKFormer for small images: two convolutions, a shortcut, and a token for every pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Builds it with fresh weights; the first convolution has half as many channels as the second."""
        super().__init__()
        hidden = out_channels // 2
        self.conv1, self.bn1, self.lif1 = _convolution(in_channels, hidden, 3)
        self.conv2, self.bn2, self.lif2 = _convolution(hidden, out_channels, 3)
        self.shortcut = nn.Sequential(*_convolution(hidden, out_channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the tokens.

        Args:
            x: (T, B, C, H, W) float32, a frame.

        Returns:
            (T, B, D, H, W) float32, sums of two spikes, 0..2.
        """
        x = self.lif1(self.bn1(self.conv1(x)))
        tokens: torch.Tensor = self.lif2(self.bn2(self.conv2(x))) + self.shortcut(x)
        return tokens


class HalvingEmbedding(nn.Module):
    """Later embedding of QKFormer for small images: pools behind the second of its two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Builds it with fresh weights."""
        super().__init__()
        self.conv1, self.bn1, self.lif1 = _convolution(in_channels, out_channels, 3)
        self.conv2, self.bn2, self.lif2 = _convolution(out_channels, out_channels, 3)
        self.pool = _pool()
        self.shortcut = nn.Sequential(*_convolution(in_channels, out_channels, 1, stride=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the tokens of the next stage.

        Args:
            x: (T, B, C, H, W) float32, the token stream.

        Returns:
            (T, B, D, ceil(H / 2), ceil(W / 2)) float32, sums of two spikes, 0..2.
        """
        spikes = self.lif1(self.bn1(self.conv1(x)))
        tokens: torch.Tensor = self.lif2(self.pool(self.bn2(self.conv2(spikes)))) + self.shortcut(x)
        return tokens


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """Returns a convolution, its batch norm and its neurons."""
    return (
        layer.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False, step_mode="m"),
        layer.BatchNorm2d(out_channels, step_mode="m"),
        LIFNode(detach_reset=True, step_mode="m"),
    )


def _pool() -> nn.Module:
    pool: nn.Module = layer.MaxPool2d(3, stride=2, padding=1, step_mode="m")
    return pool
