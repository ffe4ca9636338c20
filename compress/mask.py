"""The reference for physical removal: the network of full size in which the removed channels are silent.

A channel whose weights, bias and batch norm are zero feeds zeros to its neuron, whose threshold is positive: it never
fires, and its consumers read nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from svitkit.models.plan import Member
from svitkit.models.removal import find_tensor


def silence(model: nn.Module, producers: Sequence[Member], channels: Sequence[int]) -> nn.Module:
    """Returns a copy of a network in which channels of a group emit zeros.

    Args:
        model: the network; it is not changed.
        producers: the axes along which the group's channels come into being.
        channels: the channels to silence.
    """
    masked = copy.deepcopy(model)
    for member in producers:
        if member.tensor.endswith("running_var"):
            continue
        tensor = find_tensor(masked, member.tensor)
        indices = torch.tensor(
            [
                offset + channel * member.inner + i
                for offset in member.offsets
                for channel in channels
                for i in range(member.inner)
            ]
        )
        with torch.no_grad():
            tensor.index_fill_(member.dim, indices, 0.0)
    return masked
