from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_latency, peers
from benchmarks.bench_latency import combinations, fastest_variants, time_in_turn
from benchmarks.latencies import FIGURES, Latencies
from benchmarks.latency_views import markdown, plot
from benchmarks.network_files import write_files
from benchmarks.networks import load_network
from svitkit.errors import VerificationError


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
    for key in ("svitkit_fp32_ms", "svitkit_int8_ms", "svitkit_int4_ms", "ort_fp32_ms", "ort_int8_ms", "torch_ms"):
        assert report[key] > 0
    assert {len(samples) for samples in report["samples_ms"].values()} == {4}
    assert report["threads"] == 1
    assert len(report["rates"]) == 10
    assert {method: list(rates) for method, rates in report["integer_rates"].items()} == {
        method: list(report["rates"]) for method in ("int8", "int4")
    }
    assert report["max_abs_diff"]["svitkit_int8"] == report["max_abs_diff"]["svitkit_int4"] == 0
    assert report["max_abs_diff"]["ort_fp32_unrolled"] == 0
    assert min(report["same_logits_percent"][name] for name in ("svitkit_fp32", "torch")) >= 50
    assert report["cpu_p50_ms"].keys() == report["samples_ms"].keys()


def test_a_bundle_that_differs_from_onnx_runtime_on_its_own_integer_file_is_not_timed(tiny, tmp_path):
    files = write_files(load_network(tiny, rate=0.15, images=2), tmp_path, threads=1)
    made = files.integers["int8"]
    logits = made.logits.copy()
    logits[1, 3] = np.nextafter(logits[1, 3], np.float32(np.inf))
    changed = replace(files, integers={"int8": replace(made, logits=logits)})
    with pytest.raises(VerificationError, match=r"1 of 2 inputs"):
        peers.svitkit_integer(changed, "int8")


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


def report(network: str, rate: float | None, **p50_ms: float) -> Latencies:
    medians = dict.fromkeys(FIGURES, None) | p50_ms
    return Latencies(
        network=network,
        threads=1,
        device="a CPU",
        rate=rate,
        rates={"first": 0.1, "second": 0.2},
        integer_rates={},
        p50_ms=medians,
        reasons={key: "no reason" for key, value in medians.items() if value is None},
        fastest={},
        samples_ms={},
        cpu_p50_ms={},
        same_logits_percent={},
        max_abs_diff={},
    )


def test_the_markdown_table_has_a_row_for_every_report_and_a_column_for_every_runtime_that_ran():
    first = report("net", 0.06, svitkit_int8_ms=2.0, ort_fp32_ms=9.0)
    second = report("zoo-net", None, svitkit_int8_ms=1.0, svitkit_int4_ms=0.5, ort_fp32_ms=1.0)
    table = [line for line in markdown([first, second]).splitlines() if line.startswith("|")]
    assert table == [
        "| network | rate | svitkit int8 | svitkit int4 | ONNX Runtime fp32 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| net | 0.06 | 2.00 (4.5x) | - | 9.00 |",
        "| zoo-net | its own, 0.15 | 1.00 (1.0x) | 0.50 (2.0x) | 1.00 |",
    ]
    assert "- svitkit int4, net: no reason" in markdown([first, second])
    assert "- svitkit int4, zoo-net" not in markdown([first, second])


def test_every_network_runs_at_every_rate_and_one_of_the_zoo_once_at_its_own():
    assert list(combinations(["a", "digits-spikformer"], [0.06, 0.15])) == [
        ("a", 0.06),
        ("a", 0.15),
        ("digits-spikformer", None),
    ]
    assert list(combinations(["a"], [])) == [("a", None)]
    assert list(combinations(["digits-spikformer"], [0.06])) == [("digits-spikformer", 0.06)]


def test_a_picture_of_several_networks_is_refused(tmp_path):
    result = run("--network", "qkformer", "--rate", "0.05", "--rate", "0.15", "--plot", str(tmp_path / "p.svg"))
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_the_picture_shows_every_runtime_that_ran(tmp_path):
    medians = {key: 1.0 + index for index, key in enumerate(FIGURES) if key != "ncnn_ms"}
    plot(tmp_path / "p.svg", report("net", 0.15, **medians))
    drawn = (tmp_path / "p.svg").read_text()
    assert all(f"<!-- {key.removesuffix('_ms')} -->" in drawn for key in medians)
    assert "ncnn" not in drawn
