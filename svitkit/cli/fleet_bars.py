"""Progress of a fleet on stderr: a bar for every board, and a line for every run that ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from svitkit.progress import Advance
from svitkit.runtime.bench.fleet import Job
from svitkit.runtime.bench.fleet_results import FleetRun


class FleetBars:
    """The bars; boards move theirs from threads of their own, which rich allows.

    Args:
        bars: where they are drawn.
        jobs: the runs that are shown.
    """

    def __init__(self, bars: Progress, jobs: Sequence[Job]) -> None:
        self._bars = bars
        self._boards = {where: bars.add_task(where, total=None) for where in dict.fromkeys(j.key.where for j in jobs)}

    def begin(self, job: Job) -> Advance:
        """Says that a run begins, and returns what its stages are told to."""
        where = job.key.where
        bar = self._boards[where]

        def advance(stage: str, done: float, total: float = 1.0, /) -> None:
            self._bars.update(bar, description=f"{where}: {job.key.bundle}, {stage}", completed=done, total=total)

        advance("connecting", 0.0)
        return advance

    def end(self, run: FleetRun) -> None:
        """Says what became of a run."""
        self._bars.update(self._boards[run.run.where], description=run.run.where, completed=1.0, total=1.0)
        self._bars.console.print(f"{run.run.where}: {run.run.bundle}: {_outcome(run)}", highlight=False, markup=False)


@contextmanager
def fleet_bars(jobs: Sequence[Job]) -> Iterator[FleetBars]:
    """Draws bars on stderr until the block is left."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield FleetBars(bars, jobs)


def _outcome(run: FleetRun) -> str:
    if run.record is None:
        return f"{run.outcome}: {run.error}"
    return "measured" if run.record.valid else f"measured, not valid: {'; '.join(run.record.reasons)}"
