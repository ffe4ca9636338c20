from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_memory
from svitkit.errors import RunError


def test_one_json_object_holds_every_peak_and_the_sum_that_explains_ours(tiny):
    app = Typer()
    app.command()(bench_memory.main)
    result = CliRunner().invoke(app, ["--network", tiny, "--rate", "0.15", "--images", "2", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    for ours in ("svitkit", "svitkit_int8", "svitkit_int4"):
        parts = [report[f"{ours}_{part}_bytes"] for part in ("weights", "states", "workspace", "remaining")]
        assert sum(parts) == report[f"{ours}_peak_bytes"]
        assert min(parts[0], parts[3]) > 0
        assert report[f"{ours}_peak_bytes"] < report["ort_peak_bytes"] < report["torch_peak_bytes"]
    assert report["svitkit_int8_weights_bytes"] < report["svitkit_weights_bytes"] / 2
    assert report["ort_imports_bytes"] < report["ort_int8_peak_bytes"]
    assert report["empty_interpreter_bytes"] < report["ort_imports_bytes"] < report["ort_peak_bytes"]
    assert report["ort_peak_bytes"] == min(report["ort_peaks_bytes"].values())


def test_a_peer_that_cannot_quantize_is_a_reason(monkeypatch, tmp_path):
    def fail(files):
        raise ValueError("no such operator")

    monkeypatch.setattr(bench_memory, "quantized", fail)
    peak, reasons = bench_memory.quantized_peak(None, tmp_path)  # type: ignore[arg-type]
    assert peak is None
    assert reasons == {"ort_int8_peak_bytes": "ValueError: no such operator"}


def test_a_process_that_fails_is_an_error_with_its_last_words():
    with pytest.raises(RunError, match="unknown runtime 'nothing'"):
        bench_memory.probe("nothing")
