from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_prediction
from svitkit.data import load_data
from svitkit.models.checkpoint import save_checkpoint
from tests.compress.networks import firing_checkpoint


def run(*arguments: str):
    app = Typer()
    app.command()(bench_prediction.main)
    return CliRunner().invoke(app, [*arguments])


def test_one_json_object_has_predicted_and_measured_speedups_of_every_way(tmp_path: Path) -> None:
    checkpoint = firing_checkpoint("spikformer", load_data("digits"))
    save_checkpoint(tmp_path / "tiny", checkpoint.model, checkpoint.spec)
    result = run("--model", str(tmp_path / "tiny"), "--ways", "mlp", "--rounds", "1", "--json")
    assert result.exit_code == 0, result.output
    outcomes = json.loads(result.stdout.splitlines()[-1])["outcomes"]
    assert [each["way"] for each in outcomes] == ["unpruned", "mlp"]
    assert outcomes[0]["predicted_speedup"] == outcomes[0]["measured_speedup"] == 1
    for each in outcomes:
        assert min(each["predicted_ms"], each["measured_ms"], each["fastest_ms"]) > 0
        assert each["error"] == pytest.approx(each["predicted_speedup"] / each["measured_speedup"] - 1)


@pytest.mark.parametrize("told", [("--ways", "mpl"), ("--method", "int5"), ("--model", "nothing")])
def test_unknown_names_are_refused(told: tuple[str, str]) -> None:
    result = run(*told)
    assert result.exit_code == 1
    assert "error: " in result.output
