from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from svitkit.compress.options import WorkOptions
from svitkit.compress.pipeline import compress_model
from svitkit.compress.run import CompressResult
from svitkit.data import Dataset, load_data
from svitkit.models.checkpoint import Checkpoint
from tests.compress.networks import firing_checkpoint, own_labels


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return firing_checkpoint("spikformer", load_data("digits"))


@pytest.fixture(scope="module")
def data(checkpoint: Checkpoint) -> Dataset:
    return own_labels(checkpoint, load_data("digits"))


def compress(checkpoint: Checkpoint, data: Dataset, out: Path, executor: str, **options: Any) -> CompressResult:
    return compress_model(
        checkpoint,
        data,
        out,
        method="primesvt",
        max_drop=12.0,
        min_saving=0.2,
        limit=96,
        bn_recalibration=32,
        settings={"rates": (0.2, 0.5, 0.8)},
        work=WorkOptions(executor=executor),
        **options,
    )


@pytest.fixture(scope="module")
def locally(checkpoint: Checkpoint, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CompressResult:
    return compress(checkpoint, data, tmp_path_factory.mktemp("locally") / "out", "local")


def worker_processes() -> list[int]:
    """Finds the processes that measure, or wait for the next candidate: Ray names them after their class."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_kill_9_of_workers_in_mid_sweep_changes_nothing_in_the_result(
    cluster: Any, locally: CompressResult, checkpoint: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "sweep" and done >= 3 and len(killed) < 2:
            for process in worker_processes()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    result = compress(checkpoint, data, tmp_path / "out", "ray", progress=kill)
    assert killed
    assert result.report == locally.report
    assert result.checkpoint.spec == locally.checkpoint.spec
    journal = (tmp_path / "out" / "search.jsonl").read_text().splitlines()
    assert len({line.split('"accuracy"')[0] for line in journal}) == len(journal)


@pytest.mark.slow
def test_a_search_begun_here_is_finished_on_the_cluster(
    cluster: Any, locally: CompressResult, checkpoint: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "sweep" and done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(checkpoint, data, tmp_path / "out", "local", progress=interrupt)
    known = (tmp_path / "out" / "search.jsonl").read_text()
    result = compress(checkpoint, data, tmp_path / "out", "ray", resume=True)
    assert (tmp_path / "out" / "search.jsonl").read_text().startswith(known)
    assert result.report == locally.report


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("svitkit", {"calibration_images": 32, "probe_images": 32, "rates": (0.3, 0.6), "rounds": 0, "fill_tries": 1}),
        ("aq4svit-greedy", {"calibration_images": 32, "gate_images": 8, "audit": 1, "membranes": (8,)}),
    ],
)
def test_searches_with_several_executors_share_the_cluster(
    cluster: Any, checkpoint: Checkpoint, data: Dataset, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    told: dict[str, Any] = {"method": method, "max_drop": 12.0, "min_saving": 0.1, "limit": 48, "settings": settings}
    locally = compress_model(checkpoint, data, tmp_path / "local", **told)
    spread = compress_model(checkpoint, data, tmp_path / "ray", work=WorkOptions(executor="ray"), **told)
    assert spread.report == locally.report
    assert spread.checkpoint.spec == locally.checkpoint.spec
