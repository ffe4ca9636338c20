from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_single_file
from svitkit.export.pipeline import export_onnx
from svitkit.models.families import build_family
from tests.export.conftest import FAMILIES, describe

COUNTED = ("size_bytes", "start_ms", "load_ms", "first_ms", "latency_ms", "bytes_ms", "peak_bytes", "floor_bytes")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build_family("spikformer", {**FAMILIES["spikformer"], "in_channels": 1})
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    export_onnx(describe(model, family="spikformer", shape=(1, 16, 16)), path)
    return path


def invoke(*arguments: object) -> str:
    app = Typer()
    app.command()(bench_single_file.main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_both_forms_are_started_and_the_single_file_needs_less_memory(onnx: Path) -> None:
    result = json.loads(invoke(onnx, "--starts", "2", "--json"))
    bundle, single = result["forms"]
    assert (bundle["name"], single["name"], result["emulated"]) == ("bundle", "single file", False)
    for form in (bundle, single):
        assert all(form[key] > 0 for key in COUNTED)
        assert form["load_ms"] + form["first_ms"] < form["start_ms"]
    assert single["size_bytes"] < bundle["size_bytes"]
    assert single["peak_bytes"] < bundle["peak_bytes"]
    assert single["floor_bytes"] < bundle["floor_bytes"]


def test_of_an_emulated_board_the_table_has_sizes_only() -> None:
    form = bench_single_file.Form(name="bundle", **dict.fromkeys([*COUNTED, "private_bytes"], 2048))
    (told,), (untold,) = (bench_single_file.rows([form], emulated=emulated) for emulated in (False, True))
    assert len(told) == len(untold) == len(bench_single_file.COLUMNS)
    assert untold == ("bundle", "2", *["-"] * 8)
    assert "-" not in told
