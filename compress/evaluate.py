"""Accuracy and size of candidates, on batches that are prepared once."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import torch
from torch import nn

from svitkit.compress.quantize import QuantizedNetwork
from svitkit.compress.recalibrate import normalize_to
from svitkit.data.dataset import SPLITS, Dataset, Split, batches, sample_order
from svitkit.errors import ConfigError
from svitkit.manifest import Normalization, to_json
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import forward_logits
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import QuantizationSpec

BATCH_SIZE = 64
Batch = tuple[torch.Tensor, torch.Tensor]


def load_batches(dataset: Dataset, split: str, *, timesteps: int, limit: int | None = None) -> list[Batch]:
    """Prepares a split's batches.

    Args:
        dataset: the data.
        split: ``train``, ``validation`` or ``test``.
        timesteps: T.
        limit: at most that many samples, spread evenly over the split.

    Returns:
        Pairs of (T, B, C, H, W) float32 and (B,) int64 labels.

    Raises:
        ConfigError: the split holds no samples.
    """
    loaded = list(batches(dataset, split, batch_size=BATCH_SIZE, timesteps=timesteps, limit=limit))
    if not loaded:
        raise ConfigError(f"data '{dataset.name}' has no {split} images, and compression needs some.")
    return loaded


def accuracy(model: nn.Module, prepared: list[Batch]) -> float:
    """Returns the percentage of samples whose largest logit is their label's.

    Args:
        model: the network, in evaluation mode.
        prepared: batches from :func:`load_batches`.
    """
    correct = total = 0
    with torch.inference_mode():
        for x, y in prepared:
            correct += int((forward_logits(model, x).argmax(1) == y).sum())
            total += len(y)
    return 100.0 * correct / total


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """Returns a dataset with at most ``limit`` samples a split, spread evenly over it; None for all."""
    if limit is None:
        return dataset
    train, validation, test = (_first(dataset, name, limit) for name in SPLITS)
    return replace(dataset, train=train, validation=validation, test=test)


def _first(dataset: Dataset, name: str, limit: int) -> Split:
    split = dataset.split(name)
    index = sample_order(dataset, name, seed=None, limit=limit)
    return Split(x=split.x[index], y=split.y[index])


def data_sha256(dataset: Dataset) -> str:
    """Returns a hash of every sample, label and the normalization."""
    digest = hashlib.sha256(to_json(dataset.normalization, Normalization).encode())
    for name in SPLITS:
        split = dataset.split(name)
        for array in (split.x, split.y):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


class Candidates:
    """Builds pruned versions of one network and measures them."""

    def __init__(self, model: nn.Module, validation: list[Batch], recalibration: list[Batch]) -> None:
        """Keeps what all candidates share.

        Args:
            model: the network before this search; it is not changed.
            validation: batches on which decisions are made.
            recalibration: training batches for batch norm statistics; empty to leave them as they are.
        """
        self._model = model
        self._validation = validation
        self._recalibration = [x for x, _ in recalibration]

    def build(self, plan: PrunePlan) -> nn.Module:
        """Returns the network without the channels that ``plan`` removes; an empty plan changes nothing."""
        model = copy.deepcopy(self._model)
        if plan.groups:
            apply_plan(model, plan)
            if self._recalibration:
                normalize_to(model, self._recalibration)
        return model

    def measure(self, plan: PrunePlan) -> tuple[float, int]:
        """Returns accuracy on the validation images in percent, and the bytes of the deployed parameters."""
        model = self.build(plan)
        return accuracy(model, self._validation), self.size(model)

    def recalibrated(self, network: QuantizedNetwork) -> QuantizedNetwork:
        """Returns a quantized network with batch norms calibrated again, if that is asked for and no worse."""
        if not self._recalibration:
            return network
        model = copy.deepcopy(network.model)
        normalize_to(model, self._recalibration)
        no_worse = accuracy(model, self._validation) >= accuracy(network.model, self._validation)
        return replace(network, model=model) if no_worse else network

    def size(self, model: nn.Module, quantization: QuantizationSpec | None = None) -> int:
        """Returns the bytes of a network's deployed parameters."""
        return parameter_bytes(model, self._validation[0][0][:, :1], quantization)
