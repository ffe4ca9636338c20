"""What a verb says: progress on stderr, and on stdout either tables or exactly one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pydantic_core import to_jsonable_python
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from svitkit.progress import Advance

FILE_WIDTH = 160
"""Columns of a table that is not shown on a terminal."""


class Show(Protocol):
    """Says a verb's result."""

    def __call__(self, result: Mapping[str, Any], *readable: RenderableType) -> None:
        """Prints ``result`` as JSON if that was asked for, otherwise ``readable``."""


@contextmanager
def answer(as_json: bool) -> Iterator[Show]:
    """Yields the function that prints a verb's result.

    With ``as_json`` everything else that the block or a library or a child process writes to stdout goes to stderr, so
    that stdout is exactly one JSON object.
    """
    if not as_json:
        yield _show_readable
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield lambda result, *readable: _write_all(stdout, _json_line(result))
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def _show_readable(result: Mapping[str, Any], *readable: RenderableType) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    for part in readable:
        console.print(part, highlight=False)


def _json_line(result: Mapping[str, Any]) -> bytes:
    return (json.dumps(to_jsonable_python(result), allow_nan=False) + "\n").encode()


def _write_all(descriptor: int, content: bytes) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)


@contextmanager
def progress() -> Iterator[Advance]:
    """Yields a function that moves progress bars on stderr, one per stage of the work."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: float, total: float = 1.0, /) -> None:
            if stage not in tasks:
                for earlier in tasks.values():  # a stage begins when those before it are done
                    bars.update(earlier, completed=1.0, total=1.0)
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """Lays out rows of text under a title."""
    made = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*row)
    return made


def kibibytes(count: float) -> str:
    """Writes a number of bytes for people."""
    return f"{count / 1024:,.1f} KiB"
