"""What ``svitkit bench`` shows of many runs, and of runs beside a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from svitkit.cli.options import FINDING
from svitkit.cli.output import kibibytes, table
from svitkit.runtime.bench.fleet_results import FleetRun, RunKey
from svitkit.runtime.bench.gate import Comparison
from svitkit.runtime.bench.record import BenchRecord
from svitkit.runtime.bench.record_table import NOT_A_BOARD

FAILURE = 1
Compared = Mapping[RunKey, tuple[Comparison, ...]]


def exit_code(runs: Iterable[FleetRun], compared: Compared) -> int:
    """Returns 1 if a run failed, else 3 if one is not valid or a regression, else 0."""
    records = [run.record for run in runs]
    if None in records:
        return FAILURE
    invalid = any(record is not None and not record.valid for record in records)
    return FINDING if invalid or any(map(is_regression, compared.values())) else 0


def is_regression(comparisons: Iterable[Comparison]) -> bool:
    """Whether any figure of a run is one."""
    return any(comparison.verdict == "regression" for comparison in comparisons)


def view_fleet(
    runs: Sequence[FleetRun], compared: Compared, *, against: bool
) -> tuple[dict[str, Any], list[RenderableType]]:
    """Shows what became of every run, and of those that have a baseline how they compare.

    Args:
        runs: the runs, those included that were skipped.
        compared: the comparisons, by run.
        against: whether there is a baseline.
    """
    columns = ("bundle", "board", "p50 ms", "accuracy", "peak memory", "verdict", *["against the baseline"] * against)
    rows = [(*_figures(run), _verdict(run), *[_change(run, compared)] * against) for run in runs]
    findings = [
        f"{run.run.bundle} on {run.run.where}: {text}"
        for run in runs
        for text in [*_objections(run), *map(_regression, compared.get(run.run, ()))]
        if text
    ]
    told = [_facts(run, compared.get(run.run)) for run in runs]
    return {"runs": told}, [table("Runs", columns, rows), *findings]


def comparison_table(comparisons: Iterable[Comparison]) -> RenderableType:
    """Lays out one run beside its baseline."""
    rows = [
        (each.metric, _number(each, each.before), _number(each, each.after), _interval(each), _judgement(each))
        for each in comparisons
    ]
    return table("Against the baseline", ("figure", "before", "now", "change", "verdict"), rows)


def _figures(run: FleetRun) -> tuple[str, str, str, str, str]:
    record = run.record
    if record is None:
        return run.run.bundle, run.run.where, "", "", ""
    mark = f" ({NOT_A_BOARD})" if record.emulated else ""
    p50, peak = record.latency_ms.p50, None if record.emulated else record.memory.vm_hwm_bytes
    return (
        run.run.bundle,
        run.run.where + ", GPU" * record.on_gpu,
        "" if p50 is None else f"{p50:.3f}{mark}",
        "" if record.accuracy is None else f"{record.accuracy.percent:.2f} %",
        "" if peak is None else kibibytes(peak),
    )


def _verdict(run: FleetRun) -> str:
    return run.outcome.upper() if run.record is None else "valid" if run.record.valid else "INVALID"


def _objections(run: FleetRun) -> Sequence[str]:
    if run.record is None:
        return [f"{run.outcome}: {run.error}"]
    return [f"not valid: {reason}" for reason in run.record.reasons]


def _change(run: FleetRun, compared: Compared) -> str:
    """The change of the latency, and what else is a regression."""
    if run.run not in compared:
        return "" if run.record is None else "new"
    latency, *others = compared[run.run]
    worse = [each.metric for each in others if each.verdict == "regression"]
    return ", ".join([" ".join(filter(None, [_interval(latency), _judgement(latency)])), *worse])


def _judgement(comparison: Comparison) -> str:
    word = comparison.verdict.upper() if comparison.verdict == "regression" else comparison.verdict
    return word if comparison.reason is None else f"{word} ({comparison.reason})"


def _regression(comparison: Comparison) -> str:
    if comparison.verdict != "regression":
        return ""
    was, now = (_number(comparison, value) for value in (comparison.before, comparison.after))
    return f"{comparison.metric} {was} -> {now}, {_interval(comparison)}, {_judgement(comparison)}"


def _interval(comparison: Comparison) -> str:
    """The change with its interval: in percent, of accuracies in points."""
    if comparison.change is None:
        return ""
    scale, unit = (1, "points") if comparison.metric == "accuracy" else (100, "%")
    change = f"{scale * comparison.change:+.2f} {unit}"
    if comparison.low is None or comparison.high is None:
        return change
    return f"{change} ({scale * comparison.low:+.2f} to {scale * comparison.high:+.2f})"


def _number(comparison: Comparison, value: float | None) -> str:
    if value is None:
        return "-"
    return {"latency": f"{value:.3f} ms", "accuracy": f"{value:.2f} %"}.get(comparison.metric, kibibytes(value))


def _facts(run: FleetRun, comparisons: tuple[Comparison, ...] | None) -> dict[str, Any]:
    """A run without its samples, which the results file has."""
    facts: dict[str, Any] = {**asdict(run.run), "outcome": run.outcome}
    if run.error is not None:
        facts["error"] = run.error
    if run.record is not None:
        facts |= _record_facts(run.record)
    return facts if comparisons is None else {**facts, "comparisons": comparisons}


def _record_facts(record: BenchRecord) -> dict[str, Any]:
    names = ("valid", "reasons", "emulated", "device", "processor", "latency_ms", "accuracy", "memory", "golden")
    return {name: getattr(record, name) for name in names}
