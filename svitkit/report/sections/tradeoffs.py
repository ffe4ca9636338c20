"""Accuracy, latency and memory of all methods, two at a time, board by board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from svitkit.report.blocks import Charts, Group, Paragraph, Section
from svitkit.report.chart import Chart, Line, Mark
from svitkit.report.pareto import Point, best, front
from svitkit.report.runs import Run, by_place, styles
from svitkit.report.scale import Scale, make_scale

LONGEST_NAME = 34
"""Letters of a name in a chart."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One of the three.

    Attributes:
        name: of the quantity, in a title.
        unit: of its axis.
        value: reads it; None where it was not measured.
        ends: reads the ends of its error bar; None for none.
        sign: 1 if less of it is better, -1 if more is, 0 if it is no merit.
        highest: no value is above.
    """

    name: str
    unit: str
    value: Callable[[Point], float | None]
    ends: Callable[[Point], tuple[float, float] | None]
    sign: int
    highest: float = float("inf")


ACCURACY = Quantity(
    name="accuracy",
    unit="accuracy on the device, %",
    value=lambda point: point.accuracy,
    ends=lambda point: point.accuracy_range,
    sign=-1,
    highest=100.0,
)
LATENCY = Quantity(
    name="latency",
    unit="median latency, ms",
    value=lambda point: point.latency_ms,
    ends=lambda point: point.latency_range,
    sign=1,
)
EMULATED_LATENCY = Quantity(
    name="time of the emulator",
    unit="median time of the emulator, ms",
    value=LATENCY.value,
    ends=LATENCY.ends,
    sign=0,
)
PEAK = Quantity(
    name="peak memory",
    unit="peak memory (VmHWM), KiB",
    value=lambda point: point.memory_kib,
    ends=lambda _: None,
    sign=1,
)
PLANNED = Quantity(name="planned memory", unit="planned memory, KiB", value=PEAK.value, ends=PEAK.ends, sign=1)


def tradeoffs(runs: Sequence[Run]) -> Section:
    """Draws which method costs what on every board."""
    style = styles(runs)
    said = Paragraph(
        text="Accuracy has its 95 % interval (Wilson), latency the quartiles of its samples. Filled: on the front of "
        "its board, by accuracy, latency and memory together. The dashed line joins the valid runs that none beats in "
        "the two quantities of a chart; there is none over the time of an emulator. Grey and crossed out: not valid."
    )
    groups = [_board(title, own, style) for title, own in by_place(runs).items()]
    return Section(anchor="tradeoffs", title="Accuracy, latency and memory", blocks=(said, *groups))


def _board(title: str, runs: Sequence[Run], style: dict[str, int]) -> Group:
    points = [Point(run) for run in runs]
    emulated = runs[0].record.emulated
    latency, memory = (EMULATED_LATENCY, PLANNED) if emulated else (LATENCY, PEAK)
    winners = best(points)
    pairs = ((latency, ACCURACY), (memory, ACCURACY), (latency, memory))
    drawn = [_chart(title, points, winners, style, x=x, y=y) for x, y in pairs]
    charts = [chart for chart in drawn if chart is not None]
    missing = [run.label for run in runs if None in _values(Point(run), latency, memory, ACCURACY)]
    blocks = [Charts(charts=charts)] if charts else []
    note = f"Without one of the three, and so in not all charts: {', '.join(missing)}."
    return Group(title=title, blocks=(*blocks, *([Paragraph(text=note)] if missing else [])))


def _values(point: Point, *quantities: Quantity) -> list[float | None]:
    return [quantity.value(point) for quantity in quantities]


def _chart(
    board: str, points: Sequence[Point], winners: set[str], style: dict[str, int], *, x: Quantity, y: Quantity
) -> Chart | None:
    """Draws one quantity over another; None if no run has both."""
    marks: list[Mark] = []
    valid: list[tuple[float, float]] = []
    for point in points:
        across, up = x.value(point), y.value(point)
        if across is None or up is None:
            continue
        run = point.run
        if run.record.valid:
            valid.append((across, up))
        marks.append(
            Mark(
                x=across,
                y=up,
                x_range=x.ends(point),
                y_range=y.ends(point),
                style=style[run.name],
                label=_name(run),
                filled=run.label in winners,
                muted=not run.record.valid,
            )
        )
    if not marks:
        return None
    stairs = _stairs(valid, x.sign, y.sign) if x.sign and y.sign else []
    listed = "; ".join(f"{mark.label}: {mark.x:.4g} and {mark.y:.4g}" for mark in marks)
    return Chart(
        title=f"{y.name.capitalize()} over {x.name}, {board}",
        description=f"Of every run the {x.unit}, and the {y.unit}: {listed}.",
        x=_scale(x, [(mark.x, mark.x_range) for mark in marks]),
        y=_scale(y, [(mark.y, mark.y_range) for mark in marks]),
        marks=marks,
        lines=[Line(points=stairs, dashed=True)] if len(stairs) > 1 else [],
    )


def _name(run: Run) -> str:
    """Returns a run's name, short enough for a picture."""
    short = run.name if len(run.name) <= LONGEST_NAME else f"{run.name[: LONGEST_NAME - 3]}..."
    return short if run.record.valid else f"{short} (invalid)"


def _scale(quantity: Quantity, values: Sequence[tuple[float, tuple[float, float] | None]]) -> Scale:
    every = [end for value, ends in values for end in (value, *(ends or ()))]
    log = None if quantity is not ACCURACY else False
    return make_scale(quantity.unit, every, log=log, highest=quantity.highest)


def _stairs(points: Sequence[tuple[float, float]], x_sign: int, y_sign: int) -> list[tuple[float, float]]:
    """Returns the corners of the front of two quantities, from the best to the worst of the first."""
    kept = front([(x_sign * x, y_sign * y) for x, y in points])
    ordered = sorted({points[number] for number in kept}, key=lambda point: x_sign * point[0])
    corners = ordered[:1]
    for x, y in ordered[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners
