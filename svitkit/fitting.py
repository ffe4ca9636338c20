"""Fitting weights: the one loop of training and fine-tuning.

Every decision (which epoch is kept) is taken on the validation split; the test split has no influence.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from svitkit.accuracy import accuracy, device_of
from svitkit.data.augment import augment
from svitkit.data.dataset import Dataset, sequence
from svitkit.errors import ConfigError
from svitkit.files import write_bytes
from svitkit.models.fused_lif import fused_neurons
from svitkit.models.run import forward_logits
from svitkit.presets import FitOptions

TEMPERATURE = 2.0
SAVE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where a training stands, reported after every step.

    Attributes:
        epoch: the running epoch, from 0.
        epochs: how many there are.
        step: steps done in all, the epochs before included.
        steps: how many there are in all.
        share: of the work that is done, 0..1; a step costs as much as it has time steps.
        loss: of the last step.
        validation_accuracy: percent, of the epoch that has just ended; None within an epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    share: float
    loss: float
    validation_accuracy: float | None = None


Report = Callable[[TrainingProgress], None]
Penalty = Callable[[nn.Module], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """How a training went.

    Attributes:
        best_epoch: whose weights the network now has, from 0.
        validation_accuracy: percent, of that epoch.
        history: validation accuracy of every epoch that was run.
    """

    best_epoch: int
    validation_accuracy: float
    history: tuple[float, ...]


def fit(
    model: nn.Module,
    dataset: Dataset,
    options: FitOptions,
    *,
    teacher: nn.Module | None = None,
    penalty: Penalty | None = None,
    first_epoch: int = 0,
    on_epoch: Callable[[int], None] | None = None,
    report: Report | None = None,
    state: Path | None = None,
) -> FitResult:
    """Fits a network's weights in place; at the end it has those of its best epoch on the validation split.

    Args:
        model: the network, fresh or trained, pruned or whole.
        dataset: the data.
        options: how.
        teacher: a network for the same data whose answers are learned along with the labels, by the share
            ``options.distillation``; in evaluation mode.
        penalty: what is added to the loss of every step, a function of the network right after its forward pass.
        first_epoch: where in the schedule of learning rates the training begins; so many epochs fewer are run.
        on_epoch: told the number of an epoch at its end, from 0, while ``model`` has the weights of that end. After a
            stop it may be told an epoch again, with the same weights.
        report: told after every step.
        state: file that the state is written to every two minutes and after every epoch, and continued from if it
            exists. It is left for the caller to remove.

    Returns:
        Accuracies on the validation split; the model is in evaluation mode.

    Raises:
        ConfigError: the loss is not finite, the schedule has no such epoch, or the state file belongs to another
            training.
    """
    with _fast(model):
        run = _Run(model, dataset, options, teacher, first_epoch, penalty)
        if state is not None and state.exists():
            run.load(state)
        saved = time.monotonic()
        for epoch in range(run.next_epoch, options.epochs):
            loss = 0.0
            for step, loss in run.epoch(epoch):
                if report:
                    report(run.progress(epoch, step, loss))
                if state is not None and time.monotonic() - saved > SAVE_SECONDS:
                    run.save(state)
                    saved = time.monotonic()
            run.judge()
            if on_epoch:
                on_epoch(epoch)
            if state is not None:
                run.save(state)
                saved = time.monotonic()
            if report:
                report(run.progress(epoch, run.steps_per_epoch, loss, run.history[-1]))
        return run.finish()


@contextmanager
def _fast(model: nn.Module) -> Iterator[None]:
    """Orders weights and neurons as a CPU trains them fastest."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with fused_neurons(model):
            yield
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


class _Run:
    """One training under way: weights, optimizer, and the best epoch so far."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        options: FitOptions,
        teacher: nn.Module | None = None,
        first_epoch: int = 0,
        penalty: Penalty | None = None,
    ) -> None:
        self.model, self.dataset, self.options, self.teacher = model, dataset, options, teacher
        self.penalty = penalty
        if not 0 <= first_epoch < options.epochs:
            raise ConfigError(f"a training of {options.epochs} epochs cannot begin at epoch {first_epoch}.")
        self.first_epoch = first_epoch
        if not len(dataset.validation):
            raise ConfigError(f"data '{dataset.name}' has no validation split to choose the best epoch on.")
        if len(dataset.train) < 2:
            raise ConfigError(f"data '{dataset.name}' has {len(dataset.train)} training samples, wanted 2 or more.")
        self.steps_per_epoch = max(1, len(dataset.train) // options.batch_size)
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, options.weight_decay), lr=options.lr)
        if options.single_step_epochs and not dataset.static:
            raise ConfigError(
                f"data '{dataset.name}' holds event recordings, which a single time step would blur. "
                f"Train with single_step_epochs=0."
            )
        self.history: list[float] = []
        self.done = 0
        self.best_epoch = first_epoch
        self.best: dict[str, torch.Tensor] = {}

    @property
    def next_epoch(self) -> int:
        """The epoch that is under way or comes next."""
        return self.first_epoch + len(self.history)

    def epoch(self, epoch: int) -> Iterator[tuple[int, float]]:
        """Passes over what is left of the training split; everything random depends on seed, epoch and step alone."""
        order = np.random.default_rng([self.options.seed, epoch]).permutation(len(self.dataset.train))
        size = self.options.batch_size
        while self.done < self.steps_per_epoch:
            step = self.done
            self.model.train()
            rate = _learning_rate(self.options, epoch * self.steps_per_epoch + step, self.steps_per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            rng = np.random.default_rng([self.options.seed, epoch, step])
            with torch.random.fork_rng(devices=[]):  # dropout in a user's class draws from torch
                torch.manual_seed(int(np.random.default_rng([self.options.seed, epoch, step, 1]).integers(2**63)))
                loss = self._step(order[step * size : (step + 1) * size], rng, self.options.timesteps_in(epoch))
            self.done += 1
            yield self.done, loss

    def _step(self, index: np.ndarray[Any, Any], rng: np.random.Generator, timesteps: int) -> float:
        device = device_of(self.model)
        samples = augment(self.dataset.train.x[index], self.options, rng)
        x = torch.from_numpy(np.array(sequence(samples, self.dataset, timesteps=timesteps))).to(device)
        y = torch.from_numpy(self.dataset.train.y[index]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.bf16):
            logits = forward_logits(self.model, x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.options.label_smoothing)
        if self.teacher is not None and self.options.distillation:
            loss = torch.lerp(loss, self._distance(logits.float(), x), self.options.distillation)
        if self.penalty is not None:
            loss = loss + self.penalty(self.model)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(
                f"the training diverged: the loss is {value}. Choose a learning rate below {self.options.lr}."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
        self.optimizer.step()
        return value

    def _distance(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Returns how far answers are from the teacher's: Kullback-Leibler divergence, both softened.

        Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
        """
        assert self.teacher is not None
        device = device_of(self.model)
        with (
            torch.no_grad(),
            fused_neurons(self.teacher),
            torch.autocast(device.type, torch.bfloat16, enabled=self.options.bf16),
        ):
            wanted = forward_logits(self.teacher, x).float()
        soft = TEMPERATURE
        divergence = F.kl_div(
            F.log_softmax(logits / soft, 1), F.log_softmax(wanted / soft, 1), reduction="batchmean", log_target=True
        )
        return divergence * soft**2

    def judge(self) -> None:
        """Measures the validation split and keeps the weights if no epoch was better; of equals the later one.

        Epochs of a single time step are measured so, and never kept.
        """
        epoch = self.next_epoch
        timesteps = self.options.timesteps_in(epoch)
        reached = accuracy(self.model, self.dataset, "validation", timesteps=timesteps)
        comparable = max(0, self.options.single_step_epochs - self.first_epoch)
        if reached >= max(self.history[comparable:], default=0.0):
            self.best_epoch = epoch
            self.best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        self.history.append(reached)
        self.done = 0

    def progress(self, epoch: int, step: int, loss: float, reached: float | None = None) -> TrainingProgress:
        """Says where the training stands."""
        costs = [self.options.timesteps_in(each) for each in range(self.first_epoch, self.options.epochs)]
        at = epoch - self.first_epoch
        done = sum(costs[:at]) + costs[at] * step / self.steps_per_epoch
        return TrainingProgress(
            epoch=epoch,
            epochs=self.options.epochs,
            step=epoch * self.steps_per_epoch + step,
            steps=self.options.epochs * self.steps_per_epoch,
            share=done / sum(costs),
            loss=loss,
            validation_accuracy=reached,
        )

    def finish(self) -> FitResult:
        """Gives the network its best weights."""
        self.model.load_state_dict(self.best)
        self.model.eval()
        return FitResult(
            best_epoch=self.best_epoch,
            validation_accuracy=self.history[self.best_epoch - self.first_epoch],
            history=tuple(self.history),
        )

    def save(self, path: Path) -> None:
        """Writes everything that the next epoch depends on."""
        content = {
            "options": asdict(self.options),
            "data": [self.dataset.name, len(self.dataset.train)],
            "first_epoch": self.first_epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "done": self.done,
            "best_epoch": self.best_epoch,
            "best": self.best,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Continues from what :meth:`save` wrote."""
        try:
            content = torch.load(path, map_location=device_of(self.model), weights_only=True)
            same = content["options"] == asdict(self.options)
            same = same and content["data"] == [self.dataset.name, len(self.dataset.train)]
            same = same and content["first_epoch"] == self.first_epoch
            if same:
                self.model.load_state_dict(content["model"])
                self.optimizer.load_state_dict(content["optimizer"])
        except Exception as error:  # a damaged file may fail anywhere in PyTorch
            raise ConfigError(
                f"cannot continue from '{path}': {type(error).__name__}. Remove it to begin anew."
            ) from None
        if not same:
            raise ConfigError(f"'{path}' belongs to a training with other options or data. Remove it to begin anew.")
        self.history, self.best_epoch, self.done = content["history"], content["best_epoch"], content["done"]
        self.best = {name: value.cpu() for name, value in content["best"].items()}


def _learning_rate(options: FitOptions, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a half cosine: ``lr * (1 + cos(pi * p)) / 2`` with p from 0 to 1."""
    total, warmup = options.epochs * steps_per_epoch, options.warmup_epochs * steps_per_epoch
    warmup = min(warmup, total / 2)
    if step < warmup:
        return options.lr * (step + 1) / (warmup + 1)
    return options.lr * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Divides parameters into matrices, which decay, and vectors (biases, batch norms), which do not."""
    every = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in every if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in every if parameter.ndim < 2], "weight_decay": 0.0},
    ]
