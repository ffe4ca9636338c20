"""What a report is made of. HTML and Markdown are written from these, and from nothing else.

All text is plain: it is escaped where it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from svitkit.report.chart import Chart


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        bar: length (0..1) of a bar beside the text; None for none.
        heat: strength (0..1) of its background; None for none.
        style: which of the shapes and colours of the charts stands before the text; None for none.
    """

    text: str
    bar: float | None = None
    heat: float | None = None
    style: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table; the first cell is its heading.

    Attributes:
        cells: one a column.
        muted: whether it is greyed, as an invalid run's; the text must say so, too.
    """

    cells: Sequence[Cell | str]
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: each with as many cells.
        numeric: columns, by number, whose cells are figures.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a shape and colour means.

    Attributes:
        style: its number.
        text: the meaning.
        muted: whether it is grey, as an invalid run's.
    """

    style: int
    text: str
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Charts:
    """Charts side by side where there is room, and what their shapes and colours mean.

    Attributes:
        charts: at least one.
        legend: empty where the charts themselves say it.
    """

    charts: Sequence[Chart]
    legend: Sequence[Key] = ()


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Sentences.

    Attributes:
        text: the sentences.
        warning: whether they must not be overlooked.
    """

    text: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks that open when they are asked for.

    Attributes:
        summary: what they are about.
        blocks: any but groups.
        opened: whether they are open from the beginning.
    """

    summary: str
    blocks: Sequence[Block]
    opened: bool = False


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Blocks side by side where there is room.

    Attributes:
        blocks: tables.
    """

    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Blocks under a heading of their own.

    Attributes:
        title: the heading.
        blocks: any but groups.
    """

    title: str
    blocks: Sequence[Block]


Block = Table | Charts | Paragraph | Fold | Columns | Group


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: its name in links; letters and dashes.
        title: its heading.
        blocks: what it says.
    """

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
