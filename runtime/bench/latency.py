"""Samples of latency: which percentiles they support, and whether they may be believed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True)
# Samples from which a tail percentile can be stated with 99 % confidence although one sample beyond it is an outlier.
# Source: the early-stopping rule of MLPerf Inference's LoadGen (binomial bound); 662 is its min_query_count for p99.
# The median describes the samples and makes no claim about a tail, so a handful is enough.
MINIMUM_SAMPLES = {50: 5, 90: 64, 95: 130, 99: 662}
# A run is called unstable when the middle half of the samples spreads over more than this share of their median, or
# when the medians of the first and the second half of the run differ by more than that share.
SPREAD_LIMIT = 0.25
DRIFT_LIMIT = 0.15


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Latency:
    """One inference of all time steps, batch 1, in milliseconds, input and output copies included.

    Attributes:
        emulated: the times are those of an emulator and say nothing about a board.
        count: number of samples.
        p50, p90, p95, p99: percentiles (nearest rank), absent where the samples are too few to support them.
    """

    emulated: bool
    count: int
    min: float
    mean: float
    max: float
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


def summarize_latency(samples_ns: Sequence[int], *, emulated: bool) -> Latency:
    """Summarizes samples, with only those percentiles that their number supports.

    Args:
        samples_ns: at least one duration in nanoseconds.
        emulated: whether an emulator ran.
    """
    ordered = [sample / 1e6 for sample in sorted(samples_ns)]
    supported = {p: percentile(ordered, p) for p, least in MINIMUM_SAMPLES.items() if len(ordered) >= least}
    return Latency(
        emulated=emulated,
        count=len(ordered),
        min=ordered[0],
        mean=statistics.fmean(ordered),
        max=ordered[-1],
        p50=supported.get(50),
        p90=supported.get(90),
        p95=supported.get(95),
        p99=supported.get(99),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Returns the nearest-rank percentile: the smallest sample that ``percent`` % of all samples do not exceed."""
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stability:
    """How well samples repeat.

    Attributes:
        spread: interquartile range over the median, mean of those of each input.
        drift: median of the second half of the run over that of the first, less 1.
        variation: standard deviation over the mean, of all samples (inputs differ in their spikes, so it is not noise
            alone).
    """

    spread: float
    drift: float
    variation: float


def read_stability(samples_ns: Sequence[int], *, inputs: int) -> Stability | None:
    """Describes how well samples repeat; None if they are too few.

    Args:
        samples_ns: durations in the order they were taken.
        inputs: number of inputs that were taken in turn. The time depends on an input's spikes, so the spread is that
            among samples of the same input.
    """
    if len(samples_ns) < MINIMUM_SAMPLES[50]:
        return None
    half = len(samples_ns) // 2
    early, late = statistics.median(samples_ns[:half]), statistics.median(samples_ns[half:])
    return Stability(
        spread=statistics.fmean(_spread(samples_ns[first::inputs]) for first in range(min(inputs, len(samples_ns)))),
        drift=(late - early) / early,
        variation=statistics.stdev(samples_ns) / statistics.fmean(samples_ns),
    )


def instabilities(samples_ns: Sequence[int], *, inputs: int) -> list[str]:
    """Returns what is wrong with samples as a measurement: too few, too widely spread, or drifting.

    Args:
        samples_ns: see :func:`read_stability`.
        inputs: see :func:`read_stability`.
    """
    stability = read_stability(samples_ns, inputs=inputs)
    if stability is None:
        return [f"{len(samples_ns)} samples do not support a median; {MINIMUM_SAMPLES[50]} are wanted"]
    reasons = []
    if stability.spread > SPREAD_LIMIT:
        spread = f"{stability.spread:.0%} of their median"
        reasons.append(f"unstable: the middle half of an input's samples spreads over {spread}")
    if abs(stability.drift) > DRIFT_LIMIT:
        reasons.append(f"unstable: the second half of the samples is {stability.drift:+.0%} from the first")
    return reasons


def _spread(samples_ns: Sequence[int]) -> float:
    """Returns the interquartile range as a share of the median."""
    ordered = sorted(samples_ns)
    return (percentile(ordered, 75) - percentile(ordered, 25)) / percentile(ordered, 50)
