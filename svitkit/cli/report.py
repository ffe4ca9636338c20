"""The verb that shows measurements to others: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from svitkit.cli.options import AsJson
from svitkit.cli.output import answer, table


def report(
    records: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RECORD",
            help="A record of 'svitkit bench', a folder of 'svitkit deploy', or a .jsonl file with a record on every "
            "line. NAME= says what the run is called; if not given, it is the method in the checkpoint of its bundle, "
            "which is looked for beside the record.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The HTML file to write.")],
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Also write it as Markdown, its charts in words.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write a table with one row a run.")
    ] = None,
    artefacts: Annotated[
        list[Path] | None,
        typer.Option(
            "--artefacts",
            metavar="DIR",
            help="Where bundles and checkpoints of the records are, if not beside them: a bundle, a folder of 'svitkit "
            "deploy', or a folder of such; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about measurements: methods and boards side by side; it needs no network."""
    from svitkit.report.runs import read_runs
    from svitkit.report.words import milliseconds, verdict
    from svitkit.report.write import write_report

    with answer(as_json) as show:
        found = read_runs(records, artefacts=artefacts or ())
        rows = write_report(found, out, markdown=markdown, csv=csv)
        cells = [
            (
                run.label,
                f"{run.record.accuracy.percent:.2f}" if run.record.accuracy else "",
                milliseconds(run.record.latency_ms.p50, emulated=run.record.emulated),
                verdict(run.record.valid, run.record.reasons),
            )
            for run in found.runs
        ]
        written = [str(path) for path in (out, markdown, csv) if path is not None]
        show(
            {"written": written, "remarks": found.remarks, "runs": rows},
            table("Runs in the report", ("run", "accuracy %", "p50 ms", "verdict"), cells),
            *found.remarks,
            f"written: {', '.join(written)}",
        )
