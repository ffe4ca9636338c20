"""The order in which the channels of a group are worth least to those that read them.

A channel is worth what its readers lose without it *after* the channels that stay have taken over what they can. For a
reader y = W x of inputs with covariance H, removing the features F of one channel and adapting the other weights
optimally costs, summed over outputs,

    cost(F) = tr(W_F [(H^-1)_FF]^-1 W_F^T)                    W <- W - W_F [(H^-1)_FF]^-1 (H^-1)_F

which is the optimal brain surgeon (Hassibi and Stork, NeurIPS 1993, equations 4 and 5) for a layer's output error and
groups of weights. The cheapest channel goes first, W and H^-1 are updated, and so on. Means do not count: the reader's
bias replaces them. Outputs are measured in the unit of the neurons behind them, after the batch norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from svitkit.compress.groups import FoundGroup
from svitkit.compress.importance import filter_norms
from svitkit.compress.layer_rows import LinearLayer
from svitkit.compress.moments import Moments
from svitkit.models.plan import Member, PrunedGroup, PruneGroup

DAMPING = 1e-2


@dataclass(frozen=True, kw_only=True)
class Elimination:
    """Channels of a group, the most dispensable first.

    Attributes:
        group: the group.
        order: all channels but one per block; after every ``blocks`` of them each block has lost equally many.
    """

    group: PruneGroup
    order: tuple[int, ...]

    def keep(self, count: int) -> PrunedGroup | None:
        """Returns the choice of ``count`` channels, rounded up so that all blocks keep equally many; None for all."""
        blocks = self.group.blocks
        removed = max(0, self.group.channels - max(count, blocks)) // blocks * blocks
        if not removed:
            return None
        gone = set(self.order[:removed])
        kept = tuple(channel for channel in range(self.group.channels) if channel not in gone)
        return PrunedGroup(group=self.group, kept=kept)


def eliminate(
    model: nn.Module, found: FoundGroup, layers: Mapping[str, LinearLayer], moments: Mapping[str, Moments]
) -> Elimination:
    """Orders a group's channels.

    Args:
        model: the network.
        found: the group.
        layers: the network's convolutions and linear layers, by name.
        moments: of the inputs of every layer that reads the group, by name.

    Returns:
        The order. A group that no such layer reads (queries and keys) is ordered by the norms of its filters.
    """
    readers = [
        _Reader(model, layers[name], member, found.group.channels, moments[name])
        for member in found.consumers
        if (name := member.tensor.rpartition(".")[0]) in layers
    ]
    group = found.group
    width = group.channels // group.blocks
    alive = torch.ones(group.blocks, width, dtype=torch.bool)
    order: list[int] = []
    norms = None if readers else filter_norms(model, found).double().square()
    for _ in range(width - 1):
        for block in range(group.blocks):
            cost = torch.stack([reader.costs() for reader in readers]).sum(0) if norms is None else norms
            cost = cost.reshape(group.blocks, width)[block].masked_fill(~alive[block], torch.inf)
            channel = int(cost.argmin())
            alive[block, channel] = False
            order.append(block * width + channel)
            for reader in readers:
                reader.remove(order[-1])
    return Elimination(group=group, order=tuple(order))


def member_features(member: Member, channels: int, kernel: int) -> torch.Tensor:
    """Returns which input features of a layer each channel of a group owns.

    Args:
        member: the axis of the layer's weights.
        channels: of the group.
        kernel: kernel positions per input channel.

    Returns:
        (channels, features per channel) int64.
    """
    inputs = torch.tensor(member.offsets)[None, :, None] + torch.arange(channels)[:, None, None] * member.inner
    inputs = (inputs + torch.arange(member.inner)).reshape(channels, -1)
    return (inputs[:, :, None] * kernel + torch.arange(kernel)).reshape(channels, -1)


def output_scale(model: nn.Module, layer: LinearLayer) -> torch.Tensor:
    """Returns the factor by which the batch norm behind a layer multiplies each output, (outputs,) float64."""
    weight = model.get_submodule(layer.name).get_parameter("weight")
    if layer.norm is None:
        return torch.ones(len(weight), dtype=torch.float64)
    norm = model.get_submodule(layer.norm)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_var is not None
    scale = 1 / (norm.running_var.double() + norm.eps).sqrt()
    return scale if norm.weight is None else scale * norm.weight.detach().double()


class _Reader:
    """A layer that reads a group, while the group shrinks."""

    def __init__(self, model: nn.Module, layer: LinearLayer, member: Member, channels: int, moments: Moments) -> None:
        weight = model.get_submodule(layer.name).get_parameter("weight").detach().double()
        kernel = weight[0, 0].numel()
        self.features = member_features(member, channels, kernel)
        scaled = weight.flatten(1) * output_scale(model, layer)[:, None]
        self.weight = scaled.clone()
        covariance = moments.covariance
        damping = DAMPING * covariance.diagonal().mean().clamp_min(1e-12)
        self.inverse = torch.linalg.inv(covariance + damping * torch.eye(len(covariance), dtype=torch.float64))

    def costs(self) -> torch.Tensor:
        """Returns what removing each channel would cost, (channels,) float64; nonsense for those that are gone."""
        if self.features.shape[1] == 1:
            at = self.features[:, 0]
            single: torch.Tensor = self.weight[:, at].square().sum(0) / self.inverse.diagonal()[at]
            return single
        own = self.weight[:, self.features].permute(1, 2, 0)  # (channels, features, outputs)
        blocks = self.inverse[self.features[:, :, None], self.features[:, None, :]]
        costs: torch.Tensor = (own * torch.linalg.solve(blocks, own)).sum((1, 2))
        return costs

    def remove(self, channel: int) -> None:
        """Removes a channel; the others take over what they can."""
        gone = self.features[channel]
        share = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone])
        self.weight -= self.weight[:, gone] @ share
        self.inverse -= self.inverse[:, gone] @ share
        self.weight[:, gone] = 0
        self.inverse[:, gone] = 0
        self.inverse[gone] = 0
        self.inverse[gone, gone] = 1
