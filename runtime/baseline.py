"""A gate against regressions: runs beside those of a baseline, judged by confidence intervals.

A run is slower only if the whole interval of the ratio of its median to the baseline's lies above the limit; where the
interval holds the limit, the samples do not decide. The interval covers what differs within the two runs. What differs
from run to run on the same board (where memory lies, how warm it is) is what the limit is for.

Many comparisons would cry wolf: of 30 at 99 %, one is wrong every third night or so. The 1 % is divided among the
intervals of a night (Bonferroni), so that all of them hold together in 99 of 100 nights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from svitkit.errors import ConfigError
from svitkit.runtime.fleet_results import RunKey, read_results
from svitkit.runtime.intervals import LEAST_BLOCKS, Interval, Series, median_ratio, share_difference
from svitkit.runtime.record import Accuracy, BenchRecord, read_record

Verdict = Literal["passed", "regression", "undecided", "not compared"]
# What must be the same for two latencies to tell of the bundle alone.
CONDITIONS = ("mode", "threads", "prefix", "device", "emulated")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What counts as a regression.

    Attributes:
        max_slowdown: share by which the median latency may grow.
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
        before, after: the figure; None where it was not measured.
        change: after / before - 1; of accuracy after - before, in percentage points.
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


Pair = tuple[BenchRecord, BenchRecord]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Measurements of another day.

    Attributes:
        path: where they are from.
        runs: by bundle and place, where a fleet's results say the bundles' names.
        record: the one that there is, where there is one.
    """

    path: Path
    runs: dict[tuple[str, str], BenchRecord]
    record: BenchRecord | None = None

    def find(self, run: RunKey, family: str, mode: str) -> BenchRecord | None:
        """Returns what a run is compared with: the same bundle's record from the same place.

        A record alone does not know its bundle's name, so it counts for any bundle of its family and mode there.
        """
        alone = self.record
        if alone is None:
            return self.runs.get((run.bundle, run.where))
        same = (alone.family, alone.mode, alone.place or alone.board) == (family, mode, run.where)
        return alone if same else None

    def require(self, runs: Iterable[tuple[RunKey, str, str]]) -> None:
        """Checks, before anything runs, that the baseline has to do with it.

        Args:
            runs: key, family and mode of the runs that are planned.

        Raises:
            ConfigError: it holds none of the runs, or its one record stands beside several.
        """
        found = [run for run in runs if self.find(*run) is not None]
        if not found:
            known = ", ".join(sorted(f"{bundle} on {where}" for bundle, where in self.runs)) or (
                f"{self.record.family} ({self.record.mode}) on {self.record.place or self.record.board}"
                if self.record is not None
                else "no run that was measured"
            )
            raise ConfigError(
                f"{self.path} has none of the runs that are to be compared. It holds: {known}. Name the "
                "baseline of these bundles and boards."
            )
        if self.record is not None and len(found) > 1:
            raise ConfigError(
                f"{self.path} is one record, and {len(found)} runs could be compared with it. Compare with the results "
                "of 'svitkit bench --boards', which know bundles by their names."
            )


def read_baseline(path: Path) -> Baseline:
    """Reads a record (``*.json``), or the results of a fleet.

    Raises:
        ConfigError: it is neither.
    """
    if path.suffix == ".json":
        return Baseline(path=path, runs={}, record=read_record(path))
    _, runs = read_results(path)
    measured = {(key.bundle, key.where): run.record for key, run in runs.items() if run.record is not None}
    return Baseline(path=path, runs=measured)


def compare_runs(pairs: Sequence[Pair], gate: Gate) -> list[tuple[Comparison, ...]]:
    """Compares runs with those of a baseline.

    That golden outputs differ, or a run is not valid for another reason, its record says itself.

    Args:
        pairs: of each run the baseline's record, and the new one.
        gate: the limits.

    Returns:
        For every pair latency, accuracy, peak memory and weights.
    """
    intervals = sum((_untimed(*pair) is None) + (_uncounted(*pair) is None) for pair in pairs)
    alpha = gate.alpha / max(1, intervals)
    return [
        (
            _latency(before, after, gate.max_slowdown, alpha),
            _accuracy(before, after, alpha),
            _peak(before, after, gate.max_growth),
            _bytes("weights", before.memory.weights_bytes, after.memory.weights_bytes, gate.max_growth),
        )
        for before, after in pairs
    ]


def _series(record: BenchRecord) -> Series:
    return Series(samples=np.array(record.samples_ns, np.float64), turn=max(1, record.golden.count))


def _untimed(before: BenchRecord, after: BenchRecord) -> str | None:
    """Returns why two latencies are not compared."""
    if before.emulated or after.emulated:
        return "the times of an emulator are not a board's"
    for name in CONDITIONS:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            return f"the baseline's {name} is {old}, now {new}"
    if not before.valid or not after.valid:
        return f"the {'run' if before.valid else 'baseline'} is not valid"
    few = min((_series(record) for record in (before, after)), key=lambda series: series.blocks)
    if few.blocks < LEAST_BLOCKS:
        wanted = f"{LEAST_BLOCKS} blocks of {few.block}"
        return f"{len(few.samples)} samples are too few, {wanted} are wanted"
    return None


def _latency(before: BenchRecord, after: BenchRecord, limit: float, alpha: float) -> Comparison:
    old, new = (record.latency_ms.p50 for record in (before, after))
    why = _untimed(before, after)
    if why is not None:
        return Comparison(metric="latency", before=old, after=new, verdict="not compared", reason=why)
    ratio = median_ratio(_series(before), _series(after), alpha=alpha)
    verdict, reason = _judge(ratio.low > 1 + limit, ratio.high <= 1 + limit, f"slower than by {limit:.1%}")
    return Comparison(
        metric="latency",
        before=old,
        after=new,
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
