"""Reads the small text files of ``/sys`` and ``/proc``, here or in a copy of a board's; what is not there is None."""

from __future__ import annotations

import re
from pathlib import Path

DIGITS = re.compile(r"([0-9]+)")


def read_text(path: Path) -> str | None:
    """Returns a file's text without blanks and zero bytes at its ends; None where it is absent or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t") or None
    except OSError:
        return None


def read_integer(path: Path, base: int = 10) -> int | None:
    """Returns a whole number; None where there is none."""
    try:
        return int(read_text(path) or "", base)
    except ValueError:
        return None


def read_numbered(root: Path, pattern: str) -> list[Path]:
    """Returns what a glob pattern finds, ``name2`` before ``name10``."""

    def key(path: Path) -> list[int | str]:
        return [int(part) if part.isdecimal() else part for part in DIGITS.split(str(path))]

    return sorted(root.glob(pattern), key=key)
