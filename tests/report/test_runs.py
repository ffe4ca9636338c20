from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from svitkit.errors import ConfigError
from svitkit.report.runs import by_place, read_runs, styles
from svitkit.runtime.bench.record import Accuracy, record_json
from svitkit.runtime.bench.runner_report import RunnerDevice
from tests.report.records import ORIN, deploy, record, run


def write(path: Path, **changes: object) -> Path:
    path.write_text(record_json(record(**changes)))
    return path


def line(**changes: object) -> str:
    return json.dumps(json.loads(record_json(record(**changes))))


def test_a_deployment_is_called_by_the_method_of_its_checkpoint_and_brings_its_artefacts(tmp_path):
    deploy(tmp_path / "out", record(), method="svitkit,int8")
    (found,) = read_runs([str(tmp_path / "out")]).runs
    assert (found.method, found.label) == ("svitkit,int8", "svitkit,int8 on raspberry-pi-4")
    assert found.artefacts is not None
    assert found.artefacts.spec is not None
    assert found.artefacts.decisions is not None


def test_the_record_of_a_deployment_finds_what_lies_beside_it(tmp_path):
    deploy(tmp_path / "out", record(), method="svitkit")
    assert read_runs([str(tmp_path / "out" / "record.json")]).runs[0].method == "svitkit"


def test_a_checkpoint_that_was_never_compressed_is_the_original(tmp_path):
    deploy(tmp_path / "out", record(), method=None)
    assert read_runs([str(tmp_path / "out")]).runs[0].method == "original"


def test_a_bundle_with_another_hash_than_the_records_is_none_of_its_artefacts(tmp_path):
    deploy(tmp_path / "out", record())
    write(tmp_path / "out" / "record.json", bundle_sha256="cd" * 32)
    (found,) = read_runs([str(tmp_path / "out")]).runs
    assert (found.method, found.artefacts) == ("bundle cdcdcdcd", None)


def test_a_name_of_the_user_stands_before_every_other(tmp_path):
    deploy(tmp_path / "out", record(), method="svitkit")
    assert read_runs([f"mine={tmp_path / 'out'}"]).runs[0].method == "mine"


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path):
    path = write(tmp_path / "lr=0.1.json")
    assert read_runs([str(path)]).runs[0].source == str(path)


def test_lines_may_be_records_or_hold_one_beside_other_keys(tmp_path):
    path = tmp_path / "fleet.jsonl"
    wrapped = json.dumps({"record": json.loads(line(board="b")), "seconds": 3, "schema": "x"})
    path.write_text(f"{line(board='a')}\n\n{wrapped}\n")
    found = read_runs([f"int8={path}"])
    assert [each.label for each in found.runs] == ["int8 on a", "int8 on b"]
    assert [each.source for each in found.runs] == [f"{path}:1", f"{path}:3"]
    assert found.remarks == ()


def test_a_line_without_a_measurement_and_one_that_breaks_off_are_told(tmp_path):
    path = tmp_path / "fleet.jsonl"
    failed = json.dumps({"record": None, "error": "no route to host"})
    path.write_text(f"{line()}\n{failed}\n{line(board='b')[:80]}")
    found = read_runs([str(path)])
    assert len(found.runs) == 1
    assert found.remarks == (
        f"{path}:2 holds no measurement: no route to host",
        f"{path}:3 breaks off, and was left out.",
    )


def fleet_line(bundle: str, place: str | None = None, **outcome: object) -> str:
    """A line as ``svitkit bench --boards`` writes it."""
    run = {"bundle": bundle, "bundle_sha256": "ab" * 32, "board": "raspberry-pi-4"}
    return json.dumps({"format_version": 1, "run": run | ({"place": place} if place else {}), **outcome})


def measured(**changes: object) -> dict[str, object]:
    return {"outcome": "measured", "record": json.loads(line(**changes))}


def test_the_file_of_a_fleet_names_bundles_and_places_and_its_last_line_of_a_run_counts(tmp_path):
    path = tmp_path / "monday.jsonl"
    lines = [
        json.dumps({"format_version": 1, "kind": "svitkit-fleet", "options": {"repeat": 50}}),
        fleet_line("int8", "pi4-left", outcome="failed", error="the board did not answer"),
        fleet_line("int8", "pi4-right", **measured()),
        fleet_line("fp32", "pi4-left", outcome="skipped", error="built for another CPU"),
        fleet_line("int8", "pi4-left", **measured()),
    ]
    path.write_text("\n".join(lines) + "\n")
    found = read_runs([str(path)])
    assert [each.label for each in found.runs] == ["int8 on pi4-left", "int8 on pi4-right"]
    assert list(by_place(found.runs)) == ["pi4-left, raspberry-pi-4", "pi4-right, raspberry-pi-4"]
    assert found.remarks == (f"{path}:4 holds no measurement: built for another CPU",)


def test_bundles_of_one_method_in_a_fleet_are_told_apart_by_their_names(tmp_path):
    belongs = deploy(tmp_path / "out", record(), method="svitkit")
    path = tmp_path / "monday.jsonl"
    lines = [fleet_line(bundle, **measured(bundle_sha256=belongs.bundle_sha256)) for bundle in ("mild", "hard")]
    path.write_text("\n".join(lines) + "\n")
    found = read_runs([str(path)], artefacts=[tmp_path / "out"]).runs
    assert [each.name for each in found] == ["svitkit, mild", "svitkit, hard"]


def test_records_from_elsewhere_find_their_bundles_by_hash(tmp_path):
    belongs = deploy(tmp_path / "deployments" / "one", record(), method="svitkit")
    deploy(tmp_path / "deployments" / "other", record(board="host"), method="int8")
    path = write(tmp_path / "alone.json", bundle_sha256=belongs.bundle_sha256)
    assert read_runs([str(path)]).runs[0].method.startswith("bundle ")
    assert read_runs([str(path)], artefacts=[tmp_path / "deployments"]).runs[0].method == "svitkit"


def test_a_bundle_alone_tells_its_kernels_but_no_method(tmp_path):
    belongs = deploy(tmp_path / "out", record())
    path = write(tmp_path / "alone.json", bundle_sha256=belongs.bundle_sha256)
    (found,) = read_runs([str(path)], artefacts=[tmp_path / "out" / "bundle"]).runs
    assert found.artefacts is not None
    assert found.artefacts.spec is None
    assert found.method.startswith("bundle ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples_ns", []),
        ("samples_ns", [0, 1]),
        ("latency_ms", {"emulated": False, "count": 1, "min": -1.0, "mean": 1.0, "max": 1.0}),
        ("memory", {"emulated": False, "weights_bytes": -1, "state_bytes": 0, "workspace_bytes": 0}),
        ("samples_ns", [10**30]),
        ("latency_ms", {"emulated": False, "count": 1, "min": 1e-300, "mean": 1.0, "max": 1e300}),
        ("accuracy", {"percent": 101.0, "count": 1, "dataset": "digits"}),
        ("accuracy", {"percent": 50.0, "count": 0, "dataset": "digits"}),
    ],
)
def test_a_record_that_no_board_can_have_given_is_refused(name, value, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(json.loads(line()) | {name: value}))
    with pytest.raises(ConfigError, match=f"its {name} cannot be"):
        read_runs([str(path)])


def test_runs_that_differ_in_their_threads_are_told_apart_by_them(tmp_path):
    paths = [write(tmp_path / f"{threads}.json", threads=threads) for threads in (1, 2)]
    found = read_runs([f"int8={path}" for path in paths]).runs
    assert [each.label for each in found] == ["int8, 1 thread on raspberry-pi-4", "int8, 2 threads on raspberry-pi-4"]


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("missing.json", "there is no file 'missing.json'. Make a record with 'svitkit bench"),
        ("=missing.json", "is no NAME=PATH"),
        ("name=", "is no NAME=PATH"),
        ("empty", "'empty' holds no record.json"),
        ("text.json", "text.json is not a valid BenchRecord"),
        ("other.jsonl", "other.jsonl:1 is not a valid BenchRecord"),
        ("broken.jsonl", "broken.jsonl:1 is no JSON"),
        ("none.jsonl", "none.jsonl: no record in it"),
    ],
)
def test_what_is_no_record_is_said_with_what_to_do(argument, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.json").write_text("[]")
    Path("other.jsonl").write_text('{"a": 1}\n')
    Path("broken.jsonl").write_text(f"{{\n{line()}\n")
    Path("none.jsonl").write_text("\n")
    with pytest.raises(ConfigError) as error:
        read_runs([argument])
    assert says in str(error.value)


def test_two_runs_of_one_name_are_refused_with_their_places(tmp_path):
    first, second = write(tmp_path / "first.json"), write(tmp_path / "second.json")
    with pytest.raises(ConfigError) as error:
        read_runs([f"int8={first}", f"int8={second}"])
    assert "2 runs are called 'int8 on raspberry-pi-4'" in str(error.value)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)


def test_runs_on_other_images_are_not_compared():
    other = replace(record(), accuracy=Accuracy(percent=50.0, count=10, dataset="nmnist"))
    found = by_place([run("a"), run("b", other), run("c")])
    assert {title: [each.name for each in own] for title, own in found.items()} == {
        "raspberry-pi-4, digits": ["a", "c"],
        "raspberry-pi-4, nmnist": ["b"],
    }


def test_boards_come_before_emulators_and_methods_keep_their_style():
    runs = [run("a", record(board="q", emulated=True)), run("b", record(board="pi")), run("a", record(board="pi"))]
    assert [(title, len(own)) for title, own in by_place(runs).items()] == [("pi", 2), ("q (emulated)", 1)]
    assert styles(runs) == {"a": 0, "b": 1}  # the same on every board


def test_cpu_and_gpu_of_a_board_are_two_places_and_no_run_passes_for_the_other(tmp_path):
    paths = [write(tmp_path / f"{name}.json", ran_on=device) for name, device in (("cpu", None), ("gpu", ORIN))]
    found = read_runs([f"int8={path}" for path in paths]).runs
    assert [each.label for each in found] == ["int8 on raspberry-pi-4", "int8 on raspberry-pi-4, GPU"]
    assert {title: len(own) for title, own in by_place(found).items()} == {
        "raspberry-pi-4": 1,
        "raspberry-pi-4, GPU": 1,
    }


def test_what_ran_in_place_of_a_gpu_is_an_emulated_one():
    pocl = RunnerDevice(api="opencl", type="cpu", name="pthread-EPYC", driver="OpenCL 3.1")
    (title,) = by_place([run("a", record(board="pocl", emulated=True, ran_on=pocl))])
    assert title == "pocl (emulated)"
