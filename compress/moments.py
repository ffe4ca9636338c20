"""Means and covariances of what layers read, over calibration images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from svitkit.compress.layer_rows import chooser, hooked, input_rows, run_inputs


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of a layer's input rows.

    Attributes:
        mean: (features,) float64.
        covariance: (features, features) float64.
        rows: how many there were.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    rows: int


class _Sums:
    def __init__(self) -> None:
        self.rows = 0
        self.first = self.second = torch.zeros(())

    def add(self, rows: torch.Tensor) -> None:
        self.rows += len(rows)
        self.first = self.first + rows.sum(0).double()
        self.second = self.second + (rows.T @ rows).double()

    def moments(self) -> Moments:
        mean = self.first / self.rows
        return Moments(mean=mean, covariance=self.second / self.rows - torch.outer(mean, mean), rows=self.rows)


def input_moments(
    model: nn.Module, layers: Sequence[str], inputs: Sequence[torch.Tensor], *, rows: int
) -> dict[str, Moments]:
    """Measures the inputs of layers.

    Args:
        model: the network, in evaluation mode.
        layers: names of convolutions and linear layers.
        inputs: batches of (T, B, C, H, W) float32.
        rows: about so many rows are looked at in each layer.

    Returns:
        Moments by layer.
    """
    sums = {name: _Sums() for name in layers}
    each = -(-rows // len(inputs))
    batch = 0

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            sums[name].add(input_rows(module, given[0], chooser(name, batch, each)))

        return model.get_submodule(name).register_forward_pre_hook(hook)

    with hooked(watch(name) for name in layers):
        for number in run_inputs(model, inputs):
            batch = number
    return {name: found.moments() for name, found in sums.items()}
