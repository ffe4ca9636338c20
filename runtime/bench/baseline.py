"""A baseline: measurements of other days, and which of them stands beside a run of today."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from svitkit.boards.gpu import Device
from svitkit.errors import ConfigError
from svitkit.runtime.bench.fleet_results import RunKey, read_results
from svitkit.runtime.bench.record import BenchRecord, read_record


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Measurements of other days.

    Attributes:
        path: where they are from.
        runs: by bundle and place, where a fleet's results say the bundles' names; the oldest first.
        record: the one that there is, where there is one.
    """

    path: Path
    runs: dict[tuple[str, str], list[BenchRecord]]
    record: BenchRecord | None = None

    def find(self, run: RunKey, family: str, mode: str, device: Device = "cpu") -> list[BenchRecord]:
        """Returns what a run is compared with: the same bundle's records from the same place, the oldest first.

        What was built for the CPU is not compared with what was built for a GPU. A record alone does not know its
        bundle's name, so it counts for any bundle of its family and mode there.
        """
        alone = self.record
        if alone is None:
            return [old for old in self.runs.get((run.bundle, run.where), []) if old.built_as == device]
        same = (alone.family, alone.mode, place_of(alone), alone.built_as) == (family, mode, run.where, device)
        return [alone] if same else []

    def require(self, runs: Iterable[tuple[RunKey, str, str, Device]]) -> None:
        """Checks, before anything runs, that the baseline has to do with it.

        Args:
            runs: key, family, mode and device of the runs that are planned.

        Raises:
            ConfigError: it holds none of the runs, or its one record stands beside several.
        """
        found = [run for run in runs if self.find(*run)]
        if not found:
            known = ", ".join(sorted(f"{bundle} on {where}" for bundle, where in self.runs)) or (
                f"{self.record.family} ({self.record.mode}) on {place_of(self.record)}"
                if self.record is not None
                else "no run that was measured"
            )
            raise ConfigError(
                f"{self.path} has none of the runs that are to be compared. It holds: {known}. Name the "
                "baseline of these bundles and boards."
            )
        if self.record is not None and len(found) > 1:
            raise ConfigError(
                f"{self.path} is one record, and {len(found)} runs could be compared with it. Compare with the results "
                "of 'svitkit bench --boards', which know bundles by their names."
            )


def read_baseline(path: Path, *, apart_from: Path | None = None) -> Baseline:
    """Reads a record (``*.json``), the results of a fleet, or all results (``*.jsonl``) in a folder.

    Args:
        path: the file or folder.
        apart_from: a file in the folder that is not read.

    Raises:
        ConfigError: it is none of these.
    """
    if path.suffix == ".json":
        return Baseline(path=path, runs={}, record=read_record(path))
    own = None if apart_from is None else apart_from.resolve()
    files = sorted(file for file in path.glob("*.jsonl") if file.resolve() != own) if path.is_dir() else [path]
    if not files:
        raise ConfigError(
            f"{path} holds no other results (*.jsonl) to compare with. 'svitkit bench --boards' writes them."
        )
    runs: dict[tuple[str, str], list[BenchRecord]] = defaultdict(list)
    for file in files:
        found = {(key.bundle, key.where): run.record for key, run in read_results(file)[1].items()}
        for name, record in found.items():
            if record is not None:
                runs[name].append(record)
    for records in runs.values():
        records.sort(key=lambda record: record.started_at)
    return Baseline(path=path, runs=dict(runs))


def place_of(record: BenchRecord) -> str:
    """Returns where a record was measured, as ``RunKey.where`` says it."""
    return record.place or record.board
