"""Running a network of any family: the one way in which every stage calls it."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional
from torch import nn

from svitkit.errors import ConfigError
from svitkit.models.neurons import neuron_layers
from svitkit.models.spec import ModelSpec


def example_input(spec: ModelSpec, batch: int = 1) -> torch.Tensor:
    """Returns zeros in the shape of the network's input.

    Returns:
        x: (T, B, C, H, W) float32.
    """
    return torch.zeros(spec.timesteps, batch, *spec.input_shape)


def forward_logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Runs a network on fresh state.

    Args:
        model: the network; every neuron is reset first.
        x: (T, B, C, H, W) float32, normalized input.

    Returns:
        logits: (B, classes), the mean over time where the network has logits for every time step.

    Raises:
        ConfigError: the network returns something else.
    """
    functional.reset_net(model)
    logits = model(x)
    if not isinstance(logits, torch.Tensor) or logits.ndim not in (2, 3):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"the network returned {got}, wanted logits of shape (B, classes) or (T, B, classes).")
    if logits.shape[-2] != x.shape[1]:
        raise ConfigError(
            f"the network returned logits of shape {tuple(logits.shape)} for a batch of {x.shape[1]}, "
            f"wanted (B, classes) or (T, B, classes)."
        )
    return logits.mean(0) if logits.ndim == 3 else logits


def forward_spikes(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Runs a network on fresh state and keeps what every layer of neurons fired.

    Args:
        model: the network.
        x: (T, B, C, H, W) float32, normalized input.

    Returns:
        logits: (B, classes).
        spikes: for every layer that ran (T, B, ...) float32 of 0 and 1, by qualified name, in the order of execution.

    Raises:
        UnsupportedError: a layer's neurons are not LIF neurons.
    """
    spikes: dict[str, torch.Tensor] = {}

    def keep(name: str) -> object:
        return lambda _module, _inputs, output: spikes.__setitem__(name, output.detach())

    handles = [module.register_forward_hook(keep(name)) for name, module in neuron_layers(model).items()]
    try:
        with torch.no_grad():
            logits = forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return logits, spikes
