"""Firing rates of a trained network, measured in torch."""

from __future__ import annotations

import torch

from svitkit.models.run import forward_spikes


def firing_rates(model: torch.nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    """Counts spikes.

    Args:
        model: the network; its neurons are reset before the run.
        inputs: (T, N, C, H, W) float32, normalized inputs.

    Returns:
        Qualified layer name -> spikes per neuron and time step (0..1), for every layer that ran.
    """
    _, spikes = forward_spikes(model, inputs)
    return {name: values.mean().item() for name, values in spikes.items()}
