"""Where the names of points stand in a chart: beside their point, not over another point or name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge; y grows downwards."""
LETTER_WIDTH, LINE_HEIGHT, DESCENT = 6.2, 12.0, 3.0
"""Of text at 11 units; an estimate of the width that errs to the wide side."""
POINT = 6.0
"""Half the extent of a point."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a name stands.

    Attributes:
        x, y: of its base line.
        anchor: which end of the text lies there.
        box: what it covers.
    """

    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    box: Box


def place_labels(labels: Sequence[tuple[float, float, str]], obstacles: Sequence[Box], frame: Box) -> list[Place]:
    """Chooses a place for every name, one after the other: the one that covers least.

    Args:
        labels: x, y of a point, and its name.
        obstacles: what should stay visible.
        frame: what names should not leave.
    """
    covered = list(obstacles)
    chosen = []
    for x, y, text in labels:
        place = min(_places(x, y, len(text) * LETTER_WIDTH), key=lambda place: _cost(place.box, covered, frame))
        covered.append(place.box)
        chosen.append(place)
    return chosen


def _places(x: float, y: float, width: float) -> list[Place]:
    """Returns the places around a point, the preferred ones first."""
    gap = POINT + 3
    places = []
    for down in (-9.0, 11.0, 0.0, -16.0, 17.0, -28.0, 28.0):
        base = y + 4 + down
        sides: list[tuple[Literal["start", "middle", "end"], float, float]] = [
            ("start", x + gap, x + gap),
            ("end", x - gap, x - gap - width),
        ]
        if abs(down) > POINT + LINE_HEIGHT / 2:
            sides.append(("middle", x, x - width / 2))
        for anchor, at, left in sides:
            box = (left, base + DESCENT - LINE_HEIGHT, left + width, base + DESCENT)
            places.append(Place(x=at, y=base, anchor=anchor, box=box))
    return places


def _cost(box: Box, covered: Sequence[Box], frame: Box) -> float:
    """Returns the area that a box shares with others, and, weighing more, that it has outside the frame."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_shared(box, other) for other in covered) + 10 * (area - _shared(box, frame))


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
