"""The report of one way of leaving out tokens or weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sparing:
    """What a method made of a network. Accuracies are percent, of the test split where nothing else is said.

    Attributes:
        network, data, method, device: what was made smaller with what, and where it was timed.
        max_drop: points that might be lost on the validation images.
        validation_images: on which decisions were made.
        test_images: on which accuracies were measured, once each.
        accuracy_before, accuracy_after: of the networks.
        validation_before, validation_after: the accuracies that the method saw.
        satisfied: whether the constraint holds on the validation images.
        operations_before, operations: multiply-accumulates of an inference, dense, over all time steps.
        operations_saving: fraction of them that is saved.
        synaptic_operations_before, synaptic_operations: the same, spikes that are 0 not counted.
        latency_before_ms, latency_ms: medians, batch 1, one thread; the two bundles were timed in turn.
        latency_saving: fraction that is saved.
        sparsity: fraction of the weights of convolutions and linear layers that are 0 or gone.
        weights_bytes_before, weights_bytes: of the parameters as the bundle stores them.
        artifact_saving: fraction of them that is saved.
        bundle_bytes: of all files of the bundle.
        tokens: for every block that computes fewer: name, tokens, computed ones, and how they are chosen.
        ladder: sparsity and accuracy on validation of every round, of a lottery.
        controls: name, sparsity, accuracy on validation and on test of what a ticket was compared with.
        search_s: seconds on one thread; None for what was made before.
        search_cpu_s: processor time of it; on a machine that others use, believe this one.
        reasons: key -> why there is no figure.
    """

    network: str
    data: str
    method: str
    device: str | None
    max_drop: float
    validation_images: int
    test_images: int
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    validation_before: float | None = None
    validation_after: float | None = None
    satisfied: bool | None = None
    operations_before: float | None = None
    operations: float | None = None
    operations_saving: float | None = None
    synaptic_operations_before: float | None = None
    synaptic_operations: float | None = None
    latency_before_ms: float | None = None
    latency_ms: float | None = None
    latency_saving: float | None = None
    sparsity: float | None = None
    weights_bytes_before: int | None = None
    weights_bytes: int | None = None
    artifact_saving: float | None = None
    bundle_bytes: int | None = None
    tokens: tuple[tuple[str, int, int, str], ...] = ()
    ladder: tuple[tuple[float, float], ...] = ()
    controls: tuple[tuple[str, float, float, float], ...] = ()
    search_s: float | None = None
    search_cpu_s: float | None = None
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report's JSON object."""
        return asdict(self)


def from_dict(content: dict[str, Any]) -> Sparing:
    """Reads what :meth:`Sparing.to_dict` returns."""
    lists = {name: tuple(tuple(row) for row in content[name]) for name in ("tokens", "ladder", "controls")}
    return Sparing(**{**content, **lists})
