"""The results of a fleet: JSON lines, the first what holds for all runs, then one a run, appended as runs end.

A run that failed may stand there again when it was repeated: the last line of a run counts.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from svitkit.append_only import append_line, drop_torn_line, read_lines
from svitkit.errors import ConfigError
from svitkit.manifest import from_json, to_json
from svitkit.runtime.bench.record import BenchRecord

STRICT = ConfigDict(extra="forbid", strict=True)
Outcome = Literal["measured", "failed", "skipped"]
Option = str | int | float | bool | None
BEGINNING = b'{"format_version":1,"kind":"svitkit-fleet",'
"""How the first line begins."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FleetHeader:
    """The first line.

    Attributes:
        options: how every run is measured; a file holds runs of the same options.
    """

    format_version: Literal[1] = 1
    kind: Literal["svitkit-fleet"] = "svitkit-fleet"
    options: dict[str, Option]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunKey:
    """What was to run where.

    Attributes:
        bundle: the bundle's name; it stays the same when the bundle is built again.
        bundle_sha256: of its manifest, which names every other file.
        board: the board.
        place: which one of several, by its table in boards.toml; absent where the board's own name says it.
    """

    bundle: str
    bundle_sha256: str
    board: str
    place: str | None = None

    @property
    def where(self) -> str:
        """The place, or the board where no place was named."""
        return self.place or self.board


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FleetRun:
    """A line: what became of a run.

    Attributes:
        run: which one.
        outcome: ``measured``; ``failed``, to be repeated; ``skipped``, because the bundle cannot run on the board.
        record: the measurement of a run that was measured, valid or not, and of no other.
        error: why there is none.
    """

    format_version: Literal[1] = 1
    run: RunKey
    outcome: Outcome
    record: BenchRecord | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Refuses a line that says two things."""
        measured = self.outcome == "measured"
        if measured != (self.record is not None) or measured != (self.error is None):
            raise ValueError(f"a {self.outcome} run has {'a record' if measured else 'an error'}, and not the other")


class Results:
    """The file, open for one writer.

    Args:
        path: an existing file, possibly empty.
        runs: what it holds.
    """

    def __init__(self, path: Path, runs: Mapping[RunKey, FleetRun]) -> None:
        self.path = path
        self._runs = dict(runs)

    def of(self, key: RunKey) -> FleetRun:
        """Returns what became of a run that ended."""
        return self._runs[key]

    def has_record(self, key: RunKey) -> bool:
        """Whether a run was measured."""
        return key in self._runs and self._runs[key].outcome == "measured"

    def add(self, run: FleetRun) -> None:
        """Appends what became of a run, unless the file says just that already."""
        if self._runs.get(run.run) != run:
            append_line(self.path, TypeAdapter(FleetRun).dump_json(run, exclude_none=True).decode())
            self._runs[run.run] = run


@contextmanager
def open_results(path: Path, options: Mapping[str, Option], *, resume: bool) -> Iterator[Results]:
    """Opens the file of a fleet's results for writing; it stays locked until the block is left.

    Args:
        path: the file.
        options: how every run is measured.
        resume: whether to go on with what the file holds; without it there must be nothing.

    Raises:
        ConfigError: the file holds results, those of other options, or damaged ones, or somebody else writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another svitkit writes its results to '{path}' now. Wait for it, or choose another file with -o."
            ) from None
        if not resume and path.stat().st_size:
            raise ConfigError(
                f"'{path}' holds results already. Go on with them (--continue), or choose another file with -o."
            )
        if not read_lines(path):
            _begin(path, options)
        header, runs = read_results(path)
        _check_options(path, header.options, options)
        drop_torn_line(path)
        yield Results(path, runs)


def read_results(path: Path) -> tuple[FleetHeader, dict[RunKey, FleetRun]]:
    """Reads the results of a fleet, finished or not.

    Returns:
        header: what holds for all runs.
        runs: what became of each in the end, in the order in which they were begun.

    Raises:
        ConfigError: there is no such file, or a line is not what it should be.
    """
    try:
        lines = read_lines(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. 'svitkit bench --boards' writes one.") from None
    if not lines:
        raise ConfigError(f"{path} holds no results: it is empty. 'svitkit bench --boards' writes one.")
    header = from_json(lines[0], FleetHeader, source=f"line 1 of '{path}'")
    runs = [from_json(line, FleetRun, source=f"line {i} of '{path}'") for i, line in enumerate(lines[1:], start=2)]
    return header, {run.run: run for run in runs}


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a line."""
    return TypeAdapter(FleetHeader | FleetRun).json_schema() | {"title": "A line of the results of svitkit bench"}


def _begin(path: Path, options: Mapping[str, Option]) -> None:
    """Writes the first line into a file that is empty, or that a kill left with a part of that line."""
    torn = path.read_bytes()
    if torn[: len(BEGINNING)] != BEGINNING[: len(torn)]:
        raise ConfigError(f"'{path}' is no file of results, and is left as it is. Choose another one with -o.")
    drop_torn_line(path)
    append_line(path, to_json(FleetHeader(options=dict(options)), FleetHeader))


def _check_options(path: Path, found: Mapping[str, Option], wanted: Mapping[str, Option]) -> None:
    names = sorted({*found, *wanted})
    other = [
        f"{name} {found.get(name)}, now {wanted.get(name)}" for name in names if found.get(name) != wanted.get(name)
    ]
    if other:
        raise ConfigError(
            f"'{path}' holds runs with other options ({'; '.join(other)}). Repeat the command that it was begun "
            "with, or choose another file with -o."
        )
