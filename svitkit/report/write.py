"""Makes the files of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from svitkit.files import write_text
from svitkit.report.flat import Value, flat_rows, render_csv
from svitkit.report.markdown import render_markdown
from svitkit.report.page import TITLE, render_page
from svitkit.report.runs import Run, Runs
from svitkit.report.sections import make_sections


def write_report(
    found: Runs, html: Path, *, markdown: Path | None = None, csv: Path | None = None
) -> list[dict[str, Value]]:
    """Writes a report.

    Args:
        found: what it is about.
        html: the page.
        markdown: the same with its charts in words; None for none.
        csv: one row a run; None for none.

    Returns:
        The rows of the flat table.
    """
    sections, summary = make_sections(found.runs), summarize(found.runs)
    rows = flat_rows(found.runs)
    write_text(html, render_page(sections, summary=summary, remarks=found.remarks))
    if markdown is not None:
        write_text(markdown, render_markdown(sections, title=TITLE, summary=summary, remarks=found.remarks))
    if csv is not None:
        write_text(csv, render_csv(rows))
    return rows


def summarize(runs: Sequence[Run]) -> str:
    """Says in a sentence what was measured, where and when."""
    boards = list(dict.fromkeys(run.where for run in runs))
    methods = list(dict.fromkeys(run.method for run in runs))
    times = sorted(run.record.started_at for run in runs)
    days = f"{times[0][:10]}" if times[0][:10] == times[-1][:10] else f"{times[0][:10]} to {times[-1][:10]}"
    counted = [(len(runs), "run"), (len(methods), "method"), (len(boards), "board")]
    said = [f"{number} {name}{'s' * (number != 1)}" for number, name in counted]
    emulated = sorted({run.where for run in runs if run.record.emulated})
    ending = f"; {', '.join(emulated)} emulated" if emulated else ""
    return f"{said[0]} of {said[1]} on {said[2]}, measured {days}{ending}."
