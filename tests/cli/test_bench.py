"""``svitkit bench`` of several bundles on several boards; stand-ins for svit-run have the faults of the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from svitkit.boards.board import load_board
from svitkit.cli.app import Session, app
from svitkit.errors import ConfigError
from tests.boards.ssh_server import wait_until
from tests.runtime.bench import test_measure
from tests.runtime.bench.test_measure import images, write_bundle

NAMES = ("a", "b", "c")
Bench = Callable[..., Result]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three bundles for this machine and data for them; FAULT_b=hang makes b hang."""
    own = test_measure.RUNNER.replace('get("FAULT"', 'get("FAULT_" + os.path.basename(sys.argv[1])')
    monkeypatch.setattr(test_measure, "RUNNER", own)
    for name in NAMES:
        write_bundle(tmp_path / name, load_board("host"))
    split = images(30, wrong=3).test
    np.savez(tmp_path / "dots.npz", train_x=split.x, train_y=split.y, test_x=split.x, test_y=split.y)
    (tmp_path / "tmp").mkdir()
    for name, value in {"LOG": "log", "TMPDIR": "tmp", "XDG_CONFIG_HOME": "config"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*arguments: str, boards: str | None = "host", out: str = "r.jsonl") -> list[str]:
    rack = [] if boards is None else ["--boards", boards, "-o", out]
    return ["bench", "--data", "npz:dots.npz", "--repeat", "70", "--min-time", "0", *rack, *arguments]


@pytest.fixture
def bench(work: Path) -> Bench:
    def run(*arguments: str, **options: str | None) -> Result:
        return CliRunner().invoke(app, words(*arguments, **options), obj=Session())

    return run


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcomes(path: Path) -> list[tuple[str, str]]:
    return [(line["run"]["bundle"], line["outcome"]) for line in lines(path)[1:]]


def slowed(path: Path, out: Path, factor: float) -> str:
    """Writes results whose samples are those of ``path`` times a factor, with a little noise."""
    noise = np.random.default_rng(0)
    header, *runs = lines(path)
    for run in runs:
        samples = np.array(run["record"]["samples_ns"]) * factor * (1 + 0.001 * noise.random(70))
        run["record"]["samples_ns"] = samples.astype(int).tolist()
    out.write_text("".join(json.dumps(line) + "\n" for line in (header, *runs)))
    return str(out)


def test_several_bundles_are_measured_into_one_file(bench: Bench, work: Path) -> None:
    done = bench("a", "b", "c")
    assert done.exit_code == 0, done.output
    assert sorted(outcomes(work / "r.jsonl")) == [(name, "measured") for name in NAMES]
    assert lines(work / "r.jsonl")[0]["options"]["data"] == "npz:dots.npz"
    rows = [line.split()[:7] for line in done.stdout.splitlines()[2:5]]
    assert rows == [[name, "host", "1.000", "90.00", "%", "0.0", "KiB"] for name in NAMES]
    assert "host: b: measured" in done.stderr


def test_json_is_one_object_without_samples(bench: Bench, work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("a", "b", "--json").exit_code == 0
    result = json.loads(capfd.readouterr().out)
    assert result["results"] == "r.jsonl"
    assert [run["outcome"] for run in result["runs"]] == ["measured", "measured"]
    assert (result["runs"][0]["latency_ms"]["p50"], result["runs"][0]["accuracy"]["percent"]) == (1.0, 90.0)
    assert "samples_ns" not in result["runs"][0]


def test_a_run_that_is_not_valid_is_a_finding_and_one_that_fails_an_error(
    bench: Bench, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT_b", "wrong")
    done = bench("a", "b")
    assert done.exit_code == 3
    assert "b on host: not valid: golden outputs differ" in done.stdout
    monkeypatch.setenv("FAULT_c", "fail")
    done = bench("a", "b", "c", "--continue")
    assert done.exit_code == 1
    assert "c on host: failed: svit-run failed with exit status 1. It said: svit-run: no such kernel" in done.stdout
    monkeypatch.delenv("FAULT_c")
    assert bench("a", "b", "c", "--continue").exit_code == 3
    wanted = [("a", "measured"), ("b", "measured"), ("c", "failed"), ("c", "measured")]
    assert outcomes(work / "r.jsonl") == wanted


def test_what_a_board_cannot_run_is_said(bench: Bench, work: Path) -> None:
    write_bundle(work / "arm", load_board("qemu-cortex-a72"))
    done = bench("a", "arm", boards="host,qemu-cortex-a72")
    assert done.exit_code == 1, "a script is no program for qemu"
    assert "arm on host: skipped: the bundle was built for qemu-cortex-a72" in done.stdout
    assert sorted(outcomes(work / "r.jsonl")) == [
        ("a", "measured"),
        ("a", "skipped"),
        ("arm", "failed"),
        ("arm", "skipped"),
    ]
    alone = bench("arm", out="x.jsonl")
    assert isinstance(alone.exception, ConfigError)
    assert "no bundle fits host" in str(alone.exception)
    assert not (work / "x.jsonl").exists()


def test_results_are_neither_overwritten_nor_mixed(bench: Bench, work: Path) -> None:
    assert bench("a").exit_code == 0
    before = (work / "r.jsonl").read_bytes()
    assert "holds results already" in str(bench("a").exception)
    assert "other options (limit 1000, now 7)" in str(bench("a", "--continue", "--limit", "7").exception)
    assert (work / "r.jsonl").read_bytes() == before


def test_the_gate_tells_regressions_by_the_exit_code(
    bench: Bench, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bench("a", "b").exit_code == 0
    fast, slow = (
        slowed(work / "r.jsonl", work / name, factor) for name, factor in (("f.jsonl", 0.8), ("s.jsonl", 1.2))
    )
    passed = bench("a", "b", "--continue", "--baseline", slow)
    assert passed.exit_code == 0, passed.output
    worse = bench("a", "b", "c", "--continue", "--baseline", fast)
    assert worse.exit_code == 3
    assert "a on host: latency 1.000 ms -> 1.000 ms, +24.9" in worse.stdout
    assert [line.split()[-1] for line in worse.stdout.splitlines()[2:5]] == ["REGRESSION", "REGRESSION", "new"]
    assert bench("a", "--continue", "--baseline", fast, "--max-slowdown", "30").exit_code == 0
    capfd.readouterr()
    bench("a", "--continue", "--baseline", fast, "--json")
    told = json.loads(capfd.readouterr().out)
    assert told["gate"] == {"baseline": fast, "max_slowdown": 0.05, "max_growth": 0.05, "alpha": 0.01}
    found = told["runs"][0]["comparisons"]
    verdicts = {each["metric"]: each["verdict"] for each in found}
    assert verdicts == {"latency": "regression", "accuracy": "passed", "peak memory": "passed", "weights": "passed"}


def test_a_folder_of_nights_is_a_baseline(bench: Bench, work: Path) -> None:
    assert bench("a", out="nights/1.jsonl").exit_code == 0
    nothing_else = bench("a", "--continue", "--baseline", "nights", out="nights/1.jsonl")
    assert "holds no other results" in str(nothing_else.exception)
    assert bench("a", "--baseline", "nights", out="nights/2.jsonl").exit_code == 0


def test_a_single_bundle_is_compared_too(bench: Bench, work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("a", "-o", "record.json", boards=None).exit_code == 0
    done = bench("a", "--baseline", "record.json", boards=None)
    assert done.exit_code == 0, done.output
    assert "Against the baseline" in done.stdout
    record = json.loads((work / "record.json").read_text())
    record["samples_ns"] = [sample // 2 for sample in record["samples_ns"]]
    (work / "record.json").write_text(json.dumps(record))
    capfd.readouterr()
    assert bench("a", "--baseline", "record.json", "--json", boards=None).exit_code == 3
    told = json.loads(capfd.readouterr().out)
    assert told["record"]["valid"]
    assert told["comparisons"][0]["change"] == pytest.approx(1.0)


def test_a_baseline_of_something_else_is_refused_before_anything_runs(bench: Bench, work: Path) -> None:
    assert bench("a").exit_code == 0
    other = bench("b", "--baseline", "r.jsonl", out="x.jsonl")
    assert "r.jsonl has none of the runs that are to be compared. It holds: a on host." in str(other.exception)
    assert not (work / "x.jsonl").exists()


def test_data_that_one_bundle_cannot_read_are_refused_before_anything_runs(bench: Bench, work: Path) -> None:
    done = bench("a", "b", "--data", "digits")
    assert "bundle a: data 'digits' are (1, 16, 16) (C, H, W), the network reads (1, 2, 2)." in str(done.exception)
    assert not (work / "r.jsonl").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "b"),
        ("a", "--continue"),
        ("a", "--boards", "host"),
        ("a", "--boards", "host", "-o", "r.jsonl", "--board", "host"),
        ("a", "--boards", "host", "-o", "r.jsonl", "--host", "pi@x"),
        ("a", "--max-slowdown", "3"),
        ("a", "--baseline", "r.jsonl", "--max-growth", "-1"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments: tuple[str, ...], bench: Bench) -> None:
    assert bench(*arguments, boards=None).exit_code == 2


def test_the_schema_is_shown_without_a_bundle() -> None:
    shown = CliRunner().invoke(app, ["bench", "--schema"], obj=Session())
    assert "FleetRun" in json.loads(shown.stdout)["$defs"]


# --- a process that is killed -----------------------------------------------------------------------------------------


def begin(work: Path) -> subprocess.Popen[str]:
    """Starts a process that has measured a, and in which b hangs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "svitkit", *words(*NAMES)],
        env={**os.environ, "FAULT_b": "hang"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def hangs() -> bool:
        assert process.poll() is None, process.communicate()
        return (work / "log").exists() and "/b" in (work / "log").read_text()

    wait_until(hangs, 60)
    return process


def programs(work: Path) -> list[str]:
    """Processes of this machine that run a bundle of the test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(work / "tmp") in command:
            found.append(command)
    return found


def test_after_a_kill_the_rest_is_measured_and_the_set_is_the_same(bench: Bench, work: Path) -> None:
    process = begin(work)
    process.kill()
    process.communicate()
    os.killpg(process.pid, signal.SIGKILL)  # what hangs would hang for ever
    assert outcomes(work / "r.jsonl") == [("a", "measured")]
    (work / "log").unlink()
    assert bench(*NAMES, "--continue").exit_code == 0
    assert outcomes(work / "r.jsonl") == [(name, "measured") for name in NAMES]
    assert "/a" not in (work / "log").read_text()
    assert bench(*NAMES, out="straight.jsonl").exit_code == 0
    killed, straight = (
        {json.dumps(line["run"]) for line in lines(work / name)[1:]} for name in ("r.jsonl", "straight.jsonl")
    )
    assert killed == straight


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGINT", "SIGTERM"])
def test_an_interrupt_keeps_what_is_measured_and_leaves_nothing_behind(how: str, work: Path) -> None:
    process = begin(work)
    assert programs(work)
    if how == "Ctrl-C":  # the terminal tells the programs too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, how))
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "interrupted: the same command with --continue measures what is missing" in stderr
    assert outcomes(work / "r.jsonl") == [("a", "measured")]
    assert list((work / "tmp").iterdir()) == []
    assert programs(work) == []


@pytest.mark.slow
def test_a_rack_of_this_machine_and_emulators_end_to_end(svitkit, tmp_path: Path) -> None:
    assert svitkit("export", "digits-spikformer", "-o", "digits.onnx").returncode == 0
    for board in ("host", "qemu-cortex-a53"):
        assert svitkit("build", "digits.onnx", "--board", board, "--data", "digits", "-o", board).returncode == 0
    rack = ("bench", "host", "qemu-cortex-a53", "--boards", "host,qemu-cortex-a53,qemu-cortex-a72", "--limit", "40")
    first = svitkit(*rack, "-o", "1.jsonl", "--json")
    assert first.returncode in (0, 3), first.stderr
    runs = json.loads(first.stdout)["runs"]
    measured = [(run["bundle"], run["board"], run["emulated"]) for run in runs if run["outcome"] == "measured"]
    emulated = [("qemu-cortex-a53", board, True) for board in ("qemu-cortex-a53", "qemu-cortex-a72")]
    assert measured == [("host", "host", False), *emulated]
    assert all(run["golden"]["match"] and run["accuracy"]["percent"] > 90 for run in runs[:3])
    again = json.loads(svitkit(*rack, "-o", "2.jsonl", "--baseline", "1.jsonl", "--json").stdout)["runs"]
    verdicts = [{each["metric"]: each["verdict"] for each in run["comparisons"]} for run in again[:3]]
    assert all(run["accuracy"] == run["weights"] == "passed" for run in verdicts)
    assert [run["latency"] for run in verdicts[1:]] == ["not compared"] * 2
