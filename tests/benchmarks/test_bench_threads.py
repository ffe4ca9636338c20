from __future__ import annotations

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_threads
from svitkit.boards.board import load_board
from svitkit.errors import VerificationError

PRECISIONS = {"fp32", "int8", "int4"}


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host as a board with two cores, however many it has."""
    monkeypatch.setattr(bench_threads, "load_board", lambda name: replace(load_board(name), cores=2))


@pytest.mark.usefixtures("two_cores")
def test_one_json_object_holds_medians_of_both_numbers_of_threads_and_their_ratio(tiny):
    app = Typer()
    app.command()(bench_threads.main)
    result = CliRunner().invoke(app, ["--network", tiny, "--rate", "0.15", "--images", "2", "--rounds", "2", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report["speedup"]) == set(report["p50_ms"]) == PRECISIONS
    for precision in PRECISIONS:
        samples = report["samples_ms"][precision]
        assert {count: len(values) for count, values in samples.items()} == {"1": 4, "2": 4}
        medians = {count: statistics.median(values) for count, values in samples.items()}
        assert report["p50_ms"][precision] == pytest.approx(medians)
        assert report["speedup"][precision] == pytest.approx(medians["1"] / medians["2"])
        assert report["speedup_of_fastest"][precision] == pytest.approx(min(samples["1"]) / min(samples["2"]))


def test_threads_that_change_a_logit_are_an_error(tmp_path, monkeypatch):
    class Files:
        work, threads, inputs = tmp_path, 2, (np.zeros(1),)

    class Wrong:
        def __init__(self, bundle, *, threads):
            self.threads = threads

        def run(self, x):
            return np.array([[self.threads]])

    monkeypatch.setattr(bench_threads, "build_bundle", lambda *arguments, golden: None)
    monkeypatch.setattr(bench_threads, "Session", Wrong)
    with pytest.raises(VerificationError, match="2 threads give other logits"):
        bench_threads.time_threads(Files(), tmp_path / "int8.onnx", 1)  # type: ignore[arg-type]


def test_a_single_thread_is_nothing_to_compare_with():
    app = Typer()
    app.command()(bench_threads.main)
    assert CliRunner().invoke(app, ["--threads", "1"]).exit_code == 2
