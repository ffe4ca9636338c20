"""The order of runs, with a stand-in for the measurement that notes who runs beside whom."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from svitkit.boards.board import Board, load_board
from svitkit.boards.hosts import config_path
from svitkit.errors import ConfigError, RunError
from svitkit.runtime.bench.fleet import Job, bundle_name, machine_of, plan_jobs, run_fleet, run_jobs
from svitkit.runtime.bench.fleet_results import open_results
from svitkit.runtime.bench.record import BenchRecord
from tests.runtime.bench.test_measure import write_bundle
from tests.runtime.bench.test_record import record

HOSTS = """
[left]
board = "raspberry-pi-4"
host = "pi@10.0.0.1"
[right]
board = "raspberry-pi-4"
host = "pi@10.0.0.2"
[again]
board = "raspberry-pi-4"
host = "root@10.0.0.1"
[tunnel]
board = "raspberry-pi-4"
host = "pi@localhost:2222"
"""


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Board]]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config_path().parent.mkdir(parents=True)
    config_path().write_text(HOSTS)
    return lambda *names: [load_board(name) for name in names]


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Two for an aarch64 board."""
    return [write_bundle(tmp_path / name, load_board("qemu-cortex-a72")) for name in ("one", "two")]


class Watch:
    """Measures nothing, and notes what runs at the same time."""

    def __init__(self, seconds: float = 0.03) -> None:
        self.seconds = seconds
        self.order: list[tuple[str, str]] = []
        self.pairs: set[frozenset[str]] = set()
        self._running: list[Job] = []
        self._lock = threading.Lock()

    def __call__(self, job: Job) -> BenchRecord:
        with self._lock:
            self.pairs |= {frozenset((job.key.where, other.key.where)) for other in self._running}
            self._running.append(job)
            self.order.append((job.key.where, job.key.bundle))
        time.sleep(self.seconds)
        with self._lock:
            self._running.remove(job)
        return dataclasses.replace(record(), board=job.key.board, bundle_sha256=job.key.bundle_sha256)


def test_machines_run_side_by_side_and_each_makes_one_run_at_a_time(
    boards: Callable[..., list[Board]], bundles: list[Path]
) -> None:
    jobs, _ = plan_jobs(bundles, boards("left", "right", "again", "qemu-cortex-a72", "qemu-cortex-a53", "tunnel"))
    watch = Watch(0.1)
    runs = list(run_jobs(jobs, watch))
    assert {run.run for run in runs} == {job.key for job in jobs}
    assert all(run.outcome == "measured" for run in runs)
    together = {tuple(sorted(pair)) for pair in watch.pairs}
    here, there = {"qemu-cortex-a72", "qemu-cortex-a53", "tunnel"}, {"left", "again"}
    assert together, "nothing ran side by side"
    assert not [pair for pair in together if set(pair) <= here or set(pair) <= there or len(set(pair)) < 2]
    assert [bundle for where, bundle in watch.order if where == "left"] == ["one", "two"]


def test_while_this_machine_is_measured_nothing_else_runs(
    boards: Callable[..., list[Board]], bundles: list[Path], tmp_path: Path
) -> None:
    here = write_bundle(tmp_path / "here", load_board("host"))
    jobs, _ = plan_jobs([*bundles, here], boards("left", "right", "host"))
    watch = Watch()
    assert len(list(run_jobs(jobs, watch))) == 5
    assert watch.order[0] == ("host", "here")
    assert watch.pairs <= {frozenset(("left", "right"))}


def test_machines_are_told_apart_by_their_addresses(boards: Callable[..., list[Board]]) -> None:
    names = ("left", "right", "again", "tunnel", "host", "qemu-cortex-a72")
    left, right, again, *here = map(machine_of, boards(*names))
    assert left == again != right
    assert set(here) == {"this machine"}
    with pytest.raises(ConfigError, match="nothing says where jetson-nano is"):
        machine_of(load_board("jetson-nano"))


def test_pairs_that_do_not_fit_are_skipped_with_the_reason(
    boards: Callable[..., list[Board]], bundles: list[Path], tmp_path: Path
) -> None:
    here = write_bundle(tmp_path / "here", load_board("host"))
    jobs, skipped = plan_jobs([*bundles, here], boards("left", "host"))
    assert [(job.key.where, job.key.bundle) for job in jobs] == [("left", "one"), ("left", "two"), ("host", "here")]
    assert jobs[0].key.place == "left"
    assert [(run.run.where, run.run.bundle) for run in skipped] == [("left", "here"), ("host", "one"), ("host", "two")]
    assert all("but raspberry-pi-4 runs aarch64" in (run.error or "") for run in skipped[:1])


def test_a_board_or_bundle_without_a_partner_is_an_error(
    boards: Callable[..., list[Board]], bundles: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no bundle fits host: the bundle was built for .* Nothing was run\."):
        plan_jobs(bundles, boards("left", "host"))
    here = write_bundle(tmp_path / "here", load_board("host"))
    with pytest.raises(ConfigError, match=r"bundle here fits no board: the bundle was built for host"):
        plan_jobs([*bundles, here], boards("left"))


def test_names_must_tell_runs_apart(boards: Callable[..., list[Board]], bundles: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two boards are called 'left'"):
        plan_jobs(bundles, boards("left", "right", "left"))
    (tmp_path / "other").mkdir()
    twin = write_bundle(tmp_path / "other" / "one", load_board("qemu-cortex-a72"))
    with pytest.raises(ConfigError, match="two bundles are called 'one'"):
        plan_jobs([*bundles, twin], boards("left"))


def test_a_deployed_bundle_has_the_name_of_its_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle_name(tmp_path / "digits-host" / "bundle") == "digits-host"
    assert bundle_name(tmp_path / "digits-host" / "int8") == "int8"
    (tmp_path / "digits-host" / "bundle").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "digits-host" / "bundle")
    assert bundle_name(Path()) == "digits-host"


def test_a_run_that_fails_stops_no_other(boards: Callable[..., list[Board]], bundles: list[Path]) -> None:
    jobs, _ = plan_jobs(bundles, boards("left", "right"))
    faults = [RunError("no answer"), OSError(28, "No space left on device", "/tmp/x"), ValueError("what?")]

    def measure(job: Job) -> BenchRecord:
        if job is jobs[-1]:
            return record()
        raise faults[jobs.index(job)]

    runs = {run.run: run for run in run_jobs(jobs, measure)}
    assert [runs[job.key].outcome for job in jobs] == ["failed", "failed", "failed", "measured"]
    said = [runs[job.key].error or "" for job in jobs]
    assert said[:2] == ["no answer", "/tmp/x: No space left on device"]
    assert said[2].startswith("unexpected ValueError: what?.")


def test_what_was_measured_is_not_measured_again_and_what_failed_is(
    boards: Callable[..., list[Board]], bundles: list[Path], tmp_path: Path
) -> None:
    jobs, _ = plan_jobs(bundles, boards("left", "right"))
    watch = Watch(0)

    def fail_once(job: Job) -> BenchRecord:
        made = watch(job)
        if job is jobs[1]:
            raise RunError("no answer")
        return made

    def night(measure: Callable[[Job], BenchRecord], resume: bool) -> list[str]:
        with open_results(tmp_path / "r", {}, resume=resume) as results:
            return [run.outcome for run in run_fleet(jobs, results, measure, lambda run: None)]

    assert night(fail_once, False) == ["measured", "failed", "measured", "measured"]
    watch.order.clear()
    assert night(watch, True) == ["measured"] * 4
    assert watch.order == [("left", "two")]


def test_when_nobody_listens_any_more_programs_are_ended_and_nothing_new_begins(
    boards: Callable[..., list[Board]], bundles: list[Path]
) -> None:
    jobs, _ = plan_jobs(bundles, boards("left", "right"))
    begun: list[subprocess.Popen[bytes]] = []
    ready = threading.Barrier(2)

    def measure(job: Job) -> BenchRecord:
        if job.key.where == "left":
            ready.wait(10)
            return record()
        held = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # as ssh that holds a board
        begun.append(held)
        begun.append(subprocess.Popen(["sleep", "600"]))
        ready.wait(10)
        begun[1].wait()
        held.communicate(b"in order\n", 10)
        raise RunError("it was ended")

    bystander = subprocess.Popen(["sleep", "600"])
    runs = run_jobs([jobs[0], jobs[2], jobs[3]], measure)
    assert next(runs).run.where == "left"
    start = time.monotonic()
    runs.close()
    assert time.monotonic() - start < 10
    assert [process.returncode for process in begun] == [0, -15], "the board was not left in order"
    assert bystander.poll() is None
    os.kill(bystander.pid, 9)
    bystander.wait()
