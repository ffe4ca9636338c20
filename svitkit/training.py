"""Training a network from scratch, up to its checkpoint; the test split is measured once, on the weights from disk."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from svitkit.accuracy import accuracy
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError
from svitkit.fitting import FitResult, Report, fit
from svitkit.models.checkpoint import Checkpoint, check_target, load_checkpoint, save_checkpoint
from svitkit.models.families import build_family
from svitkit.models.run import example_input
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import ModelSpec
from svitkit.presets import PRESETS, FitOptions, find_preset

STATE_SUFFIX = ".training.pt"


def train(
    arch: str,
    dataset: Dataset,
    out: Path,
    *,
    options: FitOptions | None = None,
    arguments: dict[str, Any] | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> Checkpoint:
    """Trains a network from scratch and writes its checkpoint.

    A training that was killed continues when it is started again with the same arguments.

    Args:
        arch: a name of ``svitkit.presets.PRESETS`` (every family has one).
        dataset: the data; they tell channels, frame size and classes.
        out: the checkpoint directory.
        options: how; the preset's if None.
        arguments: override the preset's arguments of the family.
        report: told after every step.
        device: where PyTorch computes.

    Returns:
        The checkpoint as read back from disk; ``provenance`` has the accuracies.

    Raises:
        ConfigError: the name or the device is unknown, the arguments do not fit each other or the data, or ``out`` is
            taken.
    """
    preset = find_preset(arch)
    if device != "cpu" and not (device.split(":")[0] == "cuda" and torch.cuda.is_available()):
        raise ConfigError(f"there is no device '{device}' here. Use 'cpu', or 'cuda' where PyTorch sees a GPU.")
    check_target(out)
    options = options or preset.fit
    spec = _fresh_spec(arch, dataset, options, arguments or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = build_family(spec.family, spec.arguments)
    spec = replace(spec, original_parameter_bytes=parameter_bytes(model, example_input(spec)))
    state = out.with_name(out.name + STATE_SUFFIX)
    begun = time.monotonic()
    result = fit(model.to(device), dataset, options, report=report, state=state)
    spec = replace(spec, provenance=_provenance(arch, dataset, options, result, time.monotonic() - begun))
    save_checkpoint(out, model.cpu(), spec)
    reached = accuracy(load_checkpoint(out).model, dataset, "test", timesteps=options.timesteps)
    spec = replace(spec, provenance={**spec.provenance, "test_accuracy_percent": round(reached, 4)})
    save_checkpoint(out, model, spec)
    state.unlink(missing_ok=True)
    return load_checkpoint(out)


def _fresh_spec(arch: str, dataset: Dataset, options: FitOptions, arguments: dict[str, Any]) -> ModelSpec:
    channels, height, width = dataset.shape
    told = {
        "T": options.timesteps,
        "in_channels": channels,
        "img_size_h": height,
        "img_size_w": width,
        "num_classes": len(dataset.class_names),
    }
    fixed = sorted(told.keys() & arguments.keys())
    if fixed:
        raise ConfigError(f"'{fixed[0]}' comes from the data and the options, and cannot be given as an argument.")
    return ModelSpec(
        family=PRESETS[arch].family,
        arguments={**told, **PRESETS[arch].arguments, **arguments},
        timesteps=options.timesteps,
        input_shape=dataset.shape,
        static_input=dataset.static,
        normalization=dataset.normalization,
        class_names=dataset.class_names,
        original_parameter_bytes=0,
    )


def _provenance(arch: str, dataset: Dataset, options: FitOptions, result: FitResult, seconds: float) -> dict[str, Any]:
    return {
        "architecture": arch,
        "data": dataset.name,
        "samples": {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)},
        "options": asdict(options),
        "best_epoch": result.best_epoch,
        "validation_accuracy_percent": round(result.validation_accuracy, 4),
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
