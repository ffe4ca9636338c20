"""A gate against regressions: runs beside those of a baseline, judged by confidence intervals.

A run is slower only if the whole interval of the ratio of its latency to the baseline's lies above the limit; where the
interval holds the limit, the samples do not decide. Of several nights, those count that measured the same bundle as the
last one; how much runs of one bundle differ on a place is estimated from all nights, pooled over the bundles, and the
interval covers that. One night does not tell it: then the interval covers what differs within the two runs alone, and
the limit has to be wider than what differs from run to run.

Many comparisons would cry wolf: of 30 at 99 %, one is wrong every third night or so. The 1 % is divided among the
intervals of a night (Bonferroni), so that all of them hold together in 99 of 100 nights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from svitkit.runtime.bench.baseline import place_of
from svitkit.runtime.bench.intervals import (
    LEAST_BLOCKS,
    Interval,
    Series,
    Spread,
    latency_ratio,
    run_spread,
    share_difference,
)
from svitkit.runtime.bench.record import Accuracy, BenchRecord

Verdict = Literal["passed", "regression", "undecided", "not compared"]
# What must be the same for two latencies to tell of the bundle alone.
CONDITIONS = ("mode", "threads", "cpus", "prefix", "device", "processor", "emulated")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What counts as a regression.

    Attributes:
        max_slowdown: share by which the latency may grow.
        max_growth: share by which peak memory and weights may grow.
        alpha: probability that any of the intervals of a night is wrong.
    """

    max_slowdown: float = 0.05
    max_growth: float = 0.05
    alpha: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure beside that of the baseline.

    Attributes:
        metric: ``latency`` (p50, ms), ``accuracy`` (percent), ``peak memory`` or ``weights`` (bytes).
        before, after: the figure, that of the last night; None where it was not measured.
        change: after / before - 1, of latency input by input and over nights; of accuracy the points gained.
        low, high: confidence interval of the change; None of what is compared exactly.
        verdict: what follows.
        reason: why it is not compared, or not decided.
    """

    metric: str
    before: float | None
    after: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict
    reason: str | None = None


Pair = tuple[Sequence[BenchRecord], BenchRecord]


def compare_runs(pairs: Sequence[Pair], gate: Gate) -> list[tuple[Comparison, ...]]:
    """Compares runs with those of a baseline: latencies with those of the last bundle, the rest with the last run.

    That golden outputs differ, or a run is not valid for another reason, its record says itself.

    Args:
        pairs: of each run the baseline's records, the oldest first and at least one, and the new one.
        gate: the limits.

    Returns:
        For every pair latency, accuracy, peak memory and weights.
    """
    timed = [[before for before in befores if _untimed(before, after) is None] for befores, after in pairs]
    counted = [_uncounted(befores[-1], after) is None for befores, after in pairs]
    alpha = gate.alpha / max(1, sum(map(bool, timed)) + sum(counted))
    spreads = _spreads(run for runs in timed for run in runs)
    return [
        (
            _latency(
                [run for run in runs if run.bundle_sha256 == runs[-1].bundle_sha256],
                after,
                gate.max_slowdown,
                alpha,
                spreads.get(place_of(after)),
            )
            if runs
            else _no_latency(befores[-1], after),
            _accuracy(befores[-1], after, alpha),
            _peak(befores[-1], after, gate.max_growth),
            _bytes("weights", befores[-1].memory.weights_bytes, after.memory.weights_bytes, gate.max_growth),
        )
        for runs, (befores, after) in zip(timed, pairs, strict=True)
    ]


def _spreads(runs: Iterable[BenchRecord]) -> dict[str, Spread | None]:
    """Returns by place how much runs of one bundle differ there."""
    repeated: dict[str, dict[str, list[Series]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        repeated[place_of(run)][run.bundle_sha256].append(_series(run))
    return {place: run_spread(bundles.values()) for place, bundles in repeated.items()}


def _series(record: BenchRecord) -> Series:
    return Series(samples=np.array(record.samples_ns, np.float64), inputs=max(1, record.golden.count))


def _untimed(before: BenchRecord, after: BenchRecord) -> str | None:
    """Returns why two latencies are not compared."""
    if before.emulated or after.emulated:
        return "the times of an emulator are not a board's"
    for name in CONDITIONS:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            return f"the baseline's {name} is {old}, now {new}"
    if before.golden.count != after.golden.count:
        return f"the baseline's is of {before.golden.count} inputs, now {after.golden.count}"
    if not before.valid or not after.valid:
        return f"the {'run' if before.valid else 'baseline'} is not valid"
    few = min((_series(record) for record in (before, after)), key=lambda series: series.blocks)
    if few.blocks < LEAST_BLOCKS:
        wanted = f"{LEAST_BLOCKS} blocks of {few.block * few.inputs}"
        return f"{len(few.samples)} samples are too few, {wanted} are wanted"
    return None


def _no_latency(before: BenchRecord, after: BenchRecord) -> Comparison:
    old, new, why = before.latency_ms.p50, after.latency_ms.p50, _untimed(before, after)
    return Comparison(metric="latency", before=old, after=new, verdict="not compared", reason=why)


def _latency(
    before: Sequence[BenchRecord], after: BenchRecord, limit: float, alpha: float, spread: Spread | None
) -> Comparison:
    ratio = latency_ratio([_series(run) for run in before], _series(after), alpha=alpha, spread=spread)
    verdict, reason = _judge(ratio.low > 1 + limit, ratio.high <= 1 + limit, f"slower than by {limit:.1%}")
    return Comparison(
        metric="latency",
        before=before[-1].latency_ms.p50,
        after=after.latency_ms.p50,
        change=ratio.estimate - 1,
        low=ratio.low - 1,
        high=ratio.high - 1,
        verdict=verdict,
        reason=reason,
    )


def _uncounted(before: BenchRecord, after: BenchRecord) -> str | None:
    """Returns why two accuracies are not compared."""
    old, new = before.accuracy, after.accuracy
    if old is None or new is None:
        return f"the {'baseline' if old is None else 'run'} has no accuracy"
    if (old.dataset, old.count) != (new.dataset, new.count):
        return f"the baseline's is of {old.count} images of {old.dataset}, now {new.count} of {new.dataset}"
    return None


def _accuracy(before: BenchRecord, after: BenchRecord, alpha: float) -> Comparison:
    """Compares accuracies; the same bundle names the same images right, or something is broken."""
    old, new = before.accuracy, after.accuracy
    why = _uncounted(before, after)
    if old is None or new is None or why is not None:
        figures = (None if accuracy is None else accuracy.percent for accuracy in (old, new))
        return Comparison(
            metric="accuracy", before=next(figures), after=next(figures), verdict="not compared", reason=why
        )
    difference = share_difference(_counts(old), _counts(new), alpha=alpha)
    verdict, reason = _judge(difference.high < 0, difference.estimate >= 0, "worse")
    if before.bundle_sha256 == after.bundle_sha256 and old.percent != new.percent:
        verdict, reason = "regression", "the same bundle named other images right"
    points = Interval(estimate=100 * difference.estimate, low=100 * difference.low, high=100 * difference.high)
    return Comparison(
        metric="accuracy",
        before=old.percent,
        after=new.percent,
        change=points.estimate,
        low=points.low,
        high=points.high,
        verdict=verdict,
        reason=reason,
    )


def _counts(accuracy: Accuracy) -> tuple[int, int]:
    return round(accuracy.percent * accuracy.count / 100), accuracy.count


def _peak(before: BenchRecord, after: BenchRecord, limit: float) -> Comparison:
    old, new = before.memory.vm_hwm_bytes, after.memory.vm_hwm_bytes
    if before.emulated or after.emulated:
        why = "the memory of an emulator is not a board's"
    elif before.on_gpu != after.on_gpu:
        why = f"the baseline's processor is {before.processor}, now {after.processor}"
    elif old is None or new is None:
        why = f"the {'baseline' if old is None else 'run'} has no peak memory"
    else:
        return _bytes("peak memory", old, new, limit)
    return Comparison(metric="peak memory", before=old, after=new, verdict="not compared", reason=why)


def _bytes(metric: str, old: int, new: int, limit: float) -> Comparison:
    """Compares exact figures."""
    grown = new > old * (1 + limit)
    change = new / old - 1 if old else None
    return Comparison(metric=metric, before=old, after=new, change=change, verdict="regression" if grown else "passed")


def _judge(surely: bool, surely_not: bool, what: str) -> tuple[Verdict, str | None]:
    if surely:
        return "regression", None
    return ("passed", None) if surely_not else ("undecided", f"the samples do not decide whether it is {what}")
