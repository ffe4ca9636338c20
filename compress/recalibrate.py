"""Batch norm statistics, estimated again after channels are gone.

Removing inputs of a layer shifts the distribution that its batch norm was calibrated for. Averaging the statistics of a
few hundred training images, without touching a weight, mends that. (Common practice; no part of PrimeSVT's abstract.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from svitkit.compress.prefix import Key, Prefix
from svitkit.compress.shortcuts import shortcuts
from svitkit.models.plan import PrunePlan
from svitkit.models.removal import find_tensor
from svitkit.models.run import forward_logits


def normalize_to(model: nn.Module, inputs: Iterable[torch.Tensor]) -> None:
    """Replaces the running statistics of every batch norm by the average over ``inputs``, in place.

    Args:
        model: the network, in evaluation mode; it stays so.
        inputs: batches of (T, B, C, H, W), images of the training split.
    """
    with _averaging(model):
        for x in inputs:
            forward_logits(model, x)


def follow(norm: nn.Module, wanted: torch.Tensor, intercept: torch.Tensor, share: torch.Tensor) -> None:
    """Lets a batch norm follow a layer whose weights were replaced, in place.

    How far its statistics were from those of the calibration images stays as it is, in standard deviations.

    Args:
        norm: the batch norm behind the layer.
        wanted: (channels,) float64, means of the layer's outputs before, over the calibration images.
        intercept: (channels,) float64, how far they are above the means now.
        share: (channels,) float64, variance of the outputs now by that before.
    """
    mean = norm.get_buffer("running_mean")
    apart = mean.double() - wanted
    mean.copy_(wanted - intercept + apart * share.sqrt())
    norm.get_buffer("running_var").mul_(share.to(mean.dtype))


class Recalibration:
    """The repair that estimates every batch norm again (see :data:`svitkit.compress.evaluate.Repair`)."""

    def __init__(self, inputs: Sequence[torch.Tensor], *, reuse_bytes: int | None = None) -> None:
        """Keeps the images.

        Args:
            inputs: batches of (T, B, C, H, W) float32, images of the training split.
            reuse_bytes: memory for the outputs of modules that candidates share; None to run every module by
                spikingjelly's neurons. The statistics are the same to the bit.
        """
        self._inputs = inputs
        self._reuse_bytes = reuse_bytes
        self._prefix = Prefix(inputs, reuse_bytes or 0, _running_names)
        self._statistics: dict[Key, dict[str, torch.Tensor]] = {}

    def __call__(self, model: nn.Module, plan: PrunePlan) -> None:
        """Mends a pruned network in place.

        Args:
            model: the network, in evaluation mode.
            plan: what was removed.
        """
        if self._reuse_bytes is None:
            normalize_to(model, self._inputs)
            return
        try:
            self._run(model, plan)
        except BaseException:
            self._prefix.clear()
            raise

    def __getstate__(self) -> dict[str, object]:
        """Leaves what was kept behind: a copy in another process finds it out for itself."""
        return {**vars(self), "_statistics": {}}

    def _run(self, model: nn.Module, plan: PrunePlan) -> None:
        with _averaging(model), shortcuts(model):
            run = self._prefix.start(model, plan)
            for at in range(len(self._inputs)):
                run.logits(at)
        for key in run.used:
            for name, value in self._statistics[key].items():
                find_tensor(model, name).copy_(value)
        for key in run.kept - run.used:
            self._statistics[key] = {
                f"{key[0]}.{name}": find_tensor(model, f"{key[0]}.{name}").clone()
                for name in _running_names(model.get_submodule(key[0]))
            }


@contextmanager
def _averaging(model: nn.Module) -> Iterator[None]:
    """Lets batch norms begin anew and average the statistics of every batch alike."""
    norms = [module for module in model.modules() if _runs(module)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _runs(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and bool(module.track_running_stats)


def _running_names(model: nn.Module) -> frozenset[str]:
    """Names the statistics of all batch norms; while these are in training, no output depends on them."""
    leaves = ("running_mean", "running_var", "num_batches_tracked")
    norms = [name for name, module in model.named_modules() if _runs(module)]
    return frozenset(f"{name}.{leaf}" if name else leaf for name in norms for leaf in leaves)
