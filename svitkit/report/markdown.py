"""A report as Markdown (GitHub's), with what charts show in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from svitkit.report.blocks import Block, Cell, Charts, Columns, Fold, Group, Paragraph, Row, Section, Table

SPECIAL = re.compile(r"([\\`*\[\]|~])")


def render_markdown(sections: Sequence[Section], *, title: str, summary: str, remarks: Sequence[str]) -> str:
    """Writes a report as Markdown; text of records can become neither markup nor HTML.

    Args:
        sections: what it says.
        title: its heading.
        summary: what it is about, in a sentence.
        remarks: what could not be used.
    """
    parts = [f"# {escape(title)}", escape(summary), *(f"**Note:** {escape(remark)}" for remark in remarks)]
    for section in sections:
        parts += [f"## {escape(section.title)}", *_blocks(section.blocks)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Makes text stand for itself, in one line."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph():
                yield ("**Note:** " if block.warning else "") + escape(block.text)
            case Table():
                yield f"**{escape(block.caption)}**"
                yield _table(block)
            case Group():
                yield f"### {escape(block.title)}"
                yield from _blocks(block.blocks)
            case Fold():
                yield f"<details>\n<summary>{escape(block.summary)}</summary>"
                yield from _blocks(block.blocks)
                yield "</details>"
            case Columns():
                yield from _blocks(block.blocks)
            case Charts():
                yield "\n".join(f"- {escape(chart.title)}. {escape(chart.description)}" for chart in block.charts)


def _table(block: Table) -> str:
    rule = ["---:" if number in block.numeric else "---" for number in range(len(block.columns))]
    lines = [[escape(column) for column in block.columns], rule, *(_cells(row) for row in block.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    return [escape(cell.text if isinstance(cell, Cell) else cell) for cell in row.cells]
