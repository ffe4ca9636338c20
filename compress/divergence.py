"""How far a network's answers are from another's, finer than accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from svitkit.compress.evaluate import Batch
from svitkit.models.fused_lif import fused_neurons
from svitkit.models.run import forward_logits


class Reference:
    """A network's class probabilities on some images."""

    def __init__(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        """Runs the network once.

        Args:
            model: the network, in evaluation mode; it is not kept.
            batches: (T, B, C, H, W) float32 and labels.
        """
        self._batches = batches
        self._wanted = _log_probabilities(model, batches)

    def compare(self, model: nn.Module) -> tuple[float, float]:
        """Compares another network with it.

        Returns:
            Mean Kullback-Leibler divergence, in nats, of the network's probabilities from the reference's; and the
            network's accuracy on these images in percent.
        """
        distance = right = total = 0.0
        answers = _log_probabilities(model, self._batches)
        for (_, labels), wanted, got in zip(self._batches, self._wanted, answers, strict=True):
            distance += float((wanted.exp() * (wanted - got)).sum())
            right += float((got.argmax(1) == labels).sum())
            total += len(labels)
        return distance / total, 100.0 * right / total


def _log_probabilities(model: nn.Module, batches: Sequence[Batch]) -> list[torch.Tensor]:
    with torch.no_grad(), fused_neurons(model):
        return [forward_logits(model, x).double().log_softmax(1) for x, _ in batches]
