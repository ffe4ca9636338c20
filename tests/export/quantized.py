"""Networks with integer weights that the tests of their export share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from svitkit.compress.quantize import quantize_network, uniform_bits
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import example_input


def quantize(checkpoint: Checkpoint, bits: int | dict[str, int]) -> Checkpoint:
    """Rounds a network's weights."""
    spec = checkpoint.spec
    if isinstance(bits, int):
        bits = uniform_bits(checkpoint.model, example_input(spec), bits)
    small = quantize_network(checkpoint.model, bits, spec.normalization, static=spec.static_input)
    return Checkpoint(model=small.model, spec=replace(spec, quantization=small.spec), quantized=small.weights)


def turn_some_norms(model: nn.Module) -> None:
    """Gives every third channel of a batch norm a negative factor and the second a factor of zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight[::3].neg_()
                module.weight[1] = 0
