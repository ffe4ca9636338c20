from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_quantize
from benchmarks.exhaustive_bits import Combinations, search_exhaustively
from benchmarks.peers import UnavailableError
from benchmarks.quantizations import Quantization, from_dict
from benchmarks.quantize_methods import method_names
from benchmarks.quantize_views import markdown, plot
from svitkit.compress.aq4svit import AQ4SViTConfig, BitSearch, full_evaluations
from svitkit.compress.bits import BitPlan, blocks, set_bits
from svitkit.compress.journal import Measurement, plan_key
from svitkit.data import load_data
from svitkit.errors import RunError
from svitkit.models.checkpoint import save_checkpoint
from tests.compress.networks import firing_checkpoint, own_labels

LAYERS = ("stem.0.conv", "stem.1.conv", "blocks.0.qkv", "blocks.0.fc", "blocks.1.qkv", "blocks.1.fc", "head")
WEIGHTS = dict(zip(LAYERS, (100, 4000, 3000, 9000, 3000, 9000, 200), strict=True))
COSTS = dict(zip(LAYERS, (0.0, 9.0, 0.5, 0.1, 2.0, 0.1, 0.0), strict=True))
FLOORS = dict.fromkeys((LAYERS[0], LAYERS[-1]), 8)
FIGURES = (
    "memory_saving",
    "accuracy_before",
    "accuracy_after",
    "validation_before",
    "validation_after",
    "satisfied",
    "promised_bytes",
    "weights_bytes",
    "bundle_bytes",
    "peak_bytes",
    "latency_before_ms",
    "latency_ms",
    "full_evaluations",
    "bits",
    "search_s",
    "search_cpu_s",
)


def run(*arguments: str):
    app = Typer()
    app.command()(bench_quantize.main)
    return CliRunner().invoke(app, [*arguments])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint for digits: random weights, neurons that fire."""
    path = tmp_path_factory.mktemp("network") / "tiny"
    checkpoint = firing_checkpoint("spikformer", load_data("digits"))
    save_checkpoint(path, checkpoint.model, checkpoint.spec)
    return str(path)


@pytest.fixture(scope="module")
def lines(network: str) -> list[dict[str, Any]]:
    """What the benchmark prints of methods that do not search."""
    return measured(network, "fp32,int8,uniform-4")


def measured(network: str, methods: str) -> list[dict[str, Any]]:
    options = ["--max-drop", "100", "--limit", "16", "--rounds", "1", "--json"]
    result = run("--network", network, "--methods", methods, *options)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_method_prints_one_json_object_with_every_figure(lines: list[dict[str, Any]]) -> None:
    assert [line["method"] for line in lines] == ["fp32", "int8", "uniform-4"]
    for line in lines:
        assert all(line[key] is not None for key in FIGURES), line
        assert line["reasons"] == {}
        assert (line["validation_images"], line["test_images"], line["network"]) == (16, 360, "tiny")
        assert min(line["latency_ms"], line["latency_before_ms"], line["peak_bytes"], line["search_s"]) > 0
        assert line["bundle_bytes"] > line["weights_bytes"]
        assert (line["full_evaluations"], line["gated"], line["membranes"]) == (1, None, None)
    assert (lines[0]["memory_saving"], lines[0]["latency_ms"]) == (0.0, lines[0]["latency_before_ms"])
    assert lines[0]["accuracy_after"] == lines[0]["accuracy_before"] == lines[1]["accuracy_before"]


def test_fewer_bits_take_fewer_bytes_and_the_bundle_keeps_what_they_promise(lines: list[dict[str, Any]]) -> None:
    whole, eight, four = (line["weights_bytes"] for line in lines)
    assert four < eight < whole
    for line in lines:
        assert line["weights_bytes"] == pytest.approx(line["promised_bytes"], rel=0.1), line["method"]
        assert line["memory_saving"] == 1 - line["promised_bytes"] / lines[0]["promised_bytes"]
    layers = lines[0]["bits"]["32"]
    assert [line["bits"] for line in lines] == [{"32": layers}, {"8": layers}, {"4": layers - 2, "8": 2}]


def test_searches_say_what_they_looked_at_also_where_no_bundle_can_be_built(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RunError("no compiler")

    monkeypatch.setattr(bench_quantize, "run_in_turn", fail)
    greedy, best = measured(network, "aq4svit-greedy,exhaustive")
    for line in (greedy, best):
        assert line["reasons"] == {"weights_bytes": "RunError: no compiler"}
        assert (line["weights_bytes"], line["latency_ms"], line["floating_point"]) == (None, None, [])
        assert line["membranes"] == 4, "at any loss, everything is as narrow as can be"
        assert list(line["bits"]) == ["2", "8"]
    assert greedy["gated"] > 0
    assert (best["gated"], best["full_evaluations"]) == (0, 2), "the smallest network, and its narrowest membranes"
    assert best["promised_bytes"] == greedy["promised_bytes"]


def test_the_lines_are_read_tabulated_and_drawn(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    result = run("--read", str(tmp_path / "lines.jsonl"), "--markdown", "--plot", str(tmp_path / "p.svg"))
    assert result.exit_code == 0, result.output
    assert result.stdout.count("| tiny |") == 3
    drawn = (tmp_path / "p.svg").read_text()
    for line in lines:
        assert f"<!-- {line['method']} -->" in drawn
        assert json.loads(json.dumps(from_dict(line).to_dict())) == line


@pytest.mark.parametrize("arguments", [["--methods", "int8,uniform-3"], ["--network", "nothing"]])
def test_an_unknown_method_or_network_is_named_before_any_work(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert "error: unknown" in result.stderr
    assert arguments[1].split(",")[-1] in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{", '{"network": 1}', None])
def test_a_file_that_holds_no_such_lines_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "lines").write_text(content)
    result = run("--read", str(tmp_path / "lines"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert str(tmp_path / "lines") in result.stderr


def test_those_that_measure_very_many_candidates_run_only_if_named() -> None:
    assert set(method_names()) - set(bench_quantize.check_names(None)) == {"greedy-ungated", "exhaustive"}
    assert bench_quantize.check_names("fp32, exhaustive") == ["fp32", "exhaustive"]


def test_a_search_that_comes_to_no_end_is_null_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_data("digits")
    checkpoint = firing_checkpoint("spikformer", digits)
    save_checkpoint(tmp_path / "tiny", checkpoint.model, checkpoint.spec)
    labelled = own_labels(checkpoint, digits)
    monkeypatch.setattr("benchmarks.compress_subject.load_data", lambda *_, **__: labelled)
    monkeypatch.setattr("benchmarks.exhaustive_bits.search_exhaustively.__kwdefaults__", {"most": 2})
    options = ["--max-drop", "0", "--limit", "64", "--json"]
    result = run("--network", str(tmp_path / "tiny"), "--methods", "exhaustive", *options)
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert line["memory_saving"] is None
    assert "none of the smallest 2 of " in line["reasons"]["memory_saving"]


class Laboratory:
    """Measures by formula: every layer costs its own, four times as much for every bit less below 6."""

    def __init__(self, worst: float = 0.0, membrane: float = 0.0) -> None:
        self.measured: list[BitPlan] = []
        self.worst, self.membrane = worst, membrane

    def loss(self, plan: BitPlan) -> float:
        rounded = sum(COSTS[name] * 4.0 ** (6 - bits) / 256 for name, bits in plan.layers if bits < 6)
        return self.worst + rounded + (self.membrane if plan.membranes == 4 else 0.0)

    def size(self, plan: BitPlan) -> int:
        return sum(WEIGHTS[name] * bits for name, bits in plan.layers) // 8

    def each(self, plans: Sequence[BitPlan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        for plan in plans:
            self.measured.append(plan)
            lost = self.loss(plan)
            yield Measurement(key=plan_key(plan), accuracy=90.0 - lost, parameter_bytes=self.size(plan), drift=lost)

    def search(self, **settings: Any) -> BitSearch:
        return BitSearch(
            config=AQ4SViTConfig(max_drop=1.0, **settings),
            evaluator=self,
            gauge=self,
            size=self.size,
            baseline=Measurement(key="whole", accuracy=90.0, parameter_bytes=4 * sum(WEIGHTS.values())),
            images=10**12,
            original_bytes=4 * sum(WEIGHTS.values()),
            progress=lambda stage, done, total: None,
        )


def every_assignment(widths: Sequence[int] = (8, 6, 4, 3, 2)) -> set[BitPlan]:
    found = set()
    for chosen in product(widths, repeat=len(blocks(LAYERS))):
        plan = BitPlan(layers=tuple((name, 8) for name in LAYERS), membranes=16)
        for part, bits in zip(blocks(LAYERS), chosen, strict=True):
            plan = set_bits(plan, part.layers, bits, FLOORS)
        found.add(plan)
    return found


def test_every_combination_comes_once_and_the_smallest_first() -> None:
    laboratory = Laboratory()
    combinations = Combinations(LAYERS, AQ4SViTConfig(), laboratory.size)
    found = list(combinations)
    assert len(found) == len(set(found)) == len(combinations) == 5**3, "the ends are protected"
    assert set(found) == every_assignment()
    sizes = [laboratory.size(plan) for plan in found]
    assert sizes == sorted(sizes)


def test_a_block_with_a_protected_layer_has_every_width_that_makes_a_difference() -> None:
    layers = ("embed.conv", "embed.conv1", "head")
    size = {"embed.conv": 1, "embed.conv1": 10, "head": 1}
    config = AQ4SViTConfig(widths=(6, 2))
    found = list(Combinations(layers, config, lambda plan: sum(size[name] * bits for name, bits in plan.layers)))
    assert [plan.bits() for plan in found] == [{layers[0]: 8, layers[1]: bits, layers[2]: 8} for bits in (2, 6)]


def test_the_exhaustive_search_finds_the_smallest_network_of_all() -> None:
    laboratory = Laboratory()
    outcome = search_exhaustively(laboratory.search(), LAYERS)
    best = min(laboratory.size(plan) for plan in every_assignment() if laboratory.loss(plan) <= 1.0)
    greedy, beam = (Laboratory().search(beam_width=width).run(LAYERS) for width in (0, 4))
    assert outcome.measurement.parameter_bytes == best
    assert best <= min(greedy.measurement.parameter_bytes, beam.measurement.parameter_bytes)
    assert laboratory.loss(outcome.plan) <= 1.0
    assert outcome.satisfied
    assert full_evaluations(outcome.tried) == len(set(laboratory.measured))


@pytest.mark.parametrize(("membrane", "bits"), [(0.0, 4), (50.0, 8)])
def test_membranes_are_lowered_on_the_network_that_was_found(membrane: float, bits: int) -> None:
    outcome = search_exhaustively(Laboratory(membrane=membrane).search(), LAYERS)
    assert outcome.plan.membranes == bits
    assert {tried.plan.membranes for tried in outcome.tried if tried.level == "exhaustive"} == {16}


def test_membranes_that_are_float32_stay_so() -> None:
    outcome = search_exhaustively(Laboratory().search(membranes=()), LAYERS)
    assert outcome.plan.membranes is None
    assert outcome.satisfied


def test_where_the_smallest_lose_too_much_the_search_is_given_up_with_a_reason() -> None:
    laboratory = Laboratory(worst=50.0)
    with pytest.raises(UnavailableError, match="none of the smallest 20 of 125 combinations"):
        search_exhaustively(laboratory.search(), LAYERS, most=20)
    assert len(laboratory.measured) == 20


def test_where_all_combinations_lose_too_much_the_widest_is_kept_and_not_satisfied() -> None:
    outcome = search_exhaustively(Laboratory(worst=50.0).search(), LAYERS, most=125)
    assert outcome.plan == BitPlan(layers=tuple((name, 8) for name in LAYERS), membranes=16)
    assert not outcome.satisfied


def report(method: str, saving: float | None, **changes: Any) -> Quantization:
    told: dict[str, Any] = {
        "network": "net",
        "data": "digits",
        "method": method,
        "device": "a CPU",
        "max_drop": 1.5,
        "min_saving": 0.0,
        "validation_images": 10,
        "test_images": 20,
        "reasons": {},
    }
    if saving is not None:
        told |= {
            "memory_saving": saving,
            "accuracy_before": 90.0,
            "accuracy_after": 88.5,
            "satisfied": True,
            "promised_bytes": 2048,
            "weights_bytes": 2560,
            "bundle_bytes": 10240,
            "peak_bytes": 4 << 20,
            "latency_before_ms": 3.0,
            "latency_ms": 1.5,
            "full_evaluations": 9,
            "bits": {"2": 3, "8": 2},
            "floating_point": ("a",),
            "search_s": 7.0,
            "search_cpu_s": 6.0,
        }
    return Quantization(**(told | changes))


def test_the_markdown_table_has_a_row_for_every_method_and_every_reason_below() -> None:
    gate = {"gated": 40, "rank_correlation": 0.875, "audited": 3, "wrongly_rejected": 1, "membranes": 8}
    results = [
        report("good", 0.9, **gate),
        report("short", 0.5, satisfied=False),
        report("absent", None, reasons={"memory_saving": "none of the smallest"}),
    ]
    rows = [line for line in markdown(results).splitlines() if line.startswith(("| net |", "- "))]
    assert rows == [
        "| net | good | 2.5 | 2.0 | 10.0 | 88.50 (-1.50) | 3x2 2x8 | 8 | 1 | 1.50 (2.00x) | 4.00 | 9 (40) "
        "| 0.88, 1 of 3 | 7 (6) |",
        "| net | short (constraint missed) | 2.5 | 2.0 | 10.0 | 88.50 (-1.50) | 3x2 2x8 | float32 | 1 | 1.50 (2.00x) "
        "| 4.00 | 9 | - | 7 (6) |",
        "| net | absent | - | - | - | - | - | - | - | - | - | - | - | - |",
        "- net, absent: memory_saving: none of the smallest",
    ]


def test_a_report_survives_its_json() -> None:
    for result in (report("good", 0.5), report("absent", None)):
        assert from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_the_picture_has_a_panel_for_every_network_and_a_marker_for_every_method(tmp_path: Path) -> None:
    results = [report("one", 0.5), report("two", 0.4), report("one", 0.3, network="other"), report("absent", None)]
    plot(tmp_path / "p.svg", results)
    drawn = (tmp_path / "p.svg").read_text()
    for text in ("one", "two", "absent", "net", "other"):
        assert f"<!-- {text} -->" in drawn
