"""Potentials of few bits for the neurons of a network whose weights are integers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from svitkit.compress.layer_rows import LinearLayer
from svitkit.compress.quantize import QuantizedNetwork
from svitkit.lif_integer import LARGEST_FRACTION, Membrane, MembraneBits, why_not_integer
from svitkit.models.membranes import quantize_membranes
from svitkit.models.neurons import lif_params, neuron_layers
from svitkit.models.quantized import QuantizedWeight, quantizable_weight

HEADROOM: dict[MembraneBits, int] = {16: 3, 8: 1, 4: 0}
"""Bits of a potential above the threshold."""
FACTOR_BITS = 8
"""Significant bits of what turns a layer's sums into currents: so short, factors are whole numbers of steps."""


def membrane_grids(model: nn.Module, bits: MembraneBits) -> dict[str, Membrane]:
    """Chooses grids of potentials: from -t to t for a threshold up to t, a power of two, and finer the more bits.

    16 bits reach to 8 t, 8 bits to 2 t. What leaves the grid is cut off; below 0 that makes a silenced neuron recover
    earlier.

    Args:
        model: the network.
        bits: of a potential.

    Returns:
        A grid for every layer of neurons that can compute in integers.
    """
    grids = {}
    for name, node in neuron_layers(model).items():
        params = lif_params(node, name)
        if why_not_integer(params) is None:
            reach = math.ceil(math.log2(params.v_threshold)) + HEADROOM[bits]
            fraction = min(max(bits - 1 - reach, 0), LARGEST_FRACTION)
            grids[name] = Membrane(bits=bits, fraction=fraction)
    return grids


def with_membranes(
    network: QuantizedNetwork, layers: Sequence[LinearLayer], membranes: Mapping[str, Membrane]
) -> QuantizedNetwork:
    """Returns a copy of a network that keeps its potentials on grids.

    Scales of weights change by less than 2^-8, so that scale times batch norm is a short number: currents computed in
    integers are then those of the float32 network.

    Args:
        network: with integer weights.
        layers: its layers with weights and their batch norms.
        membranes: the grid by layer of neurons; none leaves the network as it is.
    """
    if not membranes:
        return network
    model, weights = copy.deepcopy(network.model), dict(network.weights)
    for layer in layers:
        if layer.name in weights:
            norm = None if layer.norm is None else model.get_submodule(layer.norm)
            weights[layer.name] = _shortened(weights[layer.name], _factor(norm, len(weights[layer.name].scale)))
            weight = quantizable_weight(model, layer.name, "the network")
            with torch.no_grad():
                weight.copy_(torch.from_numpy(weights[layer.name].dequantize()))
    spec = replace(network.spec, membranes=dict(membranes))
    quantize_membranes(model, spec)
    return QuantizedNetwork(model=model, spec=spec, weights=weights)


def _factor(norm: nn.Module | None, channels: int) -> NDArray[np.float64]:
    """What a batch norm multiplies every channel by, without sign."""
    if norm is None:
        return np.ones(channels)
    gamma, variance = norm.get_parameter("weight"), norm.get_buffer("running_var")
    factor: NDArray[np.float64] = np.abs(
        gamma.detach().double().numpy() / np.sqrt(variance.double().numpy() + float(norm.eps))  # type: ignore[arg-type]
    )
    return factor


def _shortened(weight: QuantizedWeight, factor: NDArray[np.float64]) -> QuantizedWeight:
    """Rounds scale times factor to few significant bits, by changing the scale."""
    product = weight.scale.astype(np.float64) * factor
    mantissa, exponent = np.frexp(product)
    rounded = np.ldexp(np.rint(mantissa * 2.0**FACTOR_BITS) / 2.0**FACTOR_BITS, exponent)
    scale = np.where(factor > 0, rounded / np.where(factor > 0, factor, 1.0), weight.scale)
    return replace(weight, scale=scale.astype(np.float32))
