"""What must hold before times mean anything: whole files, fitting data, golden outputs, and accuracy on the board."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError, VerificationError
from svitkit.manifest import Manifest, ModelMetadata
from svitkit.parts import read_part
from svitkit.runtime.bench.firing_rates import firing_rates, read_taps
from svitkit.runtime.bench.record import Accuracy, Golden
from svitkit.runtime.bench.runner_process import Runner

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset

GOLDEN_INPUT = "golden_input.bin"
GOLDEN_OUTPUT = "golden_output.bin"
PROGRAM = "program.txt"
IMAGES_PER_RUN = 60
Progress = Callable[[str, float], None]
Logits = NDArray[np.float32]


def check_data(dataset: Dataset, model: ModelMetadata) -> None:
    """Raises ConfigError if a network cannot read a dataset or names other classes."""
    wanted = tuple(model.input.shape[-3:])
    if dataset.shape != wanted:
        raise ConfigError(
            f"data '{dataset.name}' are {dataset.shape} (C, H, W), the network reads {wanted}. Give --data that fit."
        )
    if len(dataset.class_names) != len(model.class_names):
        raise ConfigError(
            f"data '{dataset.name}' have {len(dataset.class_names)} classes, the network has {len(model.class_names)}. "
            "Give the --data that it was trained on."
        )
    if model.static_input and not dataset.static:
        raise ConfigError(f"data '{dataset.name}' are recordings, the network reads one image. Give --data of images.")


def check_golden(runner: Runner, bundle: Path, manifest: Manifest) -> tuple[Golden, dict[str, float]]:
    """Runs the golden inputs on the board and compares the logits with those of build time.

    Returns:
        golden: the comparison.
        rates: spikes per neuron and time step on the board, by layer.

    Raises:
        VerificationError: the golden files have the wrong size, or logits are not finite.
    """
    inputs, wanted = read_golden(bundle, manifest)
    taps = read_taps(read_part(bundle, PROGRAM).decode())
    logits, spikes = runner.infer_with_spikes(inputs)
    check_finite(logits)
    difference = float(np.abs(logits - wanted).max())
    mismatches = int((logits.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    golden = Golden(
        match=difference <= manifest.golden_tolerance and mismatches == 0,
        count=len(wanted),
        max_abs_diff=difference,
        tolerance=manifest.golden_tolerance,
        argmax_mismatches=mismatches,
    )
    return golden, firing_rates(spikes, taps)


def read_golden(bundle: Path, manifest: Manifest) -> tuple[NDArray[np.float32], Logits]:
    """Reads a bundle's golden inputs and outputs.

    Returns:
        inputs: (N, elements) float32; in step mode one frame or all T frames each.
        outputs: (N, classes) float32.

    Raises:
        VerificationError: the files have the wrong size.
    """
    count, model = manifest.golden_count, manifest.model
    inputs = _numbers(bundle, GOLDEN_INPUT)
    outputs = _numbers(bundle, GOLDEN_OUTPUT)
    frames = {1, model.timesteps} if model.mode == "step" else {1}
    fits = inputs.size in {count * each * model.input.elements for each in frames}
    if count < 1 or not fits or outputs.size != count * model.output.shape[-1]:
        raise VerificationError(
            f"{bundle}: {inputs.size} golden input and {outputs.size} output numbers are not {count} inputs of shape "
            f"{model.input.shape} and outputs of {model.output.shape[-1]} logits. Build the bundle again."
        )
    return inputs.reshape(count, -1), outputs.reshape(count, -1)


def _numbers(bundle: Path, name: str) -> NDArray[np.float32]:
    content = read_part(bundle, name)
    return np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(np.float32)


def check_finite(logits: Logits) -> None:
    """Raises VerificationError for logits that are no numbers."""
    broken = int((~np.isfinite(logits)).sum())
    if broken:
        raise VerificationError(
            f"{broken} of {logits.size} logits computed on the board are not finite. Check the inputs and build again."
        )


def measure_accuracy(runner: Runner, model: ModelMetadata, dataset: Dataset, limit: int, notify: Progress) -> Accuracy:
    """Classifies test images on the board, normalized as the network was trained.

    Args:
        runner: the bundle on the board.
        model: what the network is.
        dataset: at most ``limit`` images of its test split are shown.
        limit: see above.
        notify: told how far it is.
    """
    right = count = 0
    total = min(limit, len(dataset.test))
    for inputs, labels in accuracy_inputs(dataset, model, limit):
        notify("accuracy", count / total)
        logits = runner.infer(inputs)
        check_finite(logits)
        right += int((logits.argmax(axis=1) == labels).sum())
        count += len(labels)
    notify("accuracy", 1.0)
    return Accuracy(percent=100 * right / count, count=count, dataset=dataset.name)


def accuracy_inputs(
    dataset: Dataset, model: ModelMetadata, limit: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yields what one run of the program on the board gets, with the labels.

    Yields:
        inputs: (B, frames, C, H, W) float32; one frame where the program shows it at every time step, else T.
        labels: (B,) int64.
    """
    from svitkit.data.dataset import sample_order, sequence

    as_trained = dataclasses.replace(dataset, normalization=model.normalization)
    shown_once = model.static_input if model.mode == "sequence" else dataset.static
    order = sample_order(dataset, "test", seed=None, limit=limit)
    for start in range(0, len(order), IMAGES_PER_RUN):
        index = order[start : start + IMAGES_PER_RUN]
        x = sequence(dataset.test.x[index], as_trained, timesteps=model.timesteps)
        yield (x[:1] if shown_once else x).swapaxes(0, 1), dataset.test.y[index]
