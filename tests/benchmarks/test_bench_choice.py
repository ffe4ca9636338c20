"""The benchmark of the choice: sums by hand, and the whole on a small network."""

from __future__ import annotations

import json

import pytest

from benchmarks import bench_choice
from benchmarks.bench_choice import LayerChoice, layer_times, rank_correlation, summary
from svitkit.runtime.program import Chosen, Program
from svitkit.runtime.view import Buffer

QUIET = LayerChoice(
    layer="quiet",
    input_density=0.05,
    predicted_ns={"rows": 10.0, "dense": 30.0},
    measured_ns={"rows": 12.0, "dense": 40.0},
    chosen="rows",
)
WRONG = LayerChoice(
    layer="wrong",
    input_density=0.5,
    predicted_ns={"rows": 20.0, "dense": 25.0},
    measured_ns={"rows": 35.0, "dense": 28.0},
    chosen="rows",
)


def test_regret_is_what_the_choice_costs_more_than_the_faster_method() -> None:
    assert (QUIET.regret_ns, WRONG.regret_ns) == (0.0, 7.0)
    totals = summary([QUIET, WRONG])
    assert (totals["chosen_ns"], totals["best_ns"], totals["rows_ns"], totals["dense_ns"]) == (47.0, 40.0, 47.0, 68.0)
    assert totals["predicted_ns"] == 30.0
    assert totals["regret_share"] == pytest.approx(7 / 40)
    assert (totals["right"], totals["layers"]) == (1, 2)


def test_ranks_agree_where_the_order_is_the_same() -> None:
    assert rank_correlation([1.0, 5.0, 2.0], [10.0, 90.0, 30.0]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 5.0, 2.0], [9.0, 1.0, 3.0]) == pytest.approx(-1.0)
    assert rank_correlation([1.0], [1.0]) == 0.0


def test_lists_count_for_the_first_layer_that_reads_them() -> None:
    buffer = Buffer("x", "float32", (1,))
    kernels = [
        Chosen(
            layer=layer,
            kernel=kernel,
            reason="",
            call=call,
            input_density=0.1,
            counts={} if kernel == "lif" else {"call": 1.0},
            predicted_ns=None if kernel == "lif" else 10.0 * call,
        )
        for call, (layer, kernel) in enumerate(
            [("neurons", "lif"), ("x", "list"), ("first", "event_matmul"), ("second", "event_matmul")]
        )
    ]
    times = layer_times(Program(buffer, buffer, kernels=kernels), [1e-9, 2e-9, 3e-9, 4e-9])
    assert times.predicted_ns == {"first": 30.0, "second": 30.0}
    assert times.measured_ns == pytest.approx({"first": 5.0, "second": 4.0})


def test_a_network_is_compared_layer_by_layer(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench_choice.main(network=tiny, rate=0.2, precision="int8", images=2, rounds=2, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["layers"] == len(result["choices"]) > 3
    assert result["best_ns"] <= result["chosen_ns"] <= result["best_ns"] + result["regret_ns"] + 1e-6
    for layer in result["choices"]:
        assert min(*layer["measured_ns"].values(), *layer["predicted_ns"].values()) > 0
        assert layer["chosen"] == min(layer["predicted_ns"], key=layer["predicted_ns"].get)
        assert 0 < layer["input_density"] < 1
    bench_choice.print_table(
        "tiny",
        [LayerChoice(**{k: v for k, v in layer.items() if k != "regret_ns"}) for layer in result["choices"]],
        result,
    )
    assert "rank correlation" in " ".join(capsys.readouterr().out.split())
