"""What was measured beside latency: sustained load, streamed frames, energy."""

from __future__ import annotations

from collections.abc import Sequence

from svitkit.report.blocks import Block, Charts, Paragraph, Row, Section, Table
from svitkit.report.chart import Chart, Line
from svitkit.report.runs import Run
from svitkit.report.scale import make_scale
from svitkit.report.words import figure, milliseconds
from svitkit.runtime.bench.energy import Energy
from svitkit.runtime.bench.streaming import Stream
from svitkit.runtime.bench.sustained import Sustained

SUSTAINED_COLUMNS = ("run", "seconds", "inferences", "p50 first, ms", "p50 last, ms", "change", "hottest, °C")
STREAM_COLUMNS = (
    "run",
    "frames",
    "arriving, fps",
    "done, fps",
    "deadline, ms",
    "late",
    "p50, ms",
    "p99, ms",
    "max, ms",
)
ENERGY_COLUMNS = ("run", "mJ above idle", "± (99 %)", "mJ in all", "idle, W", "running, W", "sensor", "covers")


def load(runs: Sequence[Run]) -> Section | None:
    """Shows what runs were asked for beside latency; None if none was."""
    blocks: list[Block] = []
    kept = [(run, run.record.sustained) for run in runs if run.record.sustained is not None]
    if kept:
        blocks += [
            Charts(charts=[_over_time(run, sustained) for run, sustained in kept if len(sustained.windows) > 1]),
            _table("Sustained load", SUSTAINED_COLUMNS, [_sustained(run, sustained) for run, sustained in kept]),
        ]
    streams = [_stream(run, run.record.stream) for run in runs if run.record.stream is not None]
    if streams:
        said = "A frame's latency begins when it arrives: where frames arrive too fast, each waits for those before it."
        blocks += [Paragraph(text=said), _table("Streamed frames", STREAM_COLUMNS, streams)]
    energies = [_energy(run, run.record.energy) for run in runs if run.record.energy is not None]
    if energies:
        said = "Energy of one inference: power while running, less that of the idle board before and after."
        blocks += [Paragraph(text=said), _table("Energy", ENERGY_COLUMNS, energies, figures=5)]
    blocks = [block for block in blocks if not isinstance(block, Charts) or block.charts]
    return Section(anchor="load", title="Load, frames and energy", blocks=blocks) if blocks else None


def _table(caption: str, columns: Sequence[str], rows: Sequence[Row], figures: int | None = None) -> Table:
    numeric = frozenset(range(1, (figures or len(columns) - 1) + 1))
    return Table(caption=caption, columns=columns, rows=rows, numeric=numeric)


def _over_time(run: Run, sustained: Sustained) -> Chart:
    """Draws the median latency of every window."""
    points = [(window.start_s, window.p50_ms) for window in sustained.windows]
    return Chart(
        title=f"Latency under sustained load, {run.label}",
        description=f"Medians of {len(points)} windows in {sustained.duration_s:.0f} s; the last quarter is "
        f"{sustained.slowdown:+.1%} from the first window.",
        x=make_scale("seconds", [0, points[-1][0]], log=False, lowest=0.0),
        y=make_scale("latency, ms", [value for _, value in points], log=False),
        lines=[Line(points=points)],
    )


def _sustained(run: Run, sustained: Sustained) -> Row:
    emulated = sustained.emulated
    celsius = [window.celsius for window in sustained.windows if window.celsius is not None]
    cells = (
        run.label,
        f"{sustained.duration_s:.0f}",
        f"{sustained.inferences:,}",
        milliseconds(sustained.first_ms, emulated=emulated),
        milliseconds(sustained.last_ms, emulated=emulated),
        f"{sustained.slowdown:+.1%}",
        figure(max(celsius, default=None)),
    )
    return Row(cells=cells, muted=not run.record.valid)


def _stream(run: Run, stream: Stream) -> Row:
    latency = stream.latency_ms
    cells = (
        run.label,
        f"{stream.frames:,}",
        "one by one" if stream.fps is None else figure(stream.fps),
        figure(stream.fps_reached),
        figure(stream.deadline_ms),
        "" if stream.misses is None else f"{stream.misses:,}",
        *(milliseconds(value, emulated=latency.emulated) for value in (latency.p50, latency.p99, latency.max)),
    )
    return Row(cells=cells, muted=not run.record.valid)


def _energy(run: Run, energy: Energy) -> Row:
    cells = (
        run.label,
        figure(energy.net_per_inference_mj) if energy.resolved else "not distinguishable from idle",
        figure(energy.net_error_mj),
        figure(energy.per_inference_mj),
        figure(energy.idle_w),
        figure(energy.active_w),
        energy.meter,
        energy.scope,
    )
    return Row(cells=cells, muted=not run.record.valid)
