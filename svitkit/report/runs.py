"""The runs that a report is about: records, and what lies beside them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from svitkit.errors import ConfigError
from svitkit.manifest import from_json
from svitkit.report.artefacts import Artefacts, find_artefacts
from svitkit.runtime.record import BenchRecord, read_record

RECORD = "record.json"  # as ``svitkit deploy`` names it
SHORT_HASH = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement of a report.

    Attributes:
        method: what made the network smaller, or the user's name for the run.
        name: the method, and what else tells the run from the others of its board.
        source: where the record was read.
        record: the measurement.
        artefacts: of its bundle; None if they were not found.
    """

    method: str
    name: str
    source: str
    record: BenchRecord
    artefacts: Artefacts | None = None

    @property
    def label(self) -> str:
        """Name and board: no other run of a report has the same."""
        return f"{self.name} on {self.record.board}"


@dataclass(frozen=True, kw_only=True)
class Runs:
    """All runs of a report.

    Attributes:
        runs: in the order in which they were named.
        remarks: sentences about what was named and could not be used.
    """

    runs: tuple[Run, ...]
    remarks: tuple[str, ...] = ()


@dataclass
class _Found:
    """What the arguments hold, before the runs have their names."""

    records: list[tuple[str | None, str, BenchRecord]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read_runs(arguments: Sequence[str], *, artefacts: Sequence[Path] = ()) -> Runs:
    """Reads the runs that a user names.

    A run has the name that the user gives it, else that of the method in the checkpoint its bundle was built from, else
    the first digits of its bundle's hash. Bundles and checkpoints are looked for beside every record and in
    ``artefacts``; a bundle belongs to a record that has the hash of its manifest.

    Args:
        arguments: each a record, a JSON-lines file of records, or a folder of ``svitkit deploy``; or ``NAME=`` and one
            of these.
        artefacts: bundles, folders of ``svitkit deploy``, or folders of such.

    Raises:
        ConfigError: there is no such file, it holds no record, or two runs cannot be told apart.
    """
    found = _Found()
    for argument in arguments:
        name, path = _split(argument)
        _read_argument(name, path, found)
    for folder in artefacts:
        if not folder.is_dir():
            raise ConfigError(f"'{folder}' is no folder. Name one that 'svitkit deploy' made, or a folder of such.")
        found.folders += [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    for _, source, record in found.records:
        _check_figures(source, record)
    known = find_artefacts(found.folders, {record.bundle_sha256 for _, _, record in found.records})
    runs = [_name_run(name, source, record, known) for name, source, record in found.records]
    if not runs:
        raise ConfigError(f"{', '.join(arguments)}: no record in it. Make one with 'svitkit bench -o FILE'.")
    return Runs(runs=tuple(_tell_apart(runs)), remarks=tuple(found.remarks))


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


def _read_argument(name: str | None, path: Path, found: _Found) -> None:
    if path.is_dir():
        if not (path / RECORD).is_file():
            raise ConfigError(f"'{path}' holds no {RECORD}. Name a folder of 'svitkit deploy', or the record itself.")
        path = path / RECORD
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'. Make a record with 'svitkit bench -o FILE'.")
    found.folders.append(path.parent)
    if path.suffix == ".jsonl":
        found.records += [(name, source, record) for source, record in _read_lines(path, found.remarks)]
    else:
        found.records.append((name, str(path), read_record(path)))


def _read_lines(path: Path, remarks: list[str]) -> Iterator[tuple[str, BenchRecord]]:
    """Yields the records of a JSON-lines file with their places.

    A line is a record, or an object with the key ``record``. One whose record is null says that there is none; a last
    line without an end is what a killed writer left.
    """
    content = path.read_bytes()
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        source = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            if line.endswith(b"\n"):
                raise ConfigError(f"{source} is no JSON: {error}. Remove the line, or measure again.") from None
            remarks.append(f"{source} breaks off, and was left out.")
            continue
        wrapped = isinstance(value, dict) and "record" in value
        if wrapped and value["record"] is None:
            remarks.append(f"{source} holds no measurement.")
            continue
        yield source, from_json(json.dumps(value["record"] if wrapped else value), BenchRecord, source=source)


def _check_figures(source: str, record: BenchRecord) -> None:
    """Refuses a record that no board can have given, and that nothing could be drawn of.

    Raises:
        ConfigError: a figure is impossible.
    """
    latency, memory, accuracy = record.latency_ms, record.memory, record.accuracy
    durations = [getattr(latency, name) for name in ("min", "mean", "max", "p50", "p90", "p95", "p99")]
    sizes = [memory.weights_bytes, memory.state_bytes, memory.workspace_bytes, memory.vm_hwm_bytes]
    wrong = {
        "samples_ns": not record.samples_ns or min(record.samples_ns) <= 0,
        "latency_ms": not all(0 < value < math.inf for value in durations if value is not None),
        "memory": not all(value >= 0 for value in sizes if value is not None),
        "accuracy": accuracy is not None and not (0 <= accuracy.percent <= 100 and accuracy.count > 0),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(f"{source} is no measurement: its {name} cannot be. Measure again with 'svitkit bench'.")


def _name_run(name: str | None, source: str, record: BenchRecord, known: Mapping[str, Artefacts]) -> Run:
    artefacts = known.get(record.bundle_sha256)
    method = name or (artefacts.method if artefacts else None) or f"bundle {record.bundle_sha256[:SHORT_HASH]}"
    return Run(method=method, name=method, source=source, record=record, artefacts=artefacts)


def _tell_apart(runs: Sequence[Run]) -> Iterator[Run]:
    """Adds the number of threads to names that would be the same without it.

    Raises:
        ConfigError: that is the same, too.
    """
    several = Counter(run.label for run in runs)
    seen: dict[str, Run] = {}
    for run in runs:
        if several[run.label] > 1:
            run = replace(run, name=f"{run.name}, {run.record.threads} thread{'s' * (run.record.threads != 1)}")
        if run.label in seen:
            raise ConfigError(
                f"two runs are called '{run.label}': {seen[run.label].source} and {run.source}. Leave one of them out, "
                "or name them apart with NAME=PATH."
            )
        seen[run.label] = run
        yield run


def place(run: Run) -> tuple[bool, str, str]:
    """Returns what runs must share to be compared: whether they are emulated, their board, and the test images."""
    record = run.record
    return record.emulated, record.board, record.accuracy.dataset if record.accuracy else ""


def by_place(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns the runs that can be compared under a title, those of boards before those of emulators."""
    several = len({run.record.accuracy.dataset for run in runs if run.record.accuracy}) > 1
    places: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.record.emulated):
        dataset = place(run)[-1] or "no test images"
        places.setdefault(board_title(run) + (f", {dataset}" if several else ""), []).append(run)
    return places


def board_title(run: Run) -> str:
    """Returns the name of a run's board, and whether it is an emulated one."""
    return f"{run.record.board} (emulated)" if run.record.emulated else run.record.board


def styles(runs: Sequence[Run]) -> dict[str, int]:
    """Returns for every name which shape and colour its runs have in all charts, whatever the board."""
    return {name: number for number, name in enumerate(dict.fromkeys(run.name for run in runs))}
