"""All runs in one table."""

from __future__ import annotations

from collections.abc import Sequence

from svitkit.report.blocks import Cell, Paragraph, Row, Section, Table
from svitkit.report.pareto import Point, best
from svitkit.report.runs import Run, board_title, styles
from svitkit.report.words import figure, milliseconds, verdict

COLUMNS = (
    "method",
    "board",
    "verdict",
    "accuracy %",
    "95 % interval",
    "p50 ms",
    "memory KiB",
    "golden",
    "front",
)


def overview(runs: Sequence[Run]) -> Section:
    """Says of every run what it came to."""
    points = [Point(run) for run in runs]
    winners, style = best(points), styles(runs)
    emulated = any(run.record.emulated for run in runs)
    said = (
        "Latency is one inference of all time steps, batch 1. A run is on the front if, on its board, no other valid "
        "one is at least as good in accuracy, latency and memory and better in one of them."
    )
    if emulated:
        said += (
            " Emulated boards show that the code runs and what it answers: their times are those of the emulator, "
            "never a board's, and decide on no front; their memory is the plan of the bundle (weights, states, "
            "workspace), not the peak of a process."
        )
    if any(run.record.on_gpu for run in runs):
        said += (
            " CPU and GPU of a board count as two boards: the memory of a process lacks what the driver of a GPU "
            "takes, for which the memory of the system stands under Environment."
        )
    invalid = sum(not run.record.valid for run in runs)
    warning = [] if not invalid else [Paragraph(text=_invalid_text(invalid, len(runs)), warning=True)]
    rows = [_row(point, style[point.run.name], point.run.label in winners) for point in points]
    shown = Table(caption="Every run", columns=COLUMNS, rows=rows, numeric=frozenset(range(3, 7)))
    return Section(anchor="runs", title="Runs", blocks=(*warning, Paragraph(text=said), shown))


def _invalid_text(invalid: int, runs: int) -> str:
    are = "is" if invalid == 1 else "are"
    return (
        f"{invalid} of {runs} runs {are} not valid: greyed and crossed out in charts, on no front. The reasons stand "
        "in the table."
    )


def _row(point: Point, style: int, front: bool) -> Row:
    run, record = point.run, point.run.record
    golden = "equal" if record.golden.match else f"DIFFERENT by {record.golden.max_abs_diff:.2g}"
    cells = (
        Cell(text=run.method, style=style),
        board_title(run),
        verdict(record.valid, record.reasons),
        "" if point.accuracy is None else f"{point.accuracy:.2f}",
        "" if point.accuracy_range is None else "{:.1f} to {:.1f}".format(*point.accuracy_range),
        milliseconds(point.latency_ms, emulated=record.emulated),
        figure(point.memory_kib),
        golden,
        "yes" if front else "",
    )
    return Row(cells=cells, muted=not record.valid)
