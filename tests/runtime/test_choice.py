"""The choice of kernels: the method that costs least, with the grounds written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cost_grid import KINDS, GridLayer, Kind, layer_graph
from svitkit.boards.board import Board, board_names, load_board, read_cpus
from svitkit.errors import UnsupportedError
from svitkit.runtime.cost_model import CostModel, Method, cost_model, decide
from svitkit.runtime.cost_tables import COSTS
from svitkit.runtime.density import Density, spikes
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.program import Chosen
from svitkit.runtime.vector_unit import vector_unit

HERE = CostModel(table=COSTS["x86-64-v4"], clock_mhz=2000.0)
SOME = Density((0.96, 0.04))


def board_of(cpu: str) -> Board:
    """A board with a CPU model, its clock unknown."""
    model = read_cpus()[cpu]
    board = load_board("qemu-cortex-a72")
    return replace(board, mcpu=model.model or cpu, triple=model.triple, required_features=model.features)


def choices(cpu: str, kind: Kind, rate: float | None, prefer: Method | None = None) -> list[Chosen]:
    """What is written down about a layer of 384 to 384 channels over 8x8 positions and its lists."""
    board = board_of(cpu)
    graph = layer_graph(GridLayer(kind=kind, inputs=384, outputs=384, side=8, kernel=1), 0.5)
    (layer,) = graph.metadata.lif_layers
    graph = replace(graph, metadata=replace(graph.metadata, lif_layers=(replace(layer, firing_rate=rate),)))
    costs = CostModel(table=COSTS[board.mcpu], clock_mhz=2000.0)
    program = lower(graph, unit=vector_unit(board), costs=costs, parts=1, prefer=prefer)
    return [each for each in program.kernels if each.counts]


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_a_quiet_layer_adds_rows_and_a_busy_one_is_dense(kind: Kind) -> None:
    quiet, busy = choices("x86-64-v4-vnni", kind, 0.05), choices("x86-64-v4-vnni", kind, 0.6)
    assert [each.kernel.split("_")[0] for each in quiet] == ["list", "event"]
    assert [each.kernel.split("_")[0] for each in busy] == ["dot" if kind == "int8" else "dense"]


def test_the_reason_names_the_rate_and_what_both_methods_cost() -> None:
    cycles: dict[Method, float] = {"rows": 240_000.0, "dense": 620_000.0}
    decision = decide(HERE, cycles, SOME, None)
    assert (decision.method, decision.reason) == ("rows", "4% of inputs active: rows 0.12 ms, dense 0.31 ms")
    unclocked = decide(replace(HERE, clock_mhz=None), cycles, replace(SOME, assumed=True), None)
    assert unclocked.reason == "4% of inputs active, assumed: rows 0.24 M cycles, dense 0.62 M cycles"


def test_a_method_that_is_asked_for_is_taken_where_it_can_be() -> None:
    cycles: dict[Method, float] = {"rows": 1.0, "dense": 2.0}
    assert decide(HERE, cycles, SOME, "dense").method == "dense"
    assert decide(HERE, cycles, SOME, "dense").reason.startswith("asked for; 4% of inputs")
    assert decide(HERE, {"dense": 2.0}, None, "rows").method == "dense"


def test_predictions_are_those_of_the_counts_and_the_clock() -> None:
    lists, layer = choices("x86-64-v4-vnni", "int8", 0.05)
    assert layer.predicted_ns == pytest.approx(HERE.cycles(layer.counts) / 2.0)
    assert lists.predicted_ns == pytest.approx(HERE.cycles(lists.counts) / 2.0)
    assert layer.input_density == pytest.approx(0.05)
    (busier,) = [each for each in choices("x86-64-v4-vnni", "int8", 0.1, "rows") if each.kernel != "list"]
    assert busier.predicted_ns is not None
    assert busier.predicted_ns > layer.predicted_ns


def test_a_layer_whose_rate_is_missing_is_chosen_by_the_assumed_one() -> None:
    *_, layer = choices("x86-64-v4-vnni", "fp32", None)
    assert layer.input_density == pytest.approx(spikes(None).active)
    assert "assumed" in layer.reason


@pytest.mark.parametrize("cpu", read_cpus())
def test_every_cpu_model_has_costs_for_every_kernel_that_it_can_run(cpu: str) -> None:
    for kind in KINDS:
        for prefer in ("rows", "dense"):
            assert all((each.predicted_ns or 0) > 0 for each in choices(cpu, kind, 0.15, prefer))


@pytest.mark.parametrize("name", board_names())
def test_every_board_has_a_cost_model_and_those_with_a_clock_predict_times(name: str) -> None:
    board = load_board(name)
    model = cost_model(board)
    assert (model.nanoseconds(1e6) is None) == board.emulated


def test_a_cpu_without_costs_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"no costs for the CPU model 'z80'.*fit_costs"):
        cost_model(replace(load_board("raspberry-pi-4"), mcpu="z80"))


def test_lists_that_another_layer_asked_for_cost_nothing_more() -> None:
    graph = layer_graph(GridLayer(kind="fp32", inputs=64, outputs=64, side=4, kernel=1), 0.05)
    conv = next(node for node in graph.nodes if node.op == "Conv")
    second = replace(conv, name="second", inputs=("frames", "w2"), outputs=("second",))
    total = replace(conv, op="Add", name="total", inputs=("second", "current"), outputs=("total",), attributes={})
    nodes = []
    for node in graph.nodes:
        nodes.append(node if node.name != "layer" else replace(node, inputs=("total", "back")))
        if node.name == "current":
            nodes += [second, total]
    nodes.sort(key=lambda node: node.name in ("layer", "spikes", "logits"))
    graph = replace(graph, nodes=tuple(nodes), constants={**graph.constants, "w2": graph.constants["w"]})
    program = lower(graph, unit=vector_unit(board_of("cortex-a72")), costs=HERE, parts=1, prefer="rows")
    first, *rest = [each for each in program.kernels if each.kernel.startswith("event")]
    assert [each.kernel for each in program.kernels].count("list") == 1
    assert all(first.reason != each.reason for each in rest)
