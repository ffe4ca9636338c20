from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_latency, peers
from benchmarks.bench_latency import FIGURES, fastest_variants, time_in_turn
from svitkit.compress.options import METHODS


def run(*arguments: str):
    app = Typer()
    app.command()(bench_latency.main)
    return CliRunner().invoke(app, [*arguments])


def test_one_json_object_holds_every_figure_or_a_reason(tiny):
    result = run("--network", tiny, "--rate", "0.15", "--images", "2", "--rounds", "2", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(FIGURES) <= set(report)
    assert {key for key in FIGURES if report[key] is None} == {key for key in FIGURES if key in report["reasons"]}
    for key in ("svitkit_fp32_ms", "ort_fp32_ms", "ort_int8_ms", "torch_ms"):
        assert report[key] > 0
    assert {len(samples) for samples in report["samples_ms"].values()} == {4}
    assert report["threads"] == 1
    assert len(report["rates"]) == 10
    assert report["max_abs_diff"]["ort_fp32_unrolled"] == 0
    assert min(report["same_logits_percent"][name] for name in ("svitkit_fp32", "torch")) >= 50
    assert report["cpu_p50_ms"].keys() == report["samples_ms"].keys()


def test_integer_figures_are_null_for_as_long_as_compress_has_no_such_method():
    with pytest.raises(peers.UnavailableError) as refused:
        peers.svitkit_integer(None, "int3")  # type: ignore[arg-type]
    assert all(method in str(refused.value) for method in METHODS)


def test_the_fastest_variant_counts_and_a_figure_without_variant_is_left_out():
    medians = {"ort_fp32_scan": 2.0, "ort_fp32_unrolled": 1.0, "openvino_f32": 3.0, "openvino_bf16": 2.0}
    assert fastest_variants(medians) == {
        "ort_fp32_ms": "ort_fp32_unrolled",
        "openvino_fp32_ms": "openvino_f32",
        "openvino_best_ms": "openvino_bf16",
    }


def test_each_round_starts_with_another_runtime_and_each_runs_one_image_untimed():
    calls: list[str] = []
    runtimes = {name: lambda x, name=name: calls.append(f"{name}{x}") for name in "ab"}
    passed, spent = time_in_turn(runtimes, [0, 1], rounds=2)  # type: ignore[arg-type]
    assert calls == ["a1", "a0", "a1", "b1", "b0", "b1", "b1", "b0", "b1", "a1", "a0", "a1"]
    for samples in (passed, spent):
        assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4}


def test_a_peer_that_fails_is_a_reason_and_stops_nothing(monkeypatch):
    class Files:
        inputs = (0,)

    def fail():
        raise ValueError("no such layer\nand more")

    monkeypatch.setattr(peers, "loaders", lambda files: {"good": lambda: lambda x: x, "bad": fail})
    runtimes, reasons = peers.load(Files())  # type: ignore[arg-type]
    assert list(runtimes) == ["good"]
    assert reasons == {"bad": "ValueError: no such layer"}


def test_an_unknown_network_is_an_error_with_exit_code_1():
    result = run("--network", "nothing", "--rate", "0.15")
    assert result.exit_code == 1
    assert "nothing" in result.stderr
