"""How the samples of every run are distributed, and whether they drift."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from svitkit.report.blocks import Charts, Group, Key, Paragraph, Row, Section, Table
from svitkit.report.chart import Band, Chart, Line, Mark
from svitkit.report.pareto import Point
from svitkit.report.runs import Run, by_place, styles
from svitkit.report.scale import make_scale
from svitkit.report.words import between, figure
from svitkit.runtime.bench.latency import percentile, read_stability

CURVE_POINTS = 160
SHOWN_PERCENT = 95
"""Of the samples of every run, a chart shows at least so many; a few slow ones would squeeze all others."""
DRIFT_SHOWN = 0.05
"""A third of what makes a run invalid (:mod:`svitkit.runtime.bench.latency`)."""
WINDOWS = 60
PERCENTILES = ("p50", "p90", "p95", "p99")
COLUMNS = (
    "run",
    "samples",
    "threads",
    "min",
    *PERCENTILES,
    "max",
    "mean",
    "quartiles",
    "drift %",
    "load",
    "first inference",
)


def latency(runs: Sequence[Run]) -> Section:
    """Draws the distribution of latencies, and the samples over time where they drift."""
    style = styles(runs)
    said = Paragraph(
        text="Percentiles appear where the number of samples supports them. Drift compares the median of the second "
        "half of the samples with that of the first; where it matters the samples are drawn over time. Load and the "
        "first inference are no samples."
    )
    groups = [_board(title, own, style) for title, own in by_place(runs).items()]
    return Section(anchor="latency", title="Latency distributions", blocks=(said, *groups))


def _board(title: str, runs: Sequence[Run], style: dict[str, int]) -> Group:
    legend = [
        Key(style=style[run.name], text=run.name + " (invalid)" * (not run.record.valid), muted=not run.record.valid)
        for run in runs
    ]
    moving = [run for run in runs if abs(_drift(run) or 0.0) >= DRIFT_SHOWN]
    over_time = [_over_time(run, style[run.name]) for run in moving]
    return Group(
        title=title,
        blocks=(
            Charts(charts=[_distribution(title, runs, style), *over_time], legend=legend),
            Table(
                caption=f"{'Times of the emulator' if runs[0].record.emulated else 'Latency'} in ms, {title}",
                columns=COLUMNS,
                rows=[_row(run) for run in runs],
                numeric=frozenset(range(1, len(COLUMNS))),
            ),
        ),
    )


def _distribution(title: str, runs: Sequence[Run], style: dict[str, int]) -> Chart:
    """Draws the share of the samples that are at most as slow, with the percentiles of the records."""
    curves = [[sample / 1e6 for sample in sorted(run.record.samples_ns)] for run in runs]
    ends = [(ordered[0], percentile(ordered, SHOWN_PERCENT)) for ordered in curves]
    name = "time of the emulator" if runs[0].record.emulated else "latency"
    x = make_scale(f"{name}, ms", [end for pair in ends for end in pair])
    marks, texts = [], []
    for run in runs:
        known = {rank: getattr(run.record.latency_ms, rank) for rank in PERCENTILES}
        known = {rank: value for rank, value in known.items() if value is not None}
        texts.append(f"{run.name}: {', '.join(f'{rank} {figure(value)} ms' for rank, value in known.items())}")
        marks += [
            Mark(x=value, y=float(rank[1:]), style=style[run.name], muted=not run.record.valid)
            for rank, value in known.items()
            if value <= x.high
        ]
    return Chart(
        title=f"Share of the samples at most as slow, {title}",
        description=f"Marks are percentiles. {'; '.join(texts)}. Samples above {figure(x.high)} ms lie outside.",
        x=x,
        y=make_scale("samples at most as slow, %", [0.0, 100.0], lowest=0.0, highest=100.0),
        marks=marks,
        lines=[
            Line(points=_curve(ordered, x.high), style=style[run.name] if run.record.valid else None)
            for run, ordered in zip(runs, curves, strict=True)
        ],
    )


def _curve(ordered: Sequence[float], highest: float) -> list[tuple[float, float]]:
    """Returns points of the distribution: (value, percent of the samples that do not exceed it)."""
    count, shown = len(ordered), bisect_right(ordered, highest)
    steps = min(shown, CURVE_POINTS)
    ranks = sorted({round(step * (shown - 1) / max(1, steps - 1)) for step in range(steps)})
    return [(ordered[rank], 100 * (rank + 1) / count) for rank in ranks]


def _drift(run: Run) -> float | None:
    """Returns the drift where it means something: that of an emulator's times is not judged."""
    stability = None if run.record.emulated else read_stability(run.record.samples_ns, inputs=1)
    return None if stability is None else stability.drift


def _over_time(run: Run, style: int) -> Chart:
    """Draws the median and the quartiles of consecutive samples."""
    samples = [sample / 1e6 for sample in run.record.samples_ns]
    size = max(1, len(samples) // WINDOWS)
    places, medians = [], []
    for start in range(0, len(samples) - size + 1, size):
        ordered = sorted(samples[start : start + size])
        places.append((start + size / 2, percentile(ordered, 25), percentile(ordered, 75)))
        medians.append((start + size / 2, percentile(ordered, 50)))
    return Chart(
        title=f"Samples over time, {run.label}",
        description=f"Median and quartiles of {size} consecutive samples each; the second half is "
        f"{_drift(run) or 0.0:+.1%} from the first.",
        x=make_scale("sample", [0, len(samples)], log=False, lowest=0.0),
        y=make_scale("latency, ms", [end for _, *ends in places for end in ends], log=False),
        lines=[Line(points=medians, style=style)],
        bands=[Band(points=places, style=style)],
    )


def _row(run: Run) -> Row:
    record, found = run.record, run.record.latency_ms
    moved = _drift(run)
    cells = (
        run.name,
        f"{found.count:,}",
        str(record.threads),
        figure(found.min),
        *(figure(getattr(found, name)) for name in PERCENTILES),
        figure(found.max),
        figure(found.mean),
        between(Point(run).latency_range),
        "" if moved is None else f"{100 * moved:+.1f}",
        figure(record.load_ns / 1e6),
        figure(record.first_ns / 1e6),
    )
    return Row(cells=cells, muted=not record.valid)
