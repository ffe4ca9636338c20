"""Training after pruning, a few epochs at a low learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from svitkit.compress.evaluate import Batch, accuracy
from svitkit.data.dataset import Dataset
from svitkit.fitting import TrainingProgress, fit
from svitkit.models.spec import ModelSpec
from svitkit.presets import FitOptions

LEARNING_RATE = 5e-4
WARMUP_EPOCHS = 0.2
TAKEN = ("batch_size", "label_smoothing", "shift_pixels", "rotate_degrees", "scale_percent", "flip", "bf16")


def finetune(
    model: nn.Module,
    dataset: Dataset,
    validation: list[Batch],
    *,
    teacher: nn.Module,
    options: FitOptions,
    state: Path,
    progress: Callable[[str, int, int], None],
) -> None:
    """Fits a pruned network in place; what is worse on validation than before is undone.

    Args:
        model: the network, in evaluation mode.
        dataset: trained on its training split, judged on its validation split.
        validation: the same validation split, prepared.
        teacher: the network before it was pruned, whose answers are learned along with the labels.
        options: how.
        state: file from which a killed training goes on.
        progress: told the stage, steps done, and steps in all.
    """
    before = accuracy(model, validation)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def report(now: TrainingProgress) -> None:
        progress("fine-tune", now.step, now.steps)

    fit(model, dataset, options, teacher=teacher, report=report, state=state)
    if accuracy(model, validation) < before:
        model.load_state_dict(weights)


def finetune_options(epochs: int, *, spec: ModelSpec, seed: int, samples: int) -> FitOptions:
    """Returns the recipe: AdamW at a low learning rate, else as the network was trained.

    Args:
        epochs: passes over the training split.
        spec: the network's; augmentation, precision and batch size come from the training it tells of, if it does.
        seed: of the order of the samples.
        samples: size of the training split; batches are never larger.
    """
    trained = spec.provenance.get("options", {})
    taken = {name: trained[name] for name in TAKEN if name in trained}
    return FitOptions(
        **{
            **taken,
            "epochs": epochs,
            "lr": LEARNING_RATE,
            "timesteps": spec.timesteps,
            "batch_size": min(taken.get("batch_size", 64), max(2, samples)),
            "warmup_epochs": WARMUP_EPOCHS,
            "seed": seed,
        }
    )
