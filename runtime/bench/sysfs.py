"""Reads the small text files of ``/sys`` and ``/proc``, here or in a copy of a board's; what is not there is None."""

from __future__ import annotations

import re
from pathlib import Path

MOST_DIGITS = 24
DIGITS = re.compile(r"([0-9]+)")


def read_text(path: Path) -> str | None:
    """Returns a file's text without blanks and zero bytes at its ends; None where it is absent or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t") or None
    except OSError:
        return None


def read_integer(path: Path, base: int = 10) -> int | None:
    """Returns a file's whole number; None where there is none."""
    return parse_integer(read_text(path) or "", base)


def parse_integer(text: str, base: int = 10) -> int | None:
    """Reads a whole number of at most 64 bits; None if it is none."""
    try:
        value = int(text[:MOST_DIGITS], base)
    except ValueError:
        return None
    return value if len(text) <= MOST_DIGITS and abs(value) < 2**64 else None


def read_numbered(root: Path, pattern: str) -> list[Path]:
    """Returns what a glob pattern finds, ``name2`` before ``name10``."""

    def key(path: Path) -> list[str]:
        return [part.zfill(MOST_DIGITS) for part in DIGITS.split(str(path))]

    return sorted(root.glob(pattern), key=key)
