"""Proves that an exported file computes what the trained network computes, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from svitkit.errors import ConfigError, VerificationError
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import forward_spikes
from svitkit.onnx_reference import ReferenceRun, ReferenceSession

MIN_SPIKE_AGREEMENT = 0.999
MIN_ARGMAX_AGREEMENT = 1.0
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class LayerAgreement:
    """How far one layer's spikes agree.

    Attributes:
        name: the layer's qualified name.
        spikes: compared spikes, fired or not, over all inputs and time steps.
        differing: how many of them differ.
    """

    name: str
    spikes: int
    differing: int

    @property
    def agreement(self) -> float:
        """Fraction of equal spikes (0..1)."""
        return 1 - self.differing / self.spikes


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What was compared between torch and ONNX Runtime.

    Attributes:
        samples: number of inputs.
        layers: every layer of neurons in the order of execution.
        logits_max_abs_diff: largest absolute difference of a logit.
        argmax_agreement: fraction of inputs with the same class (0..1).
    """

    samples: int
    layers: tuple[LayerAgreement, ...]
    logits_max_abs_diff: float
    argmax_agreement: float

    def require(self) -> None:
        """Does nothing if torch and ONNX Runtime agree.

        Raises:
            VerificationError: a layer or the classes agree less than wanted; names the first layer that differs.
        """
        first = next((layer for layer in self.layers if layer.differing), None)
        origin = "" if first is None else f" The first that differs is {first.name} ({first.agreement:.4%} equal)."
        for layer in self.layers:
            if layer.agreement < MIN_SPIKE_AGREEMENT:
                raise VerificationError(
                    f"layer {layer.name} has {layer.agreement:.4%} of its spikes as in torch, wanted at least "
                    f"{MIN_SPIKE_AGREEMENT:.1%} over {self.samples} inputs.{origin} Export the checkpoint again."
                )
        if self.argmax_agreement < MIN_ARGMAX_AGREEMENT:
            raise VerificationError(
                f"{self.argmax_agreement:.2%} of {self.samples} inputs get the class that torch gives, wanted all; "
                f"logits differ by up to {self.logits_max_abs_diff:.3g}.{origin} Export the checkpoint again."
            )


def verify(path: Path, checkpoint: Checkpoint, inputs: NDArray[np.float32]) -> VerificationReport:
    """Compares an exported file in ONNX Runtime with the network in torch.

    Args:
        path: the file, of either mode; a step model runs T steps from rest.
        checkpoint: the network that it was exported from.
        inputs: (T, N, C, H, W) float32, normalized inputs.

    Raises:
        ConfigError: the inputs have another shape, or the file has other layers than the network.
        VerificationError: see :meth:`VerificationReport.require`.
    """
    report = compare(path, checkpoint, inputs)
    report.require()
    return report


def compare(path: Path, checkpoint: Checkpoint, inputs: NDArray[np.float32]) -> VerificationReport:
    """Does as :func:`verify`, and leaves the judgement to the caller."""
    if inputs.ndim != 5 or inputs.shape[1] == 0:
        raise ConfigError(f"the inputs have shape {inputs.shape}, wanted (T, N, C, H, W) with N of at least 1.")
    session = ReferenceSession(path, spikes=True)
    differing: dict[str, int] = {}
    compared: dict[str, int] = {}
    same_class, worst = 0, 0.0
    for start in range(0, inputs.shape[1], BATCH):
        batch = inputs[:, start : start + BATCH]
        logits, spikes = forward_spikes(checkpoint.model, torch.from_numpy(np.ascontiguousarray(batch)))
        for index in range(batch.shape[1]):
            run = session.run(batch[:, index])
            _count(run, {name: value[:, index].numpy() for name, value in spikes.items()}, differing, compared)
            wanted = logits[index].numpy()
            same_class += int(run.logits.argmax() == wanted.argmax())
            worst = max(worst, float(np.abs(run.logits - wanted).max()))
    return VerificationReport(
        samples=inputs.shape[1],
        layers=tuple(LayerAgreement(name=name, spikes=compared[name], differing=differing[name]) for name in compared),
        logits_max_abs_diff=worst,
        argmax_agreement=same_class / inputs.shape[1],
    )


def _count(
    run: ReferenceRun, wanted: dict[str, NDArray[np.float32]], differing: dict[str, int], compared: dict[str, int]
) -> None:
    if run.spikes.keys() != wanted.keys():
        raise ConfigError(
            f"the file has the neuron layers {', '.join(run.spikes)}, the network {', '.join(wanted)}. "
            f"Give the checkpoint that the file was exported from."
        )
    for name, spikes in wanted.items():
        if spikes.shape != run.spikes[name].shape:
            raise ConfigError(f"layer {name} has shape {run.spikes[name].shape} in the file, {spikes.shape} in torch.")
        differing[name] = differing.get(name, 0) + int((spikes != run.spikes[name]).sum())
        compared[name] = compared.get(name, 0) + spikes.size
