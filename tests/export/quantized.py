"""Networks with integer weights that the tests of their export share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from svitkit.compress.layer_rows import linear_layers
from svitkit.compress.membranes import membrane_grids, with_membranes
from svitkit.compress.quantize import QuantizedNetwork, quantize_network, uniform_bits
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


def quantize_neurons(
    checkpoint: Checkpoint, bits: int | dict[str, int], membrane_bits: int, *, short: bool = True
) -> Checkpoint:
    """Rounds a network's weights and lets its neurons compute in integers; ``short`` rounds scales too."""
    small, spec = quantize(checkpoint, bits), checkpoint.spec
    assert small.spec.quantization is not None
    network = QuantizedNetwork(model=small.model, spec=small.spec.quantization, weights=dict(small.quantized))
    layers = linear_layers(checkpoint.model, example_input(spec)) if short else ()
    full = with_membranes(network, layers, membrane_grids(checkpoint.model, membrane_bits))
    return Checkpoint(model=full.model, spec=replace(spec, quantization=full.spec), quantized=full.weights)
