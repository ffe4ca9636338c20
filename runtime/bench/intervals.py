"""Confidence intervals for the difference of two measurements: of latencies, of shares of right answers.

Samples of latency are taken one after another, the inputs in turn, and every input has a time of its own, which depends
on its spikes. The latency of a run is therefore the geometric mean, over the inputs, of the median of an input's
samples.

What disturbs a computer lasts longer than one sample, so samples are not independent and are not drawn singly: whole
blocks are, from the series closed to a circle (the block bootstrap of Kuensch, Annals of Statistics 17, 1989, with the
circle of Politis and Romano, "A circular block-resampling procedure for stationary data", 1992). A block has whole
turns of the inputs and about sqrt(n) samples, or twice or four times as many where that shows more; what lasts longer
than a block is not seen.

Two runs of one program differ by more than their samples tell: memory lies elsewhere, the board is warmer. Where runs
were repeated, how much their latencies differ is estimated from them (Kalibera and Jones, "Rigorous benchmarking in
reasonable time", 2013, with two levels: runs, and samples within a run).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
# Few blocks say little about how much blocks differ, though Student's t makes up for much of it.
LEAST_BLOCKS = 4
LENGTHS = (1, 2, 4)
"""Lengths of blocks that are tried, as multiples of the shortest."""
CHUNK = 1 << 22
"""Samples that are drawn at a time."""
LEAST_FREEDOM = 4
"""Degrees of freedom from which on the differences of runs are estimated."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval, low <= estimate <= high."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """Samples of one measurement, in the order in which they were taken.

    Attributes:
        samples: (n,) float64, positive.
        inputs: number of inputs that were taken in turn.
    """

    samples: NDArray[np.float64]
    inputs: int

    @property
    def turns(self) -> NDArray[np.float64]:
        """The whole turns, (turns, inputs) float64."""
        return self.samples[: len(self.samples) // self.inputs * self.inputs].reshape(-1, self.inputs)

    @property
    def block(self) -> int:
        """Turns of a block: the least number with at least sqrt(n) samples."""
        return math.ceil(math.sqrt(len(self.samples)) / self.inputs)

    @property
    def blocks(self) -> int:
        """Whole blocks in the series."""
        return len(self.turns) // self.block

    @property
    def log_latency(self) -> float:
        """The logarithm of the latency."""
        return float(log_latencies(self.turns[None])[0])


def log_latencies(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the logarithms (R,) float64 of the latencies of series of whole turns, (R, turns, inputs) float64."""
    found: NDArray[np.float64] = np.log(np.median(turns, axis=1)).mean(axis=1)
    return found


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How much the latencies of runs differ that should be alike.

    Attributes:
        variance: of the logarithm of a run's latency.
        freedom: degrees of freedom of the estimate.
    """

    variance: float
    freedom: float


def run_spread(repeated: Iterable[Sequence[Series]]) -> Spread | None:
    """Estimates the spread of runs, pooled over several programs on one machine; None from too few runs.

    Args:
        repeated: of each program its runs.
    """
    logs = [np.array([run.log_latency for run in runs]) for runs in repeated if runs]
    freedom = sum(len(latencies) - 1 for latencies in logs)
    if freedom < LEAST_FREEDOM:
        return None
    return Spread(variance=sum(float(((own - own.mean()) ** 2).sum()) for own in logs) / freedom, freedom=freedom)


def latency_ratio(before: Sequence[Series], after: Series, *, alpha: float, spread: Spread | None = None) -> Interval:
    """Estimates the ratio of a run's latency to that of one or several runs, after / before.

    The logarithms of latencies are taken for normal. Their variance is that of runs, or where it is greater, or
    nothing else is known, that of the samples by the bootstrap; the quantiles are those of Student's t.

    Args:
        before: runs of at least ``LEAST_BLOCKS`` blocks each.
        after: another one.
        alpha: probability that the interval misses the ratio (0..1).
        spread: how much runs differ; None where that is not known.
    """
    from scipy.special import stdtrit

    estimate = after.log_latency - sum(run.log_latency for run in before) / len(before)
    within = _within([*[(run, 1 / len(before)) for run in before], (after, 1.0)])
    runs = None if spread is None else Spread(variance=spread.variance * (1 + 1 / len(before)), freedom=spread.freedom)
    taken = within if runs is None or within.variance > runs.variance else runs
    half = float(stdtrit(taken.freedom, 1 - alpha / 2)) * math.sqrt(taken.variance)
    return Interval(estimate=math.exp(estimate), low=math.exp(estimate - half), high=math.exp(estimate + half))


def _within(weighted: Sequence[tuple[Series, float]]) -> Spread:
    """Returns the variance of a weighted sum of log latencies by their samples, with Welch's degrees of freedom."""
    spreads = [(log_latency_spread(series), weight**2) for series, weight in weighted]
    variance = sum(factor * own.variance for own, factor in spreads)
    parts = sum((factor * own.variance) ** 2 / own.freedom for own, factor in spreads)
    return Spread(variance=variance, freedom=variance**2 / parts if variance else 1.0)


def log_latency_spread(series: Series) -> Spread:
    """Estimates the variance of the logarithm of a series' latency, by the circular block bootstrap.

    Blocks that are too short for what disturbed the samples show too little variance, so the greatest one counts of
    several lengths of blocks, as long as there are ``LEAST_BLOCKS`` of them.
    """
    lengths = [series.block * times for times in LENGTHS]
    used = [block for block in lengths if len(series.turns) // block >= LEAST_BLOCKS] or lengths[:1]
    found = [
        Spread(variance=float(_drawn(series.turns, block).var(ddof=1)), freedom=len(series.turns) // block - 1)
        for block in used
    ]
    return max(found, key=lambda spread: spread.variance)


def _drawn(turns: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Draws series of blocks, and returns the logarithms (RESAMPLES,) float64 of their latencies."""
    random = np.random.default_rng(0)  # the same samples give the same verdict
    found: list[NDArray[np.float64]] = []
    for first in range(0, RESAMPLES, step := max(1, CHUNK // turns.size)):
        draws = min(step, RESAMPLES - first)
        starts = random.integers(len(turns), size=(draws, math.ceil(len(turns) / block), 1))
        drawn = ((starts + np.arange(block)) % len(turns)).reshape(draws, -1)[:, : len(turns)]
        found.append(log_latencies(turns[drawn]))
    return np.concatenate(found)


def share_difference(before: tuple[int, int], after: tuple[int, int], *, alpha: float) -> Interval:
    """Estimates the difference of two shares, after - before, as if they were of different images.

    Two bundles err on much the same images, so that the interval is wider than it need be. Source: Newcombe, Statistics
    in Medicine 17, 1998, method 10 (from the score intervals of Wilson, which hold near 0 and 1).

    Args:
        before: right answers, and all answers.
        after: the same of the other measurement.
        alpha: probability that the interval misses the difference (0..1).
    """
    (old, old_low, old_high), (new, new_low, new_high) = (_wilson(*counts, alpha=alpha) for counts in (before, after))
    return Interval(
        estimate=new - old,
        low=new - old - math.hypot(new - new_low, old_high - old),
        high=new - old + math.hypot(new_high - new, old - old_low),
    )


def _wilson(right: int, count: int, *, alpha: float) -> Sequence[float]:
    """Returns a share and its score interval."""
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(1 - alpha, method="wilson")
    return right / count, float(found.low), float(found.high)
