"""Append-only files of JSON, one value a line: what stands there stays, and a last line torn by a kill is left out."""

from __future__ import annotations

import json
import os
from pathlib import Path


def append_line(path: Path, text: str) -> None:
    """Appends one JSON value to a file, on the disk when this returns.

    Args:
        path: the file; it is made if there is none.
        text: the value, on any number of lines.
    """
    line = json.dumps(json.loads(text), separators=(",", ":")) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[bytes]:
    """Returns the whole lines of a file."""
    raw = path.read_bytes()
    return raw[: raw.rfind(b"\n") + 1].splitlines()


def drop_torn_line(path: Path) -> None:
    """Cuts off what stands after the last whole line, so that the next one begins where a line begins."""
    raw = path.read_bytes()
    end = raw.rfind(b"\n") + 1
    if end < len(raw):
        os.truncate(path, end)
