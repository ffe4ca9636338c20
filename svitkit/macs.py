"""How many multiply-accumulates an inference has if nothing is skipped."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from svitkit.models.run import forward_logits


def count_macs(model: nn.Module, x: torch.Tensor) -> int:
    """Counts the dense multiply-accumulates of one inference over all time steps.

    Convolutions, linear layers and matrix products of activations count, whatever fires; batch norms fold away, and
    masks that are multiplied element by element are additions of spikes. A layer that sees one image at every time step
    counts every time.

    Args:
        model: the network; its neurons are reset before the run.
        x: (T, B, C, H, W) float32, any input of the right shape.
    """
    counter = FlopCounterMode(display=False)
    training = model.training
    try:
        model.eval()
        with torch.no_grad(), counter:
            forward_logits(model, x)
    finally:
        model.train(training)
    return counter.get_total_flops() // 2 // x.shape[1]
