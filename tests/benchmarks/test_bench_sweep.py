from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_sweep
from svitkit.compress.run import CompressResult
from svitkit.data import load_data
from svitkit.models.checkpoint import save_checkpoint
from tests.compress.networks import firing_checkpoint


def run(*arguments: str) -> tuple[int, dict[str, object]]:
    app = Typer()
    app.command()(bench_sweep.main)
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("network") / "firing"
    path.mkdir()
    checkpoint = firing_checkpoint("spikformer", load_data("digits"))
    save_checkpoint(path, checkpoint.model, checkpoint.spec)
    return str(path)


def test_one_json_object_tells_seconds_ratio_and_whether_decisions_are_the_same(network: str) -> None:
    code, found = run("--network", network, "--limit", "64", "--rates", "0.5", "--max-drop", "1", "--bn-images", "16")
    assert code == 0
    assert found["same_decisions"] is True
    assert found["network"] == Path(network).name
    assert found["images"] == 64
    assert found["ratio"] == pytest.approx(found["fast_s"] / found["plain_s"])  # type: ignore[operator]


def test_another_decision_is_a_finding(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search = bench_sweep.compress_model

    def decide_differently(*arguments: object, **options: object) -> CompressResult:
        result = search(*arguments, **options)  # type: ignore[arg-type]
        if options["work"].sweep == "plain":  # type: ignore[attr-defined]
            groups = tuple(replace(group, why="for another reason") for group in result.report.groups)
            result = replace(result, report=replace(result.report, groups=groups))
        return result

    monkeypatch.setattr(bench_sweep, "compress_model", decide_differently)
    code, found = run("--network", network, "--limit", "8", "--rates", "0.5")
    assert code == bench_sweep.DIFFERENT
    assert found["same_decisions"] is False
