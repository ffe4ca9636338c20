"""Reads the records of a file and where they are from: one record, or JSON lines with a record each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svitkit.errors import ConfigError
from svitkit.manifest import from_json
from svitkit.runtime.bench.record import BenchRecord, read_record


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A record as it was found.

    Attributes:
        source: its file, and the line in it.
        record: the measurement.
        bundle: how its line calls the bundle; None if it does not.
        place: which of several boards its line names; None if it does not.
    """

    source: str
    record: BenchRecord
    bundle: str | None = None
    place: str | None = None


def read_file(path: Path) -> tuple[list[Reading], list[str]]:
    """Reads the records of a file.

    A line of a ``.jsonl`` file is a record, or an object with the key ``record`` or ``error``, as the file of a fleet
    has them; of those with the same ``run`` the last one counts. An object with ``kind`` is the heading of the file. A
    last line without an end is what a killed writer left.

    Returns:
        readings: in the order in which the runs were begun.
        remarks: sentences about lines without a measurement.

    Raises:
        ConfigError: the file holds something else.
    """
    if path.suffix != ".jsonl":
        return [Reading(source=str(path), record=read_record(path))], []
    found: dict[str, Reading | str] = {}
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        source = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if line.endswith(b"\n"):
                raise ConfigError(f"{source} is no JSON: {error}. Remove the line, or measure again.") from None
            found[source] = f"{source} breaks off, and was left out."
            continue
        if not (isinstance(value, dict) and "kind" in value):
            run = value.get("run") if isinstance(value, dict) else None
            found[source if run is None else json.dumps(run, sort_keys=True)] = _read_value(source, value)
    readings = [each for each in found.values() if isinstance(each, Reading)]
    return readings, [each for each in found.values() if isinstance(each, str)]


def _read_value(source: str, value: Any) -> Reading | str:
    """Returns the record of a line, or a sentence about why there is none."""
    if not isinstance(value, dict) or not {"record", "error"} & set(value):
        return Reading(source=source, record=_record(source, value))
    if value.get("record") is None:
        return f"{source} holds no measurement: {value.get('error') or 'it does not say why'}"
    return Reading(
        source=source,
        record=_record(source, value["record"]),
        bundle=_text(value.get("run"), "bundle"),
        place=_text(value.get("run"), "place"),
    )


def _record(source: str, value: Any) -> BenchRecord:
    return from_json(json.dumps(value), BenchRecord, source=source)


def _text(run: Any, key: str) -> str | None:
    """Returns a text of an object; None where there is none, or something else."""
    found = run.get(key) if isinstance(run, dict) else None
    return found if isinstance(found, str) else None
