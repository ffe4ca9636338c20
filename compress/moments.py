"""Means and covariances of what layers read, over calibration images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from svitkit.compress.layer_rows import chooser, hooked, input_rows, run_once


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


def input_moments(model: nn.Module, layers: Sequence[str], inputs: torch.Tensor, *, rows: int) -> dict[str, Moments]:
    """Measures the inputs of layers.

    Args:
        model: the network, in evaluation mode.
        layers: names of convolutions and linear layers.
        inputs: (T, N, C, H, W) float32; they run as one batch.
        rows: so many rows are looked at in each layer.

    Returns:
        Moments by layer.
    """
    found: dict[str, Moments] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            x = input_rows(module, given[0], chooser(name, rows))
            mean = x.mean(0)
            x = x - mean
            found[name] = Moments(mean=mean.double(), covariance=(x.T @ x).double() / len(x), rows=len(x))

        return model.get_submodule(name).register_forward_pre_hook(hook)

    with hooked(watch(name) for name in layers):
        run_once(model, inputs)
    return found
