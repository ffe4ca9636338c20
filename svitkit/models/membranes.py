"""Membrane potentials of few bits in a torch network: the neurons of :mod:`svitkit.lif_integer`, computed in float32.

The network computes its currents in float32; they are rounded to the grid of integer currents, and what a layer of
neurons keeps from one time step to the next to the grid of its membrane, as the exported file does.
"""

from __future__ import annotations

import torch
from torch import nn

from svitkit.errors import ConfigError
from svitkit.lif import LIFParams
from svitkit.lif_integer import CURRENT_FRACTION, Membrane, why_not_integer
from svitkit.models.neurons import lif_params, neuron_layers
from svitkit.models.spec import QuantizationSpec

CURRENT_STEPS = 2.0**CURRENT_FRACTION


def run_neurons(
    x: torch.Tensor, params: LIFParams, membrane: Membrane | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs a layer of neurons (:mod:`svitkit.lif`) from rest.

    Args:
        x: (T, ...) float32, input currents.
        params: the layer's constants.
        membrane: the grid to which potentials are rounded between time steps, currents having been rounded too; None
            for none of this.

    Returns:
        s: (T, ...) float32, spikes.
        h: (T, ...) float32, potentials before the reset.
    """
    if membrane is not None:
        x = torch.floor(x * CURRENT_STEPS + 0.5) / CURRENT_STEPS
    v, rest = torch.full_like(x[0], params.v_initial), params.v_initial
    h, s = torch.empty_like(x), torch.empty_like(x)
    for t in range(len(x)):
        over = v - rest
        h[t] = v + (x[t] - over) / params.tau if params.decay_input else v - over / params.tau + x[t]
        fired = h[t] >= params.v_threshold
        s[t] = fired
        v = h[t] - params.v_threshold * fired if params.v_reset is None else h[t].masked_fill(fired, params.v_reset)
        if membrane is not None:
            steps = 2.0**membrane.fraction
            v = torch.floor(v * steps + 0.5).clamp_(membrane.low, membrane.high) / steps
    return s, h


class QuantizeMembrane:
    """A hook behind a layer of neurons that computes its spikes again, with rounded potentials."""

    def __init__(self, params: LIFParams, membrane: Membrane) -> None:
        """Keeps the layer's constants and its grid."""
        self.params, self.membrane = params, membrane

    def __call__(self, module: nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> torch.Tensor:
        """Returns the spikes (T, ...) float32."""
        return run_neurons(given[0], self.params, self.membrane)[0]


def quantize_membranes(model: nn.Module, quantization: QuantizationSpec | None) -> None:
    """Makes a network round its membrane potentials as its description says, instead of what it did before.

    Raises:
        ConfigError: the description names a layer that has no neurons, or none that can compute in integers.
    """
    layers = neuron_layers(model)
    for node in layers.values():
        for key, hook in list(node._forward_hooks.items()):
            if isinstance(hook, QuantizeMembrane):
                del node._forward_hooks[key]
    for name, membrane in ({} if quantization is None else quantization.membranes).items():
        if name not in layers:
            raise ConfigError(f"the network quantizes the membrane of '{name}', which is no layer of neurons.")
        params = lif_params(layers[name], name)
        reason = why_not_integer(params)
        if reason is not None:
            raise ConfigError(f"the network quantizes the membrane of '{name}', but its {reason}.")
        layers[name].register_forward_hook(QuantizeMembrane(params, membrane))


def membrane_of(node: nn.Module) -> Membrane | None:
    """Returns the grid of a layer's potentials, None where they are float32."""
    hooks = [hook for hook in node._forward_hooks.values() if isinstance(hook, QuantizeMembrane)]
    return hooks[0].membrane if hooks else None
