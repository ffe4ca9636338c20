"""How far a training is, on standard error: a bar on a terminal, plain lines in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from svitkit.fitting import Report, TrainingProgress

LINE_SECONDS = 60.0
"""Plain lines are at most that far apart."""


@contextmanager
def training_bar(title: str = "training") -> Iterator[Report]:
    """Yields a function for the ``report`` argument of ``fit`` and ``train`` that shows progress on standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield plain_lines(title, lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("epoch {task.fields[epoch]}"),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("validation {task.fields[reached]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0, epoch="-", loss=float("nan"), reached="-")

        def report(progress: TrainingProgress) -> None:
            epoch = f"{progress.epoch + 1}/{progress.epochs}"
            bar.update(task, completed=progress.share, epoch=epoch, loss=progress.loss)
            if progress.validation_accuracy is not None:
                bar.update(task, reached=f"{progress.validation_accuracy:.2f} %")

        yield report


def plain_lines(title: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Report:
    """Returns a report that writes a line after every epoch, and at least one a minute while steps end.

    A line names epoch, step, loss, validation accuracy if the epoch has just ended, the seconds since the start, and
    the seconds left by the work done so far.

    Args:
        title: what every line begins with.
        write: takes a line without its end.
        clock: seconds.
    """
    started = written = clock()
    first: TrainingProgress | None = None

    def report(progress: TrainingProgress) -> None:
        nonlocal written, first
        now = clock()
        if first is None:
            first, written = progress, -LINE_SECONDS + now
        if progress.validation_accuracy is None and now - written < LINE_SECONDS:
            return
        written = now
        done = progress.share - first.share  # of a training that goes on, what was done before took no time
        left = f"{(now - started) * (1 - progress.share) / done:.0f} s left" if done > 0 else "time left unknown"
        reached = progress.validation_accuracy
        parts = [
            f"{title}: epoch {progress.epoch + 1}/{progress.epochs}",
            f"step {progress.step}/{progress.steps}",
            f"loss {progress.loss:.3f}",
            *([] if reached is None else [f"validation {reached:.2f} %"]),
            f"{now - started:.0f} s",
            left,
        ]
        write(", ".join(parts))

    return report
