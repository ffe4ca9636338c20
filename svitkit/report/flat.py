"""The runs as one flat table: a row a run, the figures as they are, empty where nothing was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from svitkit.report.pareto import Point, best
from svitkit.report.runs import Run

Value = str | int | float | bool | None
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def flat_rows(runs: Sequence[Run]) -> list[dict[str, Value]]:
    """Returns a row for every run; all rows have the same keys, units stand in them.

    Times of emulated runs are those of the emulator: their rows have ``emulated``.
    """
    points = [Point(run) for run in runs]
    winners = best(points)
    return [_row(point, point.run.label in winners) for point in points]


def _row(point: Point, on_front: bool) -> dict[str, Value]:
    record = point.run.record
    latency, memory, accuracy = record.latency_ms, record.memory, record.accuracy
    quartiles, interval = point.latency_range, point.accuracy_range or (None, None)
    return {
        "method": point.run.method,
        "board": record.board,
        "place": point.run.where,
        "emulated": record.emulated,
        "device": record.device,
        "processor": record.processor,
        "valid": record.valid,
        "reasons": "; ".join(record.reasons),
        "front": on_front,
        "accuracy_percent": point.accuracy,
        "accuracy_low_percent": interval[0],
        "accuracy_high_percent": interval[1],
        "images": accuracy.count if accuracy else None,
        "dataset": accuracy.dataset if accuracy else None,
        **{f"{name}_ms": getattr(latency, name) for name in ("p50", "p90", "p95", "p99", "min", "mean", "max")},
        "lower_quartile_ms": quartiles[0],
        "upper_quartile_ms": quartiles[1],
        "samples": latency.count,
        "load_ms": record.load_ns / 1e6,
        "first_ms": record.first_ns / 1e6,
        "threads": record.threads,
        "synaptic_operations": record.operations.synaptic if record.operations else None,
        "energy_above_idle_mj": record.energy.net_per_inference_mj if record.energy else None,
        "energy_error_mj": record.energy.net_error_mj if record.energy else None,
        "sustained_slowdown": record.sustained.slowdown if record.sustained else None,
        "frames_late": record.stream.misses if record.stream else None,
        "weights_bytes": memory.weights_bytes,
        "state_bytes": memory.state_bytes,
        "workspace_bytes": memory.workspace_bytes,
        "vm_hwm_bytes": memory.vm_hwm_bytes,
        "pss_bytes": memory.pss_bytes,
        "private_bytes": memory.private_bytes,
        "system_bytes": memory.system_bytes,
        "bundle_bytes": record.bundle_bytes,
        "golden_match": record.golden.match,
        "golden_max_abs_diff": record.golden.max_abs_diff,
        "family": record.family,
        "mode": record.mode,
        "timesteps": record.timesteps,
        "started_at": record.started_at,
        "bundle_sha256": record.bundle_sha256,
        "source": point.run.source,
    }


def render_csv(rows: Sequence[dict[str, Value]]) -> str:
    """Writes rows as CSV; text that a spreadsheet would compute is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _plain(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
