"""Batch norm statistics, estimated again after channels are gone.

Removing inputs of a layer shifts the distribution that its batch norm was calibrated for. Averaging the statistics of a
few hundred training images, without touching a weight, mends that. (Common practice; no part of PrimeSVT's abstract.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from svitkit.models.plan import PrunePlan
from svitkit.models.run import forward_logits


def normalize_to(model: nn.Module, inputs: Iterable[torch.Tensor]) -> None:
    """Replaces the running statistics of every batch norm by the average over ``inputs``, in place.

    Args:
        model: the network, in evaluation mode; it stays so.
        inputs: batches of (T, B, C, H, W), images of the training split.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            for x in inputs:
                forward_logits(model, x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


@dataclass(frozen=True, eq=False)
class Recalibration:
    """The repair that estimates every batch norm again (see :data:`svitkit.compress.evaluate.Repair`).

    Attributes:
        inputs: batches of (T, B, C, H, W) float32, images of the training split.
    """

    inputs: Sequence[torch.Tensor]

    def __call__(self, model: nn.Module, plan: PrunePlan) -> None:
        """Mends a pruned network in place.

        Args:
            model: the network, in evaluation mode.
            plan: what was removed; it makes no difference here.
        """
        normalize_to(model, self.inputs)
