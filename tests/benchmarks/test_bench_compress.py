from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_compress, compress_methods
from benchmarks.compress_methods import Task, _Bisection, compress_with, method_names
from benchmarks.compress_views import markdown, plot
from benchmarks.compressions import Compression, Cost, Point, from_dict, pareto
from benchmarks.peers import UnavailableError
from svitkit.compress.options import METHODS
from svitkit.data import load_data
from svitkit.models.checkpoint import save_checkpoint
from svitkit.models.run import forward_logits
from tests.compress.networks import firing_checkpoint

KEYS = (
    "memory_saving",
    "accuracy_before",
    "accuracy_after",
    "accuracy_finetuned",
    "search_s",
    "search_cpu_s",
    "latency_ms",
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint for digits: random weights, neurons that fire."""
    path = tmp_path_factory.mktemp("network") / "tiny"
    checkpoint = firing_checkpoint("spikformer", load_data("digits"))
    save_checkpoint(path, checkpoint.model, checkpoint.spec)
    return str(path)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    digits = load_data("digits")
    return Task(
        checkpoint=firing_checkpoint("spikformer", digits),
        data=replace(digits, validation=digits.test, test=digits.validation),
        max_drop=100.0,
        min_saving=0.2,
        work=tmp_path,
    )


def run(*arguments: str):
    app = Typer()
    app.command()(bench_compress.main)
    return CliRunner().invoke(app, [*arguments])


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def test_every_method_prints_one_json_object_with_every_figure(network: str, tmp_path: Path) -> None:
    options = ["--max-drop", "100", "--limit", "16", "--rounds", "1", "--finetune", "1", "--json"]
    result = run("--network", network, "--methods", "uniform,primesvt", *options, "--plot", str(tmp_path / "p.svg"))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["method"] for line in lines] == ["uniform", "primesvt"]
    for line in lines:
        assert all(line[key] is not None for key in KEYS)
        assert line["accuracy_before"] == lines[0]["accuracy_before"]
        assert (line["validation_images"], line["test_images"], line["network"]) == (16, 360, "tiny")
        assert line["memory_saving"] == 1 - line["parameter_bytes"] / line["parameter_bytes_before"]
        assert line["memory_saving"] > 0.2668
        assert line["macs"] < line["macs_before"]
        assert min(line["latency_ms"], line["latency_ms_before"], line["peak_bytes"], line["search_s"]) > 0
        assert any(abs(point["saving"] - line["memory_saving"]) < 1e-9 for point in line["points"])
    assert lines[0]["memory_saving"] > 0.5, "at any loss, uniform pruning removes all that it may"
    (tmp_path / "lines.jsonl").write_text(result.stdout)
    shown = run("--read", str(tmp_path / "lines.jsonl"), "--markdown")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("| tiny |") == 2
    assert "<!-- primesvt -->" in (tmp_path / "p.svg").read_text()


def test_an_unknown_method_or_network_is_an_error_before_any_work(network: str) -> None:
    for arguments in (["--network", network, "--methods", "uniform,unifrom"], ["--network", "nothing"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "error: unknown" in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{", '{"network": 1}', None])
def test_a_file_that_holds_no_such_lines_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "lines").write_text(content)
    result = run("--read", str(tmp_path / "lines"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert str(tmp_path / "lines") in result.stderr


def test_every_method_of_the_program_is_known_and_those_that_prune_are_the_default() -> None:
    assert set(METHODS) <= set(method_names())
    assert bench_compress.check_names(None) == [name for name in method_names() if name not in ("int8", "int4")]
    assert {"primesvt", "primesvt-old-bn", "uniform", "torch-pruning"} <= set(bench_compress.check_names(None))
    assert bench_compress.check_names("uniform, int8") == ["uniform", "int8"]


@pytest.mark.parametrize("largest", [0.0, 1 / 64, 0.5, 40 / 64, 63 / 64])
def test_the_bisection_finds_the_largest_fraction_within_the_constraint(task: Task, largest: float) -> None:
    search = _Bisection(replace(task, max_drop=3.0), 90.0, 1000)
    asked: list[float] = []

    def measure(ratio: float) -> tuple[float, int]:
        asked.append(ratio)
        return (87.0 if ratio <= largest else 86.9), round(1000 * (1 - ratio))

    assert search.run(measure, silent) == largest
    assert len(asked) == len(set(asked)) == 6


def test_the_bisection_takes_no_larger_fraction_that_leaves_a_larger_network(task: Task) -> None:
    search = _Bisection(task, 90.0, 1000)
    assert search.run(lambda ratio: (90.0, 1000 if ratio > 0.6 else round(1000 * (1 - ratio))), silent) == 38 / 64


def test_uniform_pruning_removes_the_same_fraction_of_every_group(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress_methods._Bisection, "run", lambda search, measure, advance: _half(search, measure))
    found = compress_with("uniform", task, silent)
    plan = found.checkpoint.spec.plan
    assert plan is not None
    assert {len(pruned.kept) / pruned.group.channels for pruned in plan.groups} == {0.5}
    assert found.reasons == {"ratio": "0.5 of the channels removed"}
    x = torch.zeros(2, 1, 1, 16, 16)
    assert forward_logits(found.checkpoint.model, x).shape == (1, 10)


def _half(search: Any, measure: Any) -> float:
    search.measured[0.5] = measure(0.5)
    return 0.5


def test_where_even_the_smallest_fraction_loses_too_much_the_network_stays_as_it_is(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(search: Any, measure: Any, advance: Any) -> float:
        return 0.0

    monkeypatch.setattr(compress_methods._Bisection, "run", worse)
    found = compress_with("uniform", task, silent)
    assert found.checkpoint.spec.plan is None
    assert found.after == found.before
    assert found.checkpoint.parameter_bytes() == task.checkpoint.parameter_bytes()


def test_primesvt_with_old_statistics_differs_from_primesvt_in_nothing_else(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, dict[str, Any]] = {}

    class Stopped(Exception):  # noqa: N818
        """Ends the search before it begins."""

    def watch(checkpoint: Any, data: Any, out: Path, **options: Any) -> None:
        seen[out.name] = options
        raise Stopped

    monkeypatch.setattr(compress_methods, "compress_model", watch)
    for name in ("primesvt", "primesvt-old-bn", "primesvt-max"):
        with pytest.raises(Stopped):
            compress_with(name, task, silent)
    assert {name: options.pop("bn_recalibration") for name, options in seen.items()} == {
        "primesvt": 512,
        "primesvt-old-bn": 0,
        "primesvt-max": 512,
    }
    assert seen["primesvt"] == seen["primesvt-old-bn"]
    assert seen["primesvt-max"].pop("settings") == {"stop_at_saving": False}
    with pytest.raises(Stopped):
        compress_with("int8", task, silent)
    assert (seen["int8"]["method"], seen["int8"]["bn_recalibration"], seen["int8"]["settings"]) == ("int8", 512, {})


def test_the_points_of_a_search_are_what_it_measured_to_the_end(tmp_path: Path) -> None:
    def entry(key: str, accuracy: float, size: int, **more: Any) -> str:
        return json.dumps({"key": key, "accuracy": accuracy, "parameter_bytes": size, **more})

    lines = [
        json.dumps({"svitkit_search": 1}),
        entry("validation, whole, 0", 90.0, 1000),
        entry("validation, a=1/2, 1", 89.0, 800),
        entry("validation, a=1/4, 2", 89.5, 700, stopped={"images": 10, "accuracy": 50.0, "certain": True}),
        entry("gate, a=1/4, 2", 100.0, 100),
        entry("test, after", 95.0, 100),
    ]
    (tmp_path / "search.jsonl").write_text("\n".join(lines) + "\n")
    report = SimpleNamespace(original_parameter_bytes=1000, before=SimpleNamespace(validation=90.0))
    points = compress_methods._journal_points(tmp_path / "search.jsonl", report)  # type: ignore[arg-type]
    assert [(point.saving, point.lost) for point in points] == [(0.0, 0.0), (pytest.approx(0.2), 1.0)]


def test_a_peer_that_cannot_compress_is_null_with_its_reason(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise UnavailableError("index 96 is out of bounds")

    monkeypatch.setattr(compress_methods, "prunable_layers", fail)
    result = run("--network", network, "--methods", "torch-pruning", "--limit", "4", "--json")
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert line["memory_saving"] is None
    assert line["reasons"] == {"memory_saving": "index 96 is out of bounds"}
    assert from_dict(line).to_dict() == {**line, "points": ()}


def test_torch_pruning_runs_with_its_own_graph_or_says_why_not(task: Task) -> None:
    pytest.importorskip("torch_pruning")
    found = compress_with("torch-pruning", task, silent)
    assert found.checkpoint.parameter_bytes() < task.checkpoint.parameter_bytes()
    assert forward_logits(found.checkpoint.model, torch.zeros(2, 3, 1, 16, 16)).shape == (3, 10)
    assert "inside attention left out" in found.reasons["torch-pruning"]
    assert torch.equal(
        task.checkpoint.model.state_dict()["head.weight"], found.checkpoint.model.state_dict()["head.weight"]
    )


def report(method: str, saving: float | None, **changes: Any) -> Compression:
    cost = Cost(parameter_bytes=4000, macs=4_000_000, synaptic_operations=1e6, latency_ms=2.0, peak_bytes=4 << 20)
    after = replace(cost, parameter_bytes=2000, macs=1_000_000, latency_ms=1.0, peak_bytes=2 << 20)
    told: dict[str, Any] = {
        "network": "net",
        "data": "digits",
        "method": method,
        "device": "a CPU",
        "max_drop": 3.0,
        "min_saving": 0.25,
        "validation_images": 10,
        "test_images": 20,
        "reasons": {},
    }
    if saving is not None:
        told |= {
            "memory_saving": saving,
            "before": cost,
            "after": after,
            "satisfied": True,
            "search_s": 7.0,
            "search_cpu_s": 6.0,
        }
        told |= {"accuracy_before": 90.0, "accuracy_after": 88.5, "points": (Point(saving=saving, lost=1.0),)}
    return Compression(**(told | changes))


def test_the_markdown_table_has_a_row_for_every_method_and_every_reason_below() -> None:
    results = [
        report("good", 0.5, accuracy_finetuned=89.75),
        report("short", 0.1, satisfied=False),
        report("absent", None, reasons={"memory_saving": "not installed"}),
    ]
    rows = [line for line in markdown(results).splitlines() if line.startswith(("| net |", "- "))]
    assert rows == [
        "| net | good | 50.0 % | 90.00 | 88.50 (-1.50) | 89.75 (-0.25) | 1.0 M (-75%) | 1.00 (2.00x) "
        "| 2.00 (2.00x) | 7 (6) |",
        "| net | short | 10.0 % (constraint missed) | 90.00 | 88.50 (-1.50) | - | 1.0 M (-75%) | 1.00 (2.00x) "
        "| 2.00 (2.00x) | 7 (6) |",
        "| net | absent | - | - | - | - | - | - | - | - |",
        "- net, absent: memory_saving: not installed",
    ]


def test_a_report_survives_its_json() -> None:
    for result in (report("good", 0.5), report("absent", None)):
        assert from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_the_speedup_that_the_search_predicted_stands_beside_the_measured_one(task: Task) -> None:
    found = compress_with("svitkit-latency", replace(task, min_saving=0.0), silent)
    assert found.predicted_speedup is not None
    assert found.predicted_speedup > 1
    cost = Cost(parameter_bytes=400, macs=1000, synaptic_operations=0.0, latency_ms=3.0)
    told = {"network": "n", "data": "d", "device": None, "max_drop": 3.0, "min_saving": 0.2}
    told |= {"validation_images": 9, "test_images": 9, "reasons": {}, "memory_saving": 0.5, "predicted_speedup": 1.9}
    result = Compression(method="svitkit-latency", before=cost, after=replace(cost, latency_ms=1.5), **told)
    assert "1.50 (2.00x), 1.90x predicted" in markdown([result])


def test_points_that_another_beats_are_left_out() -> None:
    points = [Point(saving=s, lost=y) for s, y in ((0.0, 0.0), (0.2, 1.0), (0.1, 2.0), (0.3, 1.0), (0.5, 4.0))]
    assert [(p.saving, p.lost) for p in pareto(points)] == [(0.0, 0.0), (0.3, 1.0), (0.5, 4.0)]


def test_the_picture_has_a_panel_for_every_network_and_a_colour_for_every_method(tmp_path: Path) -> None:
    results = [report("one", 0.5), report("two", 0.4), report("one", 0.3, network="other"), report("absent", None)]
    plot(tmp_path / "p.svg", results)
    drawn = (tmp_path / "p.svg").read_text()
    for text in ("one", "two", "net", "other"):
        assert f"<!-- {text} -->" in drawn


def test_the_test_split_is_not_shown_to_a_method() -> None:
    digits = load_data("digits")
    bench = bench_compress.Bench(
        network="net",
        checkpoint=SimpleNamespace(),  # type: ignore[arg-type]
        data=digits,
        accuracy=90.0,
        max_drop=3.0,
        min_saving=0.2,
        limit=7,
        epochs=0,
        rounds=1,
        work=Path(),
    )
    task = bench.task(Path())
    assert (len(task.data.train), len(task.data.validation), len(task.data.test)) == (len(digits.train), 7, 1)
