"""Accuracy and size of candidates, on batches that are prepared once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from spikingjelly.activation_based import functional
from torch import nn

from svitkit.compress.journal import Measurement, Stopped, plan_key
from svitkit.compress.prefix import Prefix
from svitkit.compress.quantize import QuantizedNetwork
from svitkit.compress.shortcuts import shortcuts
from svitkit.compress.tally import Tally
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


def load_batches(
    dataset: Dataset,
    split: str,
    *,
    timesteps: int,
    limit: int | None = None,
    seed: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[Batch]:
    """Prepares a split's batches.

    Args:
        dataset: the data.
        split: ``train``, ``validation`` or ``test``.
        timesteps: T.
        limit: at most that many samples, spread evenly over the split.
        seed: shuffles the samples; None keeps the stored order.
        batch_size: samples per batch; the last one may be smaller.

    Returns:
        Pairs of (T, B, C, H, W) float32 and (B,) int64 labels.

    Raises:
        ConfigError: the split holds no samples.
    """
    loaded = list(batches(dataset, split, batch_size=batch_size, timesteps=timesteps, seed=seed, limit=limit))
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


class RightAnswers:
    """Counts the right answers of networks on the validation split, beside those of the whole network."""

    def __init__(self, model: nn.Module, validation: list[Batch], *, stops: bool) -> None:
        """Keeps what all counts share.

        Args:
            model: the whole network.
            validation: batches on which decisions are made, in random order.
            stops: whether a count may end where the floor is missed.
        """
        self._model, self._validation, self._stops = model, validation, stops
        self._total = sum(len(y) for _, y in validation)
        self._whole: torch.Tensor | None = None

    def count(self, model: nn.Module, floor: float | None) -> Tally:
        """Counts for a network; how far it is below ``floor`` percent need not be known."""
        floor = floor if self._stops else None
        if floor is not None:
            self.prepare()
        tally = Tally(self._total, floor, self._whole)
        self._run(model, tally)
        return tally

    def prepare(self) -> None:
        """Finds out which images the whole network gets right."""
        if self._whole is None and self._stops:
            self._whole = self._run(self._model, Tally(self._total, None, None))

    def _run(self, model: nn.Module, tally: Tally) -> torch.Tensor:
        """Counts as far as the tally needs it; returns (N,) bool, which of the images looked at are right."""
        answers = []
        with shortcuts(model), torch.inference_mode():
            for x, y in self._validation:
                answers.append(forward_logits(model, x).argmax(1) == y)
                if not tally.add(answers[-1]):
                    break
        return torch.cat(answers)


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

    def __init__(
        self,
        model: nn.Module,
        validation: list[Batch],
        repair: Repair | None = None,
        *,
        reuse_bytes: int | None = None,
        sparse: bool = False,
    ) -> None:
        """Keeps what all candidates share.

        Args:
            model: the network before this search; it is not changed.
            validation: batches on which decisions are made, in random order.
            repair: what is done to a network after channels were removed; None for nothing.
            reuse_bytes: memory for the outputs of modules that candidates share; evaluations stop early where the floor
                is missed. None for the plain way, in which every candidate runs whole on every image; what passes the
                floor has the same accuracy either way.
            sparse: whether candidates are stored without zeros where that is smaller.
        """
        self._model = model
        self._validation = validation
        self._repair = repair
        self._fast = reuse_bytes is not None
        self._sparse = sparse
        self._prefix = Prefix([x for x, _ in validation], reuse_bytes or 0)
        self._whole: torch.Tensor | None = None

    def build(self, plan: PrunePlan) -> nn.Module:
        """Returns the network without the channels that ``plan`` removes, repaired; an empty plan changes nothing."""
        functional.reset_net(self._model)  # what its neurons hold from the last run need not be copied
        model = copy.deepcopy(self._model)
        if plan.groups:
            apply_plan(model, plan)
            if self._repair is not None:
                self._repair(model, plan)
        return model

    def measure(self, plan: PrunePlan, *, floor: float | None = None) -> Measurement:
        """Measures a candidate.

        Args:
            plan: what it lacks.
            floor: accuracy in percent; how far below it a candidate is need not be known. None to know it in any case.
        """
        model = self.build(plan)
        found, stopped = self._count(model, plan, floor) if self._fast else (accuracy(model, self._validation), None)
        return Measurement(key=plan_key(plan), accuracy=found, parameter_bytes=self.size(model), stopped=stopped)

    def prepare(self) -> None:
        """Finds out what every candidate is compared with, if anything is; copies made afterwards know it."""
        if self._fast and self._whole is None:
            self.measure(PrunePlan())

    def _count(self, model: nn.Module, plan: PrunePlan, floor: float | None) -> tuple[float, Stopped | None]:
        if floor is not None:
            self.prepare()
        tally = Tally(sum(len(y) for _, y in self._validation), floor, self._whole)
        answers = []
        with shortcuts(model), torch.inference_mode():
            run = self._prefix.start(model, plan)
            for at, (_, y) in enumerate(self._validation):
                answers.append(run.logits(at).argmax(1) == y)
                if not tally.add(answers[-1]):
                    break
        if not plan.groups and tally.complete:
            self._whole = torch.cat(answers)
        return tally.accuracy(), tally.stopped()

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
        return parameter_bytes(model, self._validation[0][0][:, :1], quantization, sparse=self._sparse)
