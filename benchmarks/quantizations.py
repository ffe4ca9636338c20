"""The report of one way of quantization of one network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What a method made of a network. Accuracies are percent, of the test split where nothing else is said.

    Attributes:
        network, data, method, device: what was quantized with what, and where it was timed.
        max_drop: points that the search might lose on the validation images.
        min_saving: fraction of the parameter bytes that was to be saved at least.
        validation_images: on which the search decided.
        test_images: on which accuracies were measured, once each.
        memory_saving: fraction of the original parameter bytes, by what the bit widths promise.
        accuracy_before, accuracy_after: of the networks.
        validation_before, validation_after: the accuracies that the search saw.
        satisfied: whether both constraints hold on the validation images.
        promised_bytes: of the parameters, by the bit widths.
        weights_bytes: of the parameters in the bundle.
        bundle_bytes: of all files of the bundle.
        peak_bytes: ``VmHWM`` of svit-run.
        latency_before_ms, latency_ms: medians, batch 1, one thread; the two bundles were timed in turn.
        full_evaluations: candidates whose accuracy was measured; 1 where nothing is searched for.
        gated: candidates whose drift was measured.
        rank_correlation: Spearman's, of drift and lost accuracy; None where there is no gate, or too few are known.
        audited, wrongly_rejected: candidates that the gate turned away and that were measured nevertheless, and how
            many of those keep accuracy.
        membranes: bits of the membrane potentials; None for float32.
        bits: bits of a weight -> number of layers.
        floating_point: layers that compute with float32 in the bundle.
        search_s: seconds on one thread.
        search_cpu_s: processor time of the search; on a machine that others use, believe this one.
        reasons: key -> why there is no figure.
    """

    network: str
    data: str
    method: str
    device: str | None
    max_drop: float
    min_saving: float
    validation_images: int
    test_images: int
    memory_saving: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    validation_before: float | None = None
    validation_after: float | None = None
    satisfied: bool | None = None
    promised_bytes: int | None = None
    weights_bytes: int | None = None
    bundle_bytes: int | None = None
    peak_bytes: int | None = None
    latency_before_ms: float | None = None
    latency_ms: float | None = None
    full_evaluations: int | None = None
    gated: int | None = None
    rank_correlation: float | None = None
    audited: int | None = None
    wrongly_rejected: int | None = None
    membranes: int | None = None
    bits: dict[str, int] = field(default_factory=dict)
    floating_point: tuple[str, ...] = ()
    search_s: float | None = None
    search_cpu_s: float | None = None
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report's JSON object."""
        return asdict(self)


def from_dict(content: dict[str, Any]) -> Quantization:
    """Reads what :meth:`Quantization.to_dict` returns."""
    return Quantization(**{**content, "floating_point": tuple(content["floating_point"])})
