from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from svitkit.errors import ConfigError
from svitkit.runtime.bench.baseline import read_baseline
from svitkit.runtime.bench.fleet_results import FleetRun, RunKey, open_results
from svitkit.runtime.bench.record import BenchRecord, write_record
from tests.runtime.bench.test_record import ORIN, record

PLACE = "pi4-left"


def measured(**changes: object) -> BenchRecord:
    return replace(record(), place=PLACE, **changes)


def key(bundle: str = "net", place: str | None = PLACE) -> RunKey:
    return RunKey(bundle=bundle, bundle_sha256="ab" * 32, board="raspberry-pi-4", place=place)


def write_night(path: Path, *runs: FleetRun) -> Path:
    with open_results(path, {}, resume=False) as results:
        for run in runs:
            results.add(run)
    return path


def done(made: BenchRecord, bundle: str = "net") -> FleetRun:
    return FleetRun(run=key(bundle), outcome="measured", record=made)


def test_a_bundle_that_was_built_again_is_compared_with_what_had_its_name(tmp_path: Path) -> None:
    baseline = read_baseline(write_night(tmp_path / "old.jsonl", done(measured())))
    rebuilt = replace(key(), bundle_sha256="cd" * 32)
    assert baseline.find(rebuilt, "spikformer", "sequence") == [measured()]
    assert baseline.find(replace(rebuilt, bundle="other"), "spikformer", "sequence") == []
    assert baseline.find(replace(rebuilt, place="pi4-right"), "spikformer", "sequence") == []


def test_of_a_bundle_that_was_built_again_on_the_way_the_last_one_counts(tmp_path: Path) -> None:
    rebuilt = replace(done(measured(threads=3)), run=replace(key(), bundle_sha256="cd" * 32))
    baseline = read_baseline(write_night(tmp_path / "old.jsonl", done(measured()), rebuilt))
    assert baseline.find(key(), "spikformer", "sequence") == [measured(threads=3)]


def test_a_folder_of_nights_is_read_from_the_oldest_on_without_tonights(tmp_path: Path) -> None:
    nights = [measured(threads=i, started_at=f"2026-01-0{i}T00:00:00+00:00") for i in (2, 1, 3)]
    paths = [write_night(tmp_path / f"{i}.jsonl", done(night)) for i, night in enumerate(nights)]
    found = read_baseline(tmp_path, apart_from=paths[2]).find(key(), "", "")
    assert found == [nights[1], nights[0]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no other results \(\*\.jsonl\) to compare with"):
        read_baseline(tmp_path / "empty")


def test_a_record_alone_stands_for_its_family_and_mode_on_its_place(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", measured())
    baseline = read_baseline(tmp_path / "record.json")
    assert baseline.find(key("any"), "spikformer", "sequence") == [measured()]
    assert baseline.find(key("any"), "spikformer", "step") == []
    here, elsewhere = ((key("any", place), "spikformer", "sequence", "cpu") for place in (PLACE, "elsewhere"))
    baseline.require([here, elsewhere])
    two = [(key(name), "spikformer", "sequence", "cpu") for name in ("one", "two")]
    with pytest.raises(ConfigError, match="is one record, and 2 runs could be compared with it"):
        baseline.require(two)
    with pytest.raises(ConfigError, match=r"has none of the runs.*It holds: spikformer \(sequence\) on pi4-left"):
        baseline.require([(key(), "qkformer", "sequence", "cpu")])


def test_a_baseline_that_has_nothing_to_do_with_the_runs_is_refused(tmp_path: Path) -> None:
    failed = FleetRun(run=key("broken"), outcome="failed", error="no answer")
    baseline = read_baseline(write_night(tmp_path / "old.jsonl", done(measured()), failed))
    for other in (key("broken"), key("net", None)):
        with pytest.raises(
            ConfigError, match=r"has none of the runs that are to be compared.*: net on pi4-left\. Name"
        ):
            baseline.require([(other, "spikformer", "sequence", "cpu")])
    empty = read_baseline(write_night(tmp_path / "empty.jsonl", failed))
    with pytest.raises(ConfigError, match="It holds: no run that was measured"):
        empty.require([(key(), "spikformer", "sequence", "cpu")])


def test_what_was_built_for_the_cpu_is_no_baseline_of_what_was_built_for_the_gpu(tmp_path: Path) -> None:
    on_gpu = measured(ran_on=ORIN)
    baseline = read_baseline(write_night(tmp_path / "old.jsonl", done(measured()), done(on_gpu, "gpu")))
    assert baseline.find(key(), "spikformer", "sequence", "cpu") == [measured()]
    assert baseline.find(key(), "spikformer", "sequence", "gpu") == []
    assert baseline.find(key("gpu"), "spikformer", "sequence", "gpu") == [on_gpu]
    write_record(tmp_path / "record.json", on_gpu)
    alone = read_baseline(tmp_path / "record.json")
    assert alone.find(key(), "spikformer", "sequence", "gpu") == [on_gpu]
    assert alone.find(key(), "spikformer", "sequence", "cpu") == []
