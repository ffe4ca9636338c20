"""Plain quantization of trained weights: symmetric, one scale per output channel, rounded to the nearest.

    qmax = 2^(bits - 1) - 1      scale[c] = max |w[c]| / qmax      q[c] = round(w[c] / scale[c]), halves to even

A batch norm behind the layer multiplies whole channels, so quantizing before or after folding it gives the same
integers up to their sign; it stays in the checkpoint. Biases stay float32, spikes are integers anyway, and the image
becomes bytes (:func:`svitkit.models.quantized.input_quantization`).

At fewer than 8 bits the first layer, which reads the image, and the last, which gives the logits, keep 8: they are the
smallest in a Spiking Vision Transformer, and nothing behind them averages their error out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from svitkit.errors import UnsupportedError
from svitkit.manifest import Normalization
from svitkit.models.quantized import QuantizedWeight, input_quantization, qmax, quantizable_weight, quantize_input
from svitkit.models.size import layer_parameters
from svitkit.models.spec import QuantizationSpec

PROTECTED_BITS = 8


@dataclass(frozen=True, kw_only=True)
class QuantizedNetwork:
    """A network whose weights are integers times scales.

    Attributes:
        model: the network with the rounded weights, as float32; it rounds its input.
        spec: bits by layer.
        weights: integers and scales by layer.
    """

    model: nn.Module
    spec: QuantizationSpec
    weights: dict[str, QuantizedWeight]


def quantize_weight(weight: NDArray[np.float32], bits: int) -> QuantizedWeight:
    """Rounds a weight to integers.

    Args:
        weight: (outputs, ...) float32.
        bits: 2 to 8.

    Returns:
        Integers and scales; a channel of zeros has scale 1.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    scale = (np.abs(rows).max(axis=1, initial=0.0) / qmax(bits)).astype(np.float32)
    scale[scale == 0] = 1
    levels = np.rint(rows / scale[:, None].astype(np.float64)).clip(-qmax(bits), qmax(bits))
    return QuantizedWeight(bits=bits, integers=levels.astype(np.int8).reshape(weight.shape), scale=scale)


def uniform_bits(model: nn.Module, example: torch.Tensor, bits: int) -> dict[str, int]:
    """Gives every layer with weights the same bits, but the first and the last at least 8.

    Args:
        model: the network.
        example: (T, B, C, H, W) float32, any input of the right shape.
        bits: 2 to 8.

    Returns:
        Bits by layer, in the order of execution.

    Raises:
        UnsupportedError: no layer has weights that can be quantized.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    layers = [name for name in layer_parameters(model, example) if isinstance(model.get_submodule(name), kinds)]
    if not layers:
        raise UnsupportedError("the network has no convolution or linear layer, so there is nothing to quantize.")
    chosen = dict.fromkeys(layers, bits)
    for name in (layers[0], layers[-1]):
        chosen[name] = max(bits, PROTECTED_BITS)
    return chosen


def quantize_network(
    model: nn.Module, bits: Mapping[str, int], normalization: Normalization, *, static: bool
) -> QuantizedNetwork:
    """Returns a copy of a network with quantized weights and input.

    Args:
        model: the network; it is not changed.
        bits: bits by layer.
        normalization: of the input.
        static: whether the input is an image.
    """
    spec = QuantizationSpec(layers=dict(bits), input=input_quantization(normalization, static=static))
    small = copy.deepcopy(model)
    weights = {}
    for name, width in spec.layers.items():
        weight = quantizable_weight(small, name, "the network")
        weights[name] = quantize_weight(weight.detach().cpu().numpy(), width)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(weights[name].dequantize()))
    quantize_input(small, spec)
    return QuantizedNetwork(model=small, spec=spec, weights=weights)
