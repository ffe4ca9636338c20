"""Gives a network with random weights the firing rate one asks for, layer by layer in the order of execution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from svitkit.errors import ConfigError
from svitkit.export.lif_function import lif
from svitkit.lif import LIFParams
from svitkit.models.neurons import lif_params, neuron_layers
from svitkit.models.run import forward_logits

# Neurons that a rate is estimated from while it is searched for: a rate of 0.05 is then known within 0.001.
SAMPLE = 1 << 16
BISECTIONS = 24


def fire_at_rate(model: nn.Module, x: torch.Tensor, rate: float, *, seed: int = 0) -> None:
    """Calibrates a network in one pass, so that every layer of neurons fires at a rate.

    A batch norm standardizes its channels and scales each by 0.8..1.2. A layer of neurons is then adjusted by what acts
    on it: if a batch norm ran since the last layer of neurons, by adding one number to its bias, which shifts the
    layer's currents alike even through max-pooling, means and residual additions; otherwise, in attention, where sums
    of spikes feed neurons, by the neurons' threshold. For neurons at rest at 0 this is the same as the attention's
    scale, and keeps that a power of two. Sums of few spikes take few values, so that a rate may only be come near to:
    the network's real rates are those of :func:`svitkit.export.rates.firing_rates`.

    Args:
        model: the network; batch norms and thresholds change in place, and it is left in evaluation mode.
        x: (T, B, C, H, W) float32, normalized inputs.
        rate: spikes per neuron and time step, above 0 and below 1.
        seed: of the scales and of the neurons that are looked at.

    Raises:
        ConfigError: the rate is out of range.
        UnsupportedError: a layer's neurons are not LIF neurons.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"the rate is {rate}, wanted spikes per neuron and time step, above 0 and below 1.")
    calibration = _Calibration(rate, torch.Generator().manual_seed(seed))
    handles = [module.register_forward_pre_hook(calibration.adjust) for module in neuron_layers(model).values()]
    norms = [module for module in model.eval().modules() if isinstance(module, _BatchNorm)]
    handles += [module.register_forward_pre_hook(calibration.standardize) for module in norms]
    try:
        with torch.no_grad():
            forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()


class _Calibration:
    """The hooks of one pass.

    Attributes:
        rate: spikes per neuron and time step.
        generator: source of all that is random.
        norm: the batch norm that ran last, None if a layer of neurons has run since.
    """

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        self.rate, self.generator = rate, generator
        self.norm: _BatchNorm | None = None

    def standardize(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Sets a batch norm to its input's statistics before it runs."""
        assert isinstance(module, _BatchNorm)
        given = inputs[0]
        timed = given.ndim == 5 or (given.ndim == 4 and isinstance(module, nn.BatchNorm1d))
        axis = 2 if timed else 1  # (T, B, C, ...) or (T*B, C, ...)
        rest = [i for i in range(given.ndim) if i != axis]
        module.running_mean.copy_(given.mean(rest))
        module.running_var.copy_(given.var(rest, unbiased=False) + 1e-3)
        module.weight.copy_(0.8 + 0.4 * torch.rand(module.num_features, generator=self.generator))
        module.bias.zero_()
        self.norm = module

    def adjust(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Moves the currents of a layer of neurons, or its threshold, before it runs."""
        assert isinstance(module, LIFNode)
        currents, params = inputs[0], lif_params(module)
        sample = self._sample(currents)
        if self.norm is None:
            extent = float(sample.abs().max()) or 1.0
            threshold = _bisect(lambda value: -_rate(sample, params, value), 0.0, extent, -self.rate)
            module.v_threshold = float(torch.tensor(threshold))  # as an ONNX attribute can hold it
            return
        extent = float(sample.abs().max()) + 4 * params.tau * params.v_threshold
        shift = _bisect(lambda value: _rate(sample + value, params, params.v_threshold), -extent, extent, self.rate)
        self.norm.bias.add_(shift)
        currents.add_(shift)  # in place: a residual that passes the neurons by carries the batch norm's bias too
        self.norm = None

    def _sample(self, currents: torch.Tensor) -> torch.Tensor:
        flat = currents.flatten(1)
        if flat.shape[1] <= SAMPLE:
            return flat
        return flat[:, torch.randint(flat.shape[1], (SAMPLE,), generator=self.generator)]


def _rate(currents: torch.Tensor, params: LIFParams, threshold: float) -> float:
    rest = currents.new_full((), params.v_initial)
    spikes, _ = lif(currents, rest, "", params.tau, threshold, params.v_reset, params.decay_input)
    return float(spikes.mean())


def _bisect(rises: Callable[[float], float], low: float, high: float, wanted: float) -> float:
    """Returns where a function that rises by steps comes nearest to a value."""
    tried: dict[float, float] = {}
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        tried[middle] = rises(middle)
        low, high = (middle, high) if tried[middle] < wanted else (low, middle)
    return min(tried, key=lambda value: abs(tried[value] - wanted))
