"""Charts as data in the units of what they show, and where their parts lie in the picture.

A picture is 360 x 270 units: about a phone's width, so that its text has the size of the page's there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from svitkit.report.labels import POINT, Box, place_labels
from svitkit.report.scale import Scale, tick_text

WIDTH, HEIGHT = 360.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 344.0, 12.0, 226.0
STYLES = 8
"""Shapes, each with a colour; more kinds of runs than these share them."""
SHAPES = (
    "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0Z",
    "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "M0,-6L6,0L0,6L-6,0Z",
    "M0,-6L5.6,4.4H-5.6Z",
    "M0,6L5.6,-4.4H-5.6Z",
    "M-1.8,-5.5H1.8V-1.8H5.5V1.8H1.8V5.5H-1.8V1.8H-5.5V-1.8H-1.8Z",
    "M0,-5.8L5.5,-1.8L3.4,4.7H-3.4L-5.5,-1.8Z",
    "M0,-6.4L1.9,-2.2L6.1,-2L2.9,1.2L3.8,5.6L0,3.4L-3.8,5.6L-2.9,1.2L-6.1,-2L-1.9,-2.2Z",
)
"""Outlines around the origin, one a style."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One run in a chart.

    Attributes:
        x, y: where.
        x_range, y_range: low and high end of its error bars; None for none.
        style: its shape and colour.
        label: its name, if that stands in the picture.
        filled: whether the shape is filled.
        muted: whether it is grey and crossed out.
    """

    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    style: int
    label: str = ""
    filled: bool = True
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points joined by a line.

    Attributes:
        points: (x, y) of each.
        style: its colour; None for that of the text.
        dashed: whether it is.
    """

    points: Sequence[tuple[float, float]]
    style: int | None = None
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Band:
    """What lies between two lines.

    Attributes:
        points: (x, low, high) of each place.
        style: its colour.
    """

    points: Sequence[tuple[float, float, float]]
    style: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart.

    Attributes:
        title: what it shows.
        description: what can be seen in it, for those who do not see it.
        x, y: its axes.
        marks, lines, bands: what is drawn, the last first.
    """

    title: str
    description: str
    x: Scale
    y: Scale
    marks: Sequence[Mark] = ()
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()


@dataclass(frozen=True, kw_only=True)
class Text:
    """Text in the picture; ``anchor`` is the end that lies at (x, y)."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "middle"
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Path:
    """An outline, moved to (x, y).

    Attributes:
        data: in SVG's language of paths.
        css: names of its classes in the style sheet.
    """

    data: str
    css: str
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart in the units of its picture.

    Attributes:
        paths: what is drawn, the first below the others.
        texts: what is written.
    """

    paths: tuple[Path, ...]
    texts: tuple[Text, ...]


def draw(chart: Chart) -> Drawing:
    """Lays a chart out."""
    marks = [_mark_paths(chart, mark) for mark in chart.marks]
    paths = [*_frame(chart), *(_band_path(chart, band) for band in chart.bands)]
    paths += [_line_path(chart, line) for line in chart.lines]
    paths += [path for own in marks for path in own]
    return Drawing(paths=tuple(paths), texts=(*_tick_texts(chart), *_labels(chart)))


def shape(style: int, *, filled: bool = True, muted: bool = False) -> Path:
    """Returns the outline of a style at the origin."""
    colour = "muted" if muted else f"s{style % STYLES}"
    return Path(data=SHAPES[style % STYLES], css=f"mark {colour}{'' if filled else ' hollow'}")


def _x(chart: Chart, value: float) -> float:
    return LEFT + min(1.0, max(0.0, chart.x.place(value))) * (RIGHT - LEFT)


def _y(chart: Chart, value: float) -> float:
    return BOTTOM - min(1.0, max(0.0, chart.y.place(value))) * (BOTTOM - TOP)


def _frame(chart: Chart) -> list[Path]:
    grid = [f"M{_x(chart, tick):.1f},{TOP}V{BOTTOM}" for tick in chart.x.ticks]
    grid += [f"M{LEFT},{_y(chart, tick):.1f}H{RIGHT}" for tick in chart.y.ticks]
    return [Path(data="".join(grid), css="grid"), Path(data=f"M{LEFT},{TOP}V{BOTTOM}H{RIGHT}", css="axis")]


def _tick_texts(chart: Chart) -> list[Text]:
    texts = [Text(x=round(_x(chart, tick), 1), y=BOTTOM + 15, text=tick_text(tick)) for tick in chart.x.ticks]
    texts += [
        Text(x=LEFT - 5, y=round(_y(chart, tick) + 4, 1), text=tick_text(tick), anchor="end") for tick in chart.y.ticks
    ]
    return texts


def _line_path(chart: Chart, line: Line) -> Path:
    points = "L".join(f"{_x(chart, x):.1f},{_y(chart, y):.1f}" for x, y in line.points)
    colour = "plain" if line.style is None else f"s{line.style % STYLES}"
    return Path(data=f"M{points}", css=f"line {colour}{' dashed' * line.dashed}")


def _band_path(chart: Chart, band: Band) -> Path:
    upper = [f"{_x(chart, x):.1f},{_y(chart, high):.1f}" for x, _, high in band.points]
    lower = [f"{_x(chart, x):.1f},{_y(chart, low):.1f}" for x, low, _ in reversed(band.points)]
    return Path(data=f"M{'L'.join(upper + lower)}Z", css=f"band s{band.style % STYLES}")


def _mark_paths(chart: Chart, mark: Mark) -> list[Path]:
    """Returns error bars with caps, the shape, and the cross over it if it is muted."""
    x, y = _x(chart, mark.x), _y(chart, mark.y)
    colour = "muted" if mark.muted else f"s{mark.style % STYLES}"
    bars = ""
    if mark.x_range is not None:
        low, high = (_x(chart, value) for value in mark.x_range)
        bars += f"M{low:.1f},{y:.1f}H{high:.1f}M{low:.1f},{y - 3:.1f}v6M{high:.1f},{y - 3:.1f}v6"
    if mark.y_range is not None:
        low, high = (_y(chart, value) for value in mark.y_range)
        bars += f"M{x:.1f},{low:.1f}V{high:.1f}M{x - 3:.1f},{low:.1f}h6M{x - 3:.1f},{high:.1f}h6"
    outline = shape(mark.style, filled=mark.filled, muted=mark.muted)
    paths = [Path(data=bars, css=f"error {colour}")] if bars else []
    paths.append(Path(data=outline.data, css=outline.css, x=round(x, 1), y=round(y, 1)))
    if mark.muted:
        paths.append(Path(data="M-7,-7L7,7M-7,7L7,-7", css="error muted", x=round(x, 1), y=round(y, 1)))
    return paths


def _labels(chart: Chart) -> list[Text]:
    named = [mark for mark in chart.marks if mark.label]
    obstacles = [box for mark in chart.marks for box in _covered(chart, mark)]
    for line in chart.lines:
        places = [(_x(chart, x), _y(chart, y)) for x, y in line.points]
        obstacles += [_box(*start, *end) for start, end in pairwise(places)]
    points = [(_x(chart, mark.x), _y(chart, mark.y), mark.label) for mark in named]
    chosen = place_labels(points, obstacles, (LEFT, TOP, RIGHT, BOTTOM))
    return [
        Text(x=round(place.x, 1), y=round(place.y, 1), text=mark.label, anchor=place.anchor, muted=mark.muted)
        for mark, place in zip(named, chosen, strict=True)
    ]


def _covered(chart: Chart, mark: Mark) -> list[Box]:
    """Returns what a mark and its error bars cover."""
    x, y = _x(chart, mark.x), _y(chart, mark.y)
    boxes = [(x - POINT, y - POINT, x + POINT, y + POINT)]
    if mark.x_range is not None:
        boxes.append(_box(_x(chart, mark.x_range[0]), y, _x(chart, mark.x_range[1]), y))
    if mark.y_range is not None:
        boxes.append(_box(x, _y(chart, mark.y_range[0]), x, _y(chart, mark.y_range[1])))
    return boxes


def _box(x: float, y: float, to_x: float, to_y: float) -> Box:
    """Returns what a level or upright line covers."""
    return min(x, to_x) - 1, min(y, to_y) - 1, max(x, to_x) + 1, max(y, to_y) + 1
