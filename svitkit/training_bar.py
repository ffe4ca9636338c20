"""A progress bar with the time left, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from svitkit.fitting import Report, TrainingProgress


@contextmanager
def training_bar(title: str = "training") -> Iterator[Report]:
    """Yields a function for the ``report`` argument of ``fit`` and ``train`` that draws a bar on standard error."""
    from rich.console import Console
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
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, epoch="-", loss=float("nan"), reached="-")

        def report(progress: TrainingProgress) -> None:
            epoch = f"{progress.epoch + 1}/{progress.epochs}"
            bar.update(task, total=progress.steps, completed=progress.step, epoch=epoch, loss=progress.loss)
            if progress.validation_accuracy is not None:
                bar.update(task, reached=f"{progress.validation_accuracy:.2f} %")

        yield report
