"""Accuracy and size of candidates, on batches that are prepared once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from svitkit.compress.quantize import QuantizedNetwork
from svitkit.data.dataset import SPLITS, Dataset, Split, batches, sample_order
from svitkit.errors import ConfigError
from svitkit.manifest import Normalization, to_json
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import forward_logits
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import QuantizationSpec

BATCH_SIZE = 64
Batch = tuple[torch.Tensor, torch.Tensor]

Repair = Callable[[nn.Module, PrunePlan], None]
"""Mends a network in place after channels were removed; told the network, in evaluation mode, and what was removed.

It must give the same network for the same plan every time, and picklable if candidates are measured elsewhere.
"""


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

    def __init__(self, model: nn.Module, validation: list[Batch], repair: Repair | None = None) -> None:
        """Keeps what all candidates share.

        Args:
            model: the network before this search; it is not changed.
            validation: batches on which decisions are made.
            repair: what is done to a network after channels were removed; None for nothing.
        """
        self._model = model
        self._validation = validation
        self._repair = repair

    def build(self, plan: PrunePlan) -> nn.Module:
        """Returns the network without the channels that ``plan`` removes, repaired; an empty plan changes nothing."""
        model = copy.deepcopy(self._model)
        if plan.groups:
            apply_plan(model, plan)
            if self._repair is not None:
                self._repair(model, plan)
        return model

    def measure(self, plan: PrunePlan) -> tuple[float, int]:
        """Returns accuracy on the validation images in percent, and the bytes of the deployed parameters."""
        model = self.build(plan)
        return accuracy(model, self._validation), self.size(model)

    def repaired(self, network: QuantizedNetwork) -> QuantizedNetwork:
        """Returns a quantized network after the repair, if there is one and it makes accuracy no worse."""
        if self._repair is None:
            return network
        model = copy.deepcopy(network.model)
        self._repair(model, PrunePlan())
        no_worse = accuracy(model, self._validation) >= accuracy(network.model, self._validation)
        return replace(network, model=model) if no_worse else network

    def size(self, model: nn.Module, quantization: QuantizationSpec | None = None) -> int:
        """Returns the bytes of a network's deployed parameters."""
        return parameter_bytes(model, self._validation[0][0][:, :1], quantization)
