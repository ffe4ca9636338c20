"""The report of one comparison of latencies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Key of the report -> the variants of which the fastest counts.
FIGURES = {
    "svitkit_fp32_ms": ("svitkit_fp32",),
    "svitkit_int8_ms": ("svitkit_int8",),
    "svitkit_int4_ms": ("svitkit_int4",),
    "ort_fp32_ms": ("ort_fp32_scan", "ort_fp32_unrolled"),
    "ort_int8_ms": ("ort_int8",),
    "torch_ms": ("torch",),
    "openvino_fp32_ms": ("openvino_f32",),
    "openvino_best_ms": ("openvino_f32", "openvino_bf16", "openvino_int8"),
    "ncnn_ms": ("ncnn",),
}
PEER = "ort_fp32_ms"


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """What was measured.

    Attributes:
        network, threads, device: what ran, on how many threads, and where.
        rate: spikes per neuron and time step that were asked for; None for a network's own.
        rates: layer -> spikes per neuron and time step on the timed images, with float32 weights.
        integer_rates: method of ``svitkit compress`` -> the same of the network with such weights.
        p50_ms: key of ``FIGURES`` -> median of the fastest variant; None if none runs the network.
        reasons: key or variant -> why there is no figure.
        fastest: key -> the variant that its figure is of.
        samples_ms: variant -> every sample.
        cpu_p50_ms: variant -> median of the processor time of a sample, of all threads together.
        same_logits_percent: variant -> share of images with the logits of ONNX Runtime on the exported file, up to
            1e-4. Floats are added in another order by everyone, and one neuron in 1e5 whose potential rounds to the
            other side of its threshold changes what all layers behind it do. svitkit's integer variants are held
            against ONNX Runtime on their own files, with which they agree in every bit.
        max_abs_diff: variant -> largest difference of a logit from those.
    """

    network: str
    threads: int
    device: str | None
    rate: float | None
    rates: dict[str, float]
    integer_rates: dict[str, dict[str, float]]
    p50_ms: dict[str, float | None]
    reasons: dict[str, str]
    fastest: dict[str, str]
    samples_ms: dict[str, list[float]]
    cpu_p50_ms: dict[str, float]
    same_logits_percent: dict[str, float]
    max_abs_diff: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report's JSON object; the medians stand at its top."""
        content = asdict(self)
        return {**content.pop("p50_ms"), **content}
