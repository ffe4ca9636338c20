"""What ``remote.sh`` prints on a board, as svitkit reads it: nothing that a board says may end in a traceback."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

BEGIN = "svitkit-begin\n"
END = "\nsvitkit-end "
KIBIBYTE = 1024
STATUS = re.compile(r"[0-9]{1,3}\s*")
NUMBER = re.compile(r"[0-9]{1,15}")
LARGEST_TIME = 1 << 40
"""Seconds; calendars end soon behind."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command on the board printed, and its exit status."""

    stdout: bytes
    stderr: str
    status: int


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Who uses a board, in the words of the board: the owner, since when, and seconds until the lock ends."""

    owner: str
    since: str
    left: str

    @property
    def start(self) -> str | None:
        """When it was taken, by the board's clock; None where that is no time."""
        seconds = read_number(self.since)
        if seconds is None or seconds > LARGEST_TIME:
            return None
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where files lie on a board.

    Attributes:
        placed: the directory, once all are there.
        missing: the names of those that are not there, with the bytes that are.
        free_bytes: of the disk.
    """

    placed: str | None
    missing: dict[str, int]
    free_bytes: int | None


def read_answer(stdout: bytes, stderr: bytes) -> Answer | None:
    """Reads what a verb of ``remote.sh`` printed; None where its marks or its exit status are missing."""
    before, end, status = stderr.decode(errors="replace").rpartition(END)
    _, begin, content = stdout.partition(BEGIN.encode())
    if not end or not begin or not STATUS.fullmatch(status):
        return None
    return Answer(stdout=content, stderr=before.partition(BEGIN)[2], status=int(status))


def read_busy(lines: Iterable[str]) -> Busy | None:
    """Finds the last line ``busy<tab>owner<tab>since<tab>left``."""
    found = [line.split("\t") for line in lines if line.startswith("busy\t")]
    if not found:
        return None
    owner, since, left = [*found[-1][1:4], "", "", ""][:3]
    return Busy(owner=owner, since=since, left=left)


def read_places(text: str) -> Places:
    """Reads the lines of ``remote.sh place``."""
    lines = [line.split("\t") for line in text.splitlines()]
    values = {words[0]: words[1] for words in reversed(lines) if len(words) == 2}
    missing = {words[1]: read_number(words[2]) or 0 for words in lines if words[0] == "missing" and len(words) == 3}
    kibibytes = read_number(values.get("free_kib", ""))
    return Places(
        placed=values.get("placed"),
        missing=missing,
        free_bytes=None if kibibytes is None else kibibytes * KIBIBYTE,
    )


def read_number(text: str) -> int | None:
    """Returns a number of up to 15 digits; None for anything else."""
    return int(text) if NUMBER.fullmatch(text) else None


def write_tree(root: Path, text: str) -> None:
    """Writes lines of ``path<tab>content`` as files; a path that leads out of ``root``, or is none, is passed over."""
    for line in text.splitlines():
        name, tab, content = line.partition("\t")
        parts = PurePosixPath(name).parts
        if tab and parts and parts[0] in ("sys", "proc") and ".." not in parts:
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content + "\n", encoding="utf-8")
            except (OSError, ValueError):
                continue
