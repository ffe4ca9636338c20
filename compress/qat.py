"""Training of a network whose weights are integers: quantization-aware, with learned scales.

    w' = s clip(round(w / s), -qmax, qmax)

where gradients pass the rounding as if it were not there, and the scale s of an output channel is learned too: its
gradient is that of the equation with the rounding passed likewise. Source: Esser et al., "Learned
Step Size Quantization", ICLR 2020, equations 1 to 5; theirs is one scale a layer, ours one a channel, as in the
checkpoint.

Neurons train in float32, with their surrogate gradient; membranes are quantized again afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn
from torch.nn.utils import parametrize

from svitkit.compress.quantize import QuantizedNetwork, quantize_weight_by
from svitkit.compress.zeros import held_at_zero
from svitkit.models.membranes import quantize_membranes
from svitkit.models.quantized import QuantizedWeight, qmax


class LearnedScale(nn.Module):
    """Rounds a weight with scales that are learned, as logarithms of what they are multiplied by; a parametrization."""

    def __init__(self, weight: QuantizedWeight) -> None:
        """Begins with the scales of a layer.

        Args:
            weight: the layer's.
        """
        super().__init__()
        self.largest, self.rank = qmax(weight.bits), weight.integers.ndim
        self.register_buffer("start", torch.from_numpy(weight.scale.copy()))
        self.change = nn.Parameter(torch.zeros(len(weight.scale)))

    @property
    def scale(self) -> torch.Tensor:
        """The scales (outputs,) float32."""
        return self.get_buffer("start") * self.change.exp()

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns the rounded weight (outputs, ...)."""
        scale = self.scale.reshape(-1, *[1] * (self.rank - 1))
        levels = (weight / scale).clamp(-self.largest, self.largest)
        rounded = levels + (levels.round() - levels).detach()
        return rounded * scale


def train_integers(
    network: QuantizedNetwork, train: Callable[[nn.Module], None], zeros: Mapping[str, torch.Tensor] | None = None
) -> QuantizedNetwork:
    """Trains a quantized network.

    Args:
        network: where training begins; it is not changed.
        train: trains a module in place.
        zeros: for weights by name a bool tensor of the same shape: what was pruned, and stays 0.

    Returns:
        The trained network with the same bits, and float32 membranes.
    """
    model = copy.deepcopy(network.model)
    spec = replace(network.spec, membranes={})
    quantize_membranes(model, spec)
    for name, weight in network.weights.items():
        parametrize.register_parametrization(model.get_submodule(name), "weight", LearnedScale(weight))
    pruned = [
        (model.get_parameter(f"{name}.parametrizations.weight.original"), where)
        for name in network.weights
        if (where := (zeros or {}).get(f"{name}.weight")) is not None
    ]
    with held_at_zero(pruned):
        train(model)
    weights = {}
    for name, weight in network.weights.items():
        layer = model.get_submodule(name)
        learned = dict(layer.named_modules())["parametrizations.weight"]
        latent, scale = learned.get_parameter("original").detach(), learned[0].scale.detach()
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        weights[name] = quantize_weight_by(latent.numpy(), scale.numpy(), weight.bits)
        with torch.no_grad():
            layer.get_parameter("weight").copy_(torch.from_numpy(weights[name].dequantize()))
    return QuantizedNetwork(model=model.eval(), spec=spec, weights=weights)
