"""Which channels of a group matter least, and which of them a pruning ratio keeps."""

from __future__ import annotations

from math import gcd

import torch
from torch import nn

from svitkit.compress.groups import FoundGroup
from svitkit.models.plan import PrunedGroup, PruneGroup
from svitkit.models.removal import find_tensor


def filter_norms(model: nn.Module, found: FoundGroup) -> torch.Tensor:
    """Returns the L2 norm of every channel's filters.

    norm(c) = sqrt(sum of w^2 over the weight rows that produce channel c). Batch norms, biases and consumers do not
    count: the paper ranks "channel-wise filters by L2 norm" (PrimeSVT, arXiv 2606.03428, abstract).

    Args:
        model: the network.
        found: the group.

    Returns:
        (channels,) float32.
    """
    channels = found.group.channels
    total = torch.zeros(channels, dtype=torch.float64)
    for member in found.producers:
        tensor = find_tensor(model, member.tensor).detach()
        if tensor.ndim < 2:
            continue
        rows = tensor.double().movedim(member.dim, 0).flatten(1).square().sum(1)
        for offset in member.offsets:
            total += rows[offset : offset + channels * member.inner].reshape(channels, member.inner).sum(1)
    return total.sqrt().float()


def keep_strongest(group: PruneGroup, norms: torch.Tensor, ratio: float, *, multiple: int) -> PrunedGroup | None:
    """Chooses the channels that stay when a fraction of a group is removed.

    Every block (attention head) keeps equally many, each its own strongest. The number kept is the nearest for which
    the group's total is a multiple of ``multiple``, at least one such multiple; equal norms keep the lower index.

    Args:
        group: the group.
        norms: (channels,) float32, importance.
        ratio: fraction removed, 0..1.
        multiple: what the number of kept channels shall divide by.

    Returns:
        The choice, or None if rounding leaves every channel in place.
    """
    width = group.channels // group.blocks
    step = multiple // gcd(multiple, group.blocks)
    kept = max(step, int((1.0 - ratio) * width / step + 0.5 + 1e-9) * step)
    if kept >= width:
        return None
    chosen: list[int] = []
    for block in range(group.blocks):
        order = torch.argsort(norms[block * width : (block + 1) * width], descending=True, stable=True)
        chosen.extend(sorted(block * width + int(index) for index in order[:kept]))
    return PrunedGroup(group=group, kept=tuple(chosen))
