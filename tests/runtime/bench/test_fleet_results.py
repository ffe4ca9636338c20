from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from svitkit.errors import ConfigError
from svitkit.runtime.bench.fleet_results import FleetRun, RunKey, json_schema, open_results, read_results
from tests.runtime.bench.test_record import record

OPTIONS = {"limit": 10, "threads": None, "min_time_s": 1.0, "profile": False}
LEFT = RunKey(bundle="net", bundle_sha256="ab" * 32, board="raspberry-pi-4", place="left")
RIGHT = replace(LEFT, place=None)
MEASURED = FleetRun(run=LEFT, outcome="measured", record=record())
FAILED = FleetRun(run=RIGHT, outcome="failed", error="no answer")
AGAIN = FleetRun(run=RIGHT, outcome="measured", record=replace(record(), threads=1))


def write(path: Path, *runs: FleetRun, resume: bool = False) -> Path:
    with open_results(path, OPTIONS, resume=resume) as results:
        for run in runs:
            results.add(run)
    return path


def test_the_file_has_one_line_for_the_options_and_one_a_run(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "r.jsonl", MEASURED, FAILED)
    lines = path.read_text().splitlines()
    assert lines[0] == (
        '{"format_version":1,"kind":"svitkit-fleet","options":'
        '{"limit":10,"threads":null,"min_time_s":1.0,"profile":false}}'
    )
    assert lines[2] == (
        f'{{"format_version":1,"run":{{"bundle":"net","bundle_sha256":"{"ab" * 32}","board":"raspberry-pi-4"}},'
        '"outcome":"failed","error":"no answer"}'
    )
    header, runs = read_results(path)
    assert header.options == OPTIONS
    assert runs == {LEFT: MEASURED, RIGHT: FAILED}


def test_every_line_is_as_the_schema_says_and_others_are_not(tmp_path: Path) -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    reader = Draft202012Validator(schema)
    lines = [json.loads(line) for line in write(tmp_path / "r", MEASURED, FAILED).read_text().splitlines()]
    assert all(reader.is_valid(line) for line in lines)
    for wrong in ({}, lines[1] | {"outcome": "lost"}, lines[1] | {"more": 1}, lines[1] | {"record": {}}):
        assert not reader.is_valid(wrong)


def test_the_last_line_of_a_run_counts_and_a_known_one_is_not_repeated(tmp_path: Path) -> None:
    path = write(tmp_path / "r", FAILED, MEASURED)
    write(path, MEASURED, AGAIN, resume=True)
    assert read_results(path)[1] == {LEFT: MEASURED, RIGHT: AGAIN}
    assert path.read_text().count("\n") == 4
    with open_results(path, OPTIONS, resume=True) as results:
        assert results.has_record(LEFT)
        assert not results.has_record(replace(LEFT, bundle_sha256="cd" * 32))
        assert results.of(RIGHT) == AGAIN


@pytest.mark.parametrize("kept", [0, 5, 60, -9])
def test_a_line_torn_by_a_kill_is_as_if_it_had_not_been_begun(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "r", MEASURED)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    if kept < 0:
        assert read_results(path)[1] == {}
    write(path, MEASURED, resume=True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"weights\n and more without an end", b"no line at all", b'{"a":1}\n{"b"'])
def test_a_file_that_holds_something_else_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"is no file of results|is not a valid FleetHeader"):
        write(path, MEASURED, resume=True)
    assert path.read_bytes() == content


def test_results_are_not_overwritten_and_not_mixed_with_those_of_other_options(tmp_path: Path) -> None:
    path = write(tmp_path / "r", MEASURED)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"holds results already\. Go on with them \(--continue\)"):
        write(path)
    with (
        pytest.raises(ConfigError, match=r"other options \(limit 10, now 20; profile False, now None\)"),
        open_results(path, {"limit": 20, "threads": None, "min_time_s": 1.0}, resume=True),
    ):
        pass
    assert path.read_bytes() == before


def test_two_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with open_results(path, OPTIONS, resume=False), pytest.raises(ConfigError, match="another svitkit writes its"):
        write(path, resume=True)
    write(path, MEASURED, resume=True)


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (('"net"', "net"), "line 2 of .* is not a valid FleetRun"),
        (('"outcome":"measured"', '"outcome":"failed"'), "line 2 of .*a failed run has an error, and not the other"),
        (('"svitkit-fleet"', '"other"'), "line 1 of .* is not a valid FleetHeader"),
        (('"format_version":1,"run"', '"format_version":2,"run"'), r"line 2 of .* format_version: Input should be 1"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(tmp_path: Path, mend: tuple[str, str], message: str) -> None:
    path = write(tmp_path / "r", MEASURED)
    path.write_text(path.read_text().replace(*mend, 1))
    with pytest.raises(ConfigError, match=message):
        read_results(path)
    with pytest.raises(ConfigError, match=message):
        write(path, resume=True)


def test_a_file_that_is_missing_or_empty_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_results(tmp_path / "r")
    (tmp_path / "r").touch()
    with pytest.raises(ConfigError, match="holds no results: it is empty"):
        read_results(tmp_path / "r")
