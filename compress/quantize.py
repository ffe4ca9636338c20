"""Quantization of trained weights: symmetric, one scale per output channel.

The plain way rounds every weight to the nearest integer:

    qmax = 2^(bits - 1) - 1      scale[c] = max |w[c]| / qmax      q[c] = round(w[c] / scale[c]), halves to even

:class:`CalibratedRounding` looks at calibration images, and lets the weights of a layer make good each other's rounding
(:mod:`svitkit.compress.rounding`).

A batch norm behind the layer multiplies whole channels, so quantizing before or after folding it gives the same
integers up to their sign; it stays in the checkpoint. Biases stay float32, spikes are integers anyway, and the image
becomes bytes (:func:`svitkit.models.quantized.input_quantization`).

At fewer than 8 bits the first layer, which reads the image, and the last, which gives the logits, keep 8: they are the
smallest in a Spiking Vision Transformer, and nothing behind them averages their error out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from svitkit.compress.layer_rows import (
    ROWS,
    LinearLayer,
    chooser,
    hooked,
    input_rows,
    linear_layers,
    output_rows,
    run_once,
)
from svitkit.compress.recalibrate import follow
from svitkit.compress.rounding import round_weight
from svitkit.errors import UnsupportedError
from svitkit.manifest import Normalization
from svitkit.models.quantized import (
    QUANTIZABLE,
    QuantizedWeight,
    input_quantization,
    qmax,
    quantizable_weight,
    quantize_input,
)
from svitkit.models.size import layer_parameters
from svitkit.models.spec import QuantizationSpec
from svitkit.models.tokens import exact_layers

PROTECTED_BITS = 8
SHARES = (1e-3, 4.0)
"""By how much the variance of a channel may change."""


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
    return quantize_weight_by(weight, scale, bits)


def quantize_weight_by(weight: NDArray[np.float32], scale: NDArray[np.float32], bits: int) -> QuantizedWeight:
    """Rounds a weight to integers with given scales.

    Args:
        weight: (outputs, ...) float32.
        scale: (outputs,) float32, positive.
        bits: 2 to 8.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    levels = np.rint(rows / scale[:, None].astype(np.float64)).clip(-qmax(bits), qmax(bits))
    return QuantizedWeight(bits=bits, integers=levels.astype(np.int8).reshape(weight.shape), scale=scale)


def uniform_bits(model: nn.Module, example: torch.Tensor, bits: int) -> dict[str, int]:
    """Gives every layer with weights the same bits, but the first and the last at least 8.

    Layers whose sums choose tokens have none (:func:`svitkit.models.tokens.exact_layers`).

    Args:
        model: the network.
        example: (T, B, C, H, W) float32, any input of the right shape.
        bits: 2 to 8.

    Returns:
        Bits by layer, in the order of execution.

    Raises:
        UnsupportedError: no layer has weights that can be quantized.
    """
    exact = exact_layers(model)
    reached = [name for name in layer_parameters(model, example) if name not in exact]
    layers = [name for name in reached if isinstance(model.get_submodule(name), QUANTIZABLE)]
    if not layers:
        raise UnsupportedError("the network has no convolution or linear layer, so there is nothing to quantize.")
    chosen = dict.fromkeys(layers, bits)
    for name in (layers[0], layers[-1]):
        chosen[name] = max(bits, PROTECTED_BITS)
    return chosen


class CalibratedRounding:
    """Quantizes a network for calibration images, layer after layer, each for what it reads in the quantized network.

    Means and variances of every layer's outputs are those of the original network again afterwards, by its batch norm
    or its bias.

    Attributes:
        layers: those that are rounded so, with their batch norms, by name.
    """

    def __init__(
        self, model: nn.Module, inputs: torch.Tensor, normalization: Normalization, *, static: bool, rows: int = ROWS
    ) -> None:
        """Runs the original network once.

        Args:
            model: the network, in evaluation mode; it is not changed.
            inputs: (T, N, C, H, W) float32, images of the training split; they run as one batch.
            normalization: of the input.
            static: whether the input is an image.
            rows: so many rows of a layer's inputs are looked at.
        """
        self._model, self._inputs, self._rows = model, inputs, rows
        self._input = input_quantization(normalization, static=static)
        self.layers = {layer.name: layer for layer in linear_layers(model, inputs[:, :1])}
        self._wanted: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

        def watch(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> None:
                found = output_rows(module, got, chooser(name, rows)).double()
                self._wanted[name] = (found.mean(0), found.var(0, correction=0))

            return model.get_submodule(name).register_forward_hook(hook)

        with hooked(watch(name) for name in self.layers):
            run_once(model, inputs)

    def quantize(self, bits: Mapping[str, int]) -> QuantizedNetwork:
        """Returns a copy of the network with quantized weights and input.

        Args:
            bits: bits by layer. Layers that run more than once and grouped convolutions are rounded to the nearest.
        """
        spec = QuantizationSpec(layers=dict(bits), input=self._input)
        small = copy.deepcopy(self._model)
        weights: dict[str, QuantizedWeight] = {}
        quantize_input(small, spec)
        for name in spec.layers.keys() - self.layers.keys():
            weights[name] = _replace(small, name, partial(_nearest, bits=spec.layers[name]))

        def watch(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
                rows = input_rows(module, given[0], chooser(name, self._rows))
                weights[name] = self._round(small, self.layers[name], rows, spec.layers[name])

            return small.get_submodule(name).register_forward_pre_hook(hook)

        with hooked(watch(name) for name in self.layers if name in spec.layers):
            run_once(small, self._inputs)
        return QuantizedNetwork(model=small, spec=spec, weights={name: weights[name] for name in spec.layers})

    def _round(self, model: nn.Module, layer: LinearLayer, x: torch.Tensor, bits: int) -> QuantizedWeight:
        module = model.get_submodule(layer.name)
        norm = None if layer.norm is None else model.get_submodule(layer.norm)
        bias = getattr(module, "bias", None)
        mean = x.mean(0)
        covariance = ((x - mean).T @ (x - mean)).double() / len(x)
        mean = mean.double()
        free = norm is not None or bias is not None  # a shift of the outputs can be undone
        second = covariance if free else covariance + torch.outer(mean, mean)
        rounded = _replace(model, layer.name, partial(round_weight, second=second, bits=bits))
        weight = torch.from_numpy(rounded.dequantize()).double().flatten(1)
        wanted, variance = self._wanted[layer.name]
        intercept = wanted - weight @ mean
        with torch.no_grad():
            if bias is not None:
                bias.copy_(intercept)
            if norm is not None:
                given = ((weight @ covariance) * weight).sum(1)
                share = (given / variance.clamp_min(1e-12)).clamp(*SHARES)
                follow(norm, wanted, torch.zeros_like(intercept) if bias is not None else intercept, share)
        return rounded


def _replace(model: nn.Module, name: str, rounding: Callable[[torch.Tensor], QuantizedWeight]) -> QuantizedWeight:
    """Puts a layer's rounded weight in its place, as float32."""
    weight = quantizable_weight(model, name, "the network")
    rounded = rounding(weight)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(rounded.dequantize()))
    return rounded


def _nearest(weight: torch.Tensor, bits: int) -> QuantizedWeight:
    return quantize_weight(weight.detach().cpu().numpy(), bits)


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
    weights = {name: _replace(small, name, partial(_nearest, bits=width)) for name, width in spec.layers.items()}
    quantize_input(small, spec)
    return QuantizedNetwork(model=small, spec=spec, weights=weights)
