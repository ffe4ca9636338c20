"""Fresh networks that spike: for tests and for timing an architecture before it is trained.

With fresh weights and fresh batch norms the currents of a deep spiking network fade below the threshold, and from the
second layer on nothing fires. Agreement between two computations of such a network would prove nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from svitkit.models.run import forward_logits


def liven(model: nn.Module, x: torch.Tensor, *, seed: int = 0) -> None:
    """Sets every batch norm, in order of execution, to give its layer currents at which neurons fire.

    Running statistics become those of the batch; scales are drawn from 1.2..2.2 and biases from 0.2..1.2.

    Args:
        model: the network; its batch norms change in place, and it is left in evaluation mode.
        x: (T, B, C, H, W) float32, normalized input with some variance.
        seed: of scales and biases.
    """
    generator = torch.Generator().manual_seed(seed)

    def prepare(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        given = inputs[0]
        timed = given.ndim == 5 or (given.ndim == 4 and isinstance(module, nn.BatchNorm1d))
        axis = 2 if timed else 1  # (T, B, C, ...) or (T*B, C, ...)
        rest = [i for i in range(given.ndim) if i != axis]
        spread = torch.rand(2, module.num_features, generator=generator)
        for target, value in (
            (module.running_mean, given.mean(rest)),
            (module.running_var, given.var(rest, unbiased=False) + 1e-3),
            (module.weight, 1.2 + spread[0]),
            (module.bias, 0.2 + spread[1]),
        ):
            if target is not None:
                target.copy_(value)

    handles = [m.register_forward_pre_hook(prepare) for m in model.eval().modules() if isinstance(m, _BatchNorm)]
    try:
        with torch.no_grad():
            forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
