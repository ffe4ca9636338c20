"""The sections of a report, in their order.

A section is a function of all runs that returns a :class:`svitkit.report.blocks.Section`, or None where the runs have
nothing to say about it. It appears in HTML and in Markdown once it stands in ``SECTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from svitkit.report.blocks import Section
from svitkit.report.runs import Run, by_place
from svitkit.report.sections.compression import compression
from svitkit.report.sections.environment import environment
from svitkit.report.sections.latency import latency
from svitkit.report.sections.layers import layers
from svitkit.report.sections.load import load
from svitkit.report.sections.overview import overview
from svitkit.report.sections.tradeoffs import tradeoffs

SECTIONS: tuple[Callable[[Sequence[Run]], Section | None], ...] = (
    overview,
    tradeoffs,
    latency,
    load,
    layers,
    compression,
    environment,
)


def make_sections(runs: Sequence[Run]) -> list[Section]:
    """Returns the sections that have something to say about the runs, board by board."""
    ordered = [run for own in by_place(runs).values() for run in own]
    made = (section(ordered) for section in SECTIONS)
    return [section for section in made if section is not None]
