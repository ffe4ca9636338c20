"""Training after pruning, a few epochs at a low learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from svitkit.compress.evaluate import Batch, accuracy
from svitkit.data.dataset import Dataset
from svitkit.fitting import TrainingProgress, fit
from svitkit.presets import FitOptions

LEARNING_RATE = 5e-4
WARMUP_EPOCHS = 0.2


def finetune(
    model: nn.Module,
    dataset: Dataset,
    validation: list[Batch],
    *,
    options: FitOptions,
    state: Path,
    progress: Callable[[str, int, int], None],
) -> None:
    """Fits a pruned network in place; what is worse on validation than before is undone.

    Args:
        model: the network, in evaluation mode.
        dataset: trained on its training split, judged on its validation split.
        validation: the same validation split, prepared.
        options: how.
        state: file from which a killed training goes on.
        progress: told the stage, steps done, and steps in all.
    """
    before = accuracy(model, validation)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def report(now: TrainingProgress) -> None:
        progress("fine-tune", now.step, now.steps)

    fit(model, dataset, options, report=report, state=state)
    if accuracy(model, validation) < before:
        model.load_state_dict(weights)


def finetune_options(epochs: int, *, timesteps: int, seed: int, samples: int) -> FitOptions:
    """Returns the recipe: AdamW at a low learning rate, no augmentation.

    Args:
        epochs: passes over the training split.
        timesteps: T.
        seed: of the order of the samples.
        samples: size of the training split; batches are never larger.
    """
    return FitOptions(
        epochs=epochs,
        lr=LEARNING_RATE,
        timesteps=timesteps,
        batch_size=min(64, max(2, samples)),
        warmup_epochs=WARMUP_EPOCHS,
        seed=seed,
    )
