"""The runs that a report is about: records, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from svitkit.errors import ConfigError
from svitkit.report.artefacts import Artefacts, find_artefacts
from svitkit.report.lines import Reading, read_file
from svitkit.runtime.bench.record import BenchRecord

RECORD = "record.json"  # as ``svitkit deploy`` names it
SHORT_HASH = 8
MOST, SHORTEST_MS = 2**53, 1e-6
"""Figures beyond these are none: what a float still counts exactly, and a nanosecond."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement of a report.

    Attributes:
        method: what made the network smaller, or the user's name for the run.
        name: the method, and what else tells the run from the others of its board.
        source: where the record was read.
        record: the measurement.
        where: the board, or which one of several.
        bundle: how the file of a fleet calls its bundle; None if the record is from elsewhere.
        artefacts: of its bundle; None if they were not found.
    """

    method: str
    name: str
    source: str
    record: BenchRecord
    where: str
    bundle: str | None = None
    artefacts: Artefacts | None = None

    @property
    def on(self) -> str:
        """The place, and whether its GPU ran the network."""
        return self.where + ", GPU" * self.record.on_gpu

    @property
    def label(self) -> str:
        """Name and place: no other run of a report has the same."""
        return f"{self.name} on {self.on}"


@dataclass(frozen=True, kw_only=True)
class Runs:
    """All runs of a report.

    Attributes:
        runs: in the order in which they were named.
        remarks: sentences about what was named and could not be used.
    """

    runs: tuple[Run, ...]
    remarks: tuple[str, ...] = ()


def read_runs(arguments: Sequence[str], *, artefacts: Sequence[Path] = ()) -> Runs:
    """Reads the runs that a user names.

    A run has the name that the user gives it, else that of the method in the checkpoint its bundle was built from, else
    that of its bundle in the file of a fleet, else the first digits of its bundle's hash. Bundles and checkpoints are
    looked for beside every record and in ``artefacts``; a bundle belongs to a record that has the hash of its manifest.

    Args:
        arguments: each a record, a JSON-lines file of records, or a folder of ``svitkit deploy``; or ``NAME=`` and one
            of these.
        artefacts: bundles, folders of ``svitkit deploy``, or folders of such.

    Raises:
        ConfigError: there is no such file, it holds no record, or two runs cannot be told apart.
    """
    readings: list[tuple[str | None, Reading]] = []
    remarks: list[str] = []
    folders: list[Path] = []
    for argument in arguments:
        name, path = _split(argument)
        file = _find_file(path)
        found, left_out = read_file(file)
        readings += [(name, reading) for reading in found]
        remarks += left_out
        folders.append(file.parent)
    if not readings:
        raise ConfigError(f"{', '.join(arguments)}: no record in it. Make one with 'svitkit bench -o FILE'.")
    for folder in artefacts:
        if not folder.is_dir():
            raise ConfigError(f"'{folder}' is no folder. Name one that 'svitkit deploy' made, or a folder of such.")
        folders += [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    for _, reading in readings:
        _check_figures(reading.source, reading.record)
    known = find_artefacts(folders, {reading.record.bundle_sha256 for _, reading in readings})
    runs = [_name_run(name, reading, known.get(reading.record.bundle_sha256)) for name, reading in readings]
    return Runs(runs=tuple(_tell_apart(runs)), remarks=tuple(remarks))


def _split(argument: str) -> tuple[str | None, Path]:
    """Divides ``NAME=PATH``; a path that exists may have the character itself."""
    name, sign, path = argument.partition("=")
    if not sign or Path(argument).exists():
        return None, Path(argument)
    if not name.strip() or not path:
        raise ConfigError(
            f"'{argument}' is no NAME=PATH: both sides of the = are wanted, such as int8=out/record.json."
        )
    return name.strip(), Path(path)


def _find_file(path: Path) -> Path:
    if path.is_dir():
        if not (path / RECORD).is_file():
            raise ConfigError(f"'{path}' holds no {RECORD}. Name a folder of 'svitkit deploy', or the record itself.")
        return path / RECORD
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'. Make a record with 'svitkit bench -o FILE'.")
    return path


def _check_figures(source: str, record: BenchRecord) -> None:
    """Refuses a record that no board can have given, and that nothing could be drawn of.

    Raises:
        ConfigError: a figure is impossible.
    """
    latency, memory, accuracy = record.latency_ms, record.memory, record.accuracy
    durations = [getattr(latency, name) for name in ("min", "mean", "max", "p50", "p90", "p95", "p99")]
    sizes = [memory.weights_bytes, memory.state_bytes, memory.workspace_bytes, memory.vm_hwm_bytes]
    wrong = {
        "samples_ns": not record.samples_ns or not all(0 < sample <= MOST for sample in record.samples_ns),
        "latency_ms": not all(SHORTEST_MS <= value <= MOST for value in durations if value is not None),
        "memory": not all(0 <= value <= MOST for value in sizes if value is not None),
        "accuracy": accuracy is not None and not (0 <= accuracy.percent <= 100 and 0 < accuracy.count <= MOST),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(f"{source} is no measurement: its {name} cannot be. Measure again with 'svitkit bench'.")


def _name_run(name: str | None, reading: Reading, artefacts: Artefacts | None) -> Run:
    record = reading.record
    method = artefacts.method if artefacts else None
    called = name or method or reading.bundle or f"bundle {record.bundle_sha256[:SHORT_HASH]}"
    return Run(
        method=called,
        name=called,
        source=reading.source,
        record=record,
        artefacts=artefacts,
        bundle=reading.bundle,
        where=reading.place or record.board,
    )


def _tell_apart(runs: Sequence[Run]) -> Iterator[Run]:
    """Adds threads or bundles to names that would be the same without.

    Raises:
        ConfigError: they are the same with both.
    """
    for run in runs:
        same = [other for other in runs if other.label == run.label]
        yield run if len(same) == 1 else replace(run, name=run.name + _difference(run, same))


def _difference(run: Run, same: Sequence[Run]) -> str:
    """Returns what tells a run from others of its name."""
    for describe in (_threads, _bundle, lambda run: _threads(run) + _bundle(run)):
        if len({describe(other) for other in same}) == len(same):
            return describe(run)
    sources = " and ".join(other.source for other in same)
    raise ConfigError(
        f"{len(same)} runs are called '{run.label}': {sources}. Leave all but one out, or name them "
        "apart with NAME=PATH."
    )


def _threads(run: Run) -> str:
    return f", {run.record.threads} thread{'s' * (run.record.threads != 1)}"


def _bundle(run: Run) -> str:
    return f", {run.bundle}" if run.bundle else ""


def place(run: Run) -> tuple[bool, str, str]:
    """Returns what runs must share to be compared: whether it is an emulator, where, and on which images.

    CPU and GPU of a board are two places: what the driver of a GPU takes is no memory of the process.
    """
    record = run.record
    return record.emulated, run.on, record.accuracy.dataset if record.accuracy else ""


def by_place(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns the runs that can be compared under a title, those of boards before those of emulators."""
    several = len({run.record.accuracy.dataset for run in runs if run.record.accuracy}) > 1
    places: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.record.emulated):
        dataset = place(run)[-1] or "no test images"
        places.setdefault(board_title(run) + (f", {dataset}" if several else ""), []).append(run)
    return places


def board_title(run: Run) -> str:
    """Returns the name of a run's board, which one of several, whether its GPU ran, and whether it is emulated."""
    board = run.on if run.where == run.record.board else f"{run.on}, {run.record.board}"
    return f"{board} (emulated)" if run.record.emulated else board


def styles(runs: Sequence[Run]) -> dict[str, int]:
    """Returns for every name which shape and colour its runs have in all charts, whatever the board."""
    return {name: number for number, name in enumerate(dict.fromkeys(run.name for run in runs))}
