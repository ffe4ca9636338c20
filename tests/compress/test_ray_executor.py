from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svitkit.compress.executor import Evaluator, Wanted
from svitkit.compress.journal import Journal, Subject
from svitkit.compress.ray_executor import MOST_DEATHS, RayExecutor
from svitkit.errors import ConfigError, RunError, UnsupportedError
from tests.compress.imaginary import DEADLY, DEADLY_TWICE, WRONG, Imaginary, plan

SUBJECT = Subject(checkpoint_sha256="a" * 64, data_sha256="b" * 64, settings_sha256="c" * 64)


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def executor(cluster: Any, notes: Path) -> Iterator[RayExecutor]:
    made = RayExecutor(Imaginary(notes))  # type: ignore[arg-type]
    yield made
    made.close()


def measured(executor: RayExecutor, *kept: int) -> list[float]:
    return sorted(one.accuracy for one in executor.measure([Wanted(plan=plan(one), floor=None) for one in kept]))


def test_every_candidate_is_measured_once_in_other_processes(executor: RayExecutor, notes: Path) -> None:
    assert measured(executor, 3, 4, 5, 6, 7) == [30.0, 40.0, 50.0, 60.0, 70.0]
    pids = [int(pid) for kept in (3, 4, 5, 6, 7) for pid in (notes / f"began {kept}").read_text().split()]
    assert len(pids) == 5
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2
    assert (notes / "prepared").exists()


def test_a_worker_that_dies_is_replaced_and_its_candidate_measured_by_another(
    executor: RayExecutor, notes: Path
) -> None:
    assert measured(executor, 13, DEADLY_TWICE, 14, 15) == [20.0, 130.0, 140.0, 150.0]
    pids = (notes / f"began {DEADLY_TWICE}").read_text().split()
    assert len(set(pids)) == len(pids) == MOST_DEATHS


def test_a_candidate_that_kills_every_worker_is_an_error_that_names_it(executor: RayExecutor, notes: Path) -> None:
    with pytest.raises(RunError, match=f"{MOST_DEATHS} Ray workers died while they measured 'validation, g=1/99"):
        measured(executor, DEADLY)
    assert len((notes / f"began {DEADLY}").read_text().split()) == MOST_DEATHS
    assert measured(executor, 16) == [160.0]


def test_an_error_in_a_worker_is_the_same_error_here(executor: RayExecutor) -> None:
    with pytest.raises(UnsupportedError, match=r"^eight is too many$"):
        measured(executor, WRONG)


@pytest.mark.slow
def test_what_was_begun_and_not_waited_for_is_told_the_next_time(
    executor: RayExecutor, notes: Path, tmp_path: Path
) -> None:
    evaluator = Evaluator(Journal(tmp_path / "j", SUBJECT, resume=False), executor)
    stream = evaluator.each([plan(kept) for kept in (27, 26, 25, 24, 23)])
    assert next(stream).accuracy == 270.0
    stream.close()
    assert [one.accuracy for one in evaluator.evaluate_all([plan(26), plan(25)])] == [260.0, 250.0]
    assert len((notes / "began 26").read_text().split()) == 1


def test_two_executors_share_the_workers_and_neither_loses_what_came_for_it(
    executor: RayExecutor, tmp_path: Path
) -> None:
    other = RayExecutor(Imaginary(tmp_path))  # type: ignore[arg-type]
    try:
        begun = executor.measure([Wanted(plan=plan(one), floor=None) for one in (33, 34, 35, 36)])
        first = next(begun).accuracy
        begun.close()
        assert measured(other, 41, 42, 43) == [410.0, 420.0, 430.0]
        assert measured(executor, 33, 34, 35, 36) == [330.0, 340.0, 350.0, 360.0]
        assert first in (330.0, 340.0)
    finally:
        other.close()
    assert measured(executor, 37) == [370.0]


def test_an_address_beside_the_cluster_that_is_connected_is_refused(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="connected to a Ray cluster already"):
        RayExecutor(Imaginary(tmp_path), address="10.0.0.1:6379")  # type: ignore[arg-type]


def test_an_address_where_nothing_answers_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'svitkit[ray]'")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        RayExecutor(Imaginary(tmp_path), address="127.0.0.1:1")  # type: ignore[arg-type]


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'svitkit\[ray\]'"):
        RayExecutor(Imaginary(tmp_path))  # type: ignore[arg-type]


OWN_CLUSTER = """
import sys, time
from pathlib import Path
from svitkit.compress.executor import Wanted
from svitkit.compress.ray_executor import RayExecutor
from tests.compress.imaginary import ENDLESS, Imaginary, plan

executor = RayExecutor(Imaginary(Path(sys.argv[1])))
try:
    for one in executor.measure([Wanted(plan=plan(kept), floor=None) for kept in (3, ENDLESS)]):
        print(one.accuracy, flush=True)
finally:
    executor.close()
    print("closed", flush=True)
"""


@pytest.mark.slow
def test_a_cluster_of_its_own_ends_with_an_interrupt(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'svitkit[ray]'")
    script = subprocess.Popen(
        [sys.executable, "-c", OWN_CLUSTER, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "30.0\n"
    worker = int((tmp_path / "began 3").read_text())
    script.send_signal(signal.SIGINT)
    rest, errors = script.communicate(timeout=60)
    assert rest == "closed\n"
    assert "KeyboardInterrupt" in errors
    assert script.returncode != 0
    assert not Path(f"/proc/{worker}").exists()
