"""What svitkit's own pruning learns from training images before it searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from svitkit.compress.eliminate import Elimination, eliminate
from svitkit.compress.groups import FoundGroup
from svitkit.compress.layer_rows import ROWS, linear_layers
from svitkit.compress.moments import input_moments
from svitkit.compress.reconstruct import Compensation, Reconstruction, readers

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Orders and repairs.

    Attributes:
        orders: every group with the order in which its channels go.
        compensation: mends the readers of the groups that a plan cuts; quick.
        reconstruction: mends every layer behind the first cut; thorough.
    """

    orders: tuple[tuple[FoundGroup, Elimination], ...]
    compensation: Compensation
    reconstruction: Reconstruction


def calibrate(model: nn.Module, groups: Sequence[FoundGroup], inputs: torch.Tensor, progress: Progress) -> Calibration:
    """Measures a network on training images and orders the channels of its groups.

    Args:
        model: the network, in evaluation mode; it is not changed.
        groups: the prunable groups.
        inputs: (T, N, C, H, W) float32, images of the training split.
        progress: told the stage, how much of it is done, and how much there is.
    """
    progress("calibrate", 0, len(groups) + 2)
    layers = {layer.name: layer for layer in linear_layers(model, inputs[:, :1])}
    moments = input_moments(model, sorted(readers(groups) & layers.keys()), inputs, rows=ROWS)
    progress("calibrate", 1, len(groups) + 2)
    reconstruction = Reconstruction(model, inputs)
    orders = []
    for at, found in enumerate(groups, start=2):
        progress("calibrate", at, len(groups) + 2)
        orders.append((found, eliminate(model, found, layers, moments)))
    progress("calibrate", len(groups) + 2, len(groups) + 2)
    return Calibration(
        orders=tuple(orders), compensation=Compensation(model, layers, moments), reconstruction=reconstruction
    )
