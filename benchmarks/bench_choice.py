"""Whether the method chosen for each layer is the faster one: both are built and timed on this machine.

    python benchmarks/bench_choice.py --network spikformer-4-384 --rate 0.15 [--precision fp32] [--rounds 15] [--json]

The network is lowered twice, by rows wherever that is possible and densely; both programs run in turn in one process on
the same images, and every kernel call is timed. The lists of events count for the first layer that reads them. The
regret of a choice is what it costs more than the other method would have, as measured.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.estimate_arm import PRECISIONS, prepare
from benchmarks.measure_calls import load_player, time_in_turn
from svitkit.boards.board import Board, load_board
from svitkit.errors import SvitError
from svitkit.runtime.cost_model import Method, cost_model
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.program import Program
from svitkit.runtime.vector_unit import vector_unit

METHODS: tuple[Method, ...] = ("rows", "dense")


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """One layer that both methods can compute; times of one inference, lists included.

    Attributes:
        layer: its name.
        input_density: share of its inputs that are expected not to be 0.
        predicted_ns, measured_ns: by method.
        chosen: the method with the least predicted time, which a build takes.
    """

    layer: str
    input_density: float
    predicted_ns: dict[Method, float]
    measured_ns: dict[Method, float]
    chosen: Method

    @property
    def regret_ns(self) -> float:
        """What the choice costs more than the faster method."""
        return self.measured_ns[self.chosen] - min(self.measured_ns.values())


@dataclass(frozen=True, kw_only=True)
class Times:
    """Predicted and measured times of the layers of one program, by layer; lists belong to their first reader."""

    kernels: dict[str, str]
    densities: dict[str, float | None]
    predicted_ns: dict[str, float]
    measured_ns: dict[str, float]


def compare(onnx: Path, board: Board, inputs: NDArray[np.float32], rounds: int) -> list[LayerChoice]:
    """Times both methods for every layer of a network that has the choice.

    Args:
        onnx: a file that ``svitkit export`` wrote.
        board: this machine.
        inputs: (N, *input shape) float32.
        rounds: how often every call is timed.
    """
    graph, unit, costs = import_onnx(onnx), vector_unit(board), cost_model(board)
    programs = {method: lower(graph, unit=unit, costs=costs, parts=1, prefer=method) for method in METHODS}
    default = lower(graph, unit=unit, costs=costs, parts=1)
    seconds = time_in_turn([(load_player(program, board), inputs) for program in programs.values()], rounds)
    times = {
        method: layer_times(program, taken) for (method, program), taken in zip(programs.items(), seconds, strict=True)
    }
    chosen = {each.layer: each.kernel for each in default.kernels}
    return [
        LayerChoice(
            layer=layer,
            input_density=density,
            predicted_ns={method: times[method].predicted_ns[layer] for method in METHODS},
            measured_ns={method: times[method].measured_ns[layer] for method in METHODS},
            chosen="rows" if chosen[layer].startswith("event") else "dense",
        )
        for layer, density in times["rows"].densities.items()
        if density is not None and times["rows"].kernels[layer] != times["dense"].kernels[layer]
    ]


def layer_times(program: Program, seconds: Sequence[float] | NDArray[np.float64]) -> Times:
    """Sums the calls of a program by layer.

    Args:
        program: a program for a board whose clock is known.
        seconds: (calls,) of every call.
    """
    times = Times(kernels={}, densities={}, predicted_ns={}, measured_ns={})
    waiting = (0.0, 0.0)  # of the lists that the next layer is the first to read
    for each in program.kernels:
        if each.predicted_ns is None or not each.counts:
            continue
        predicted, measured = waiting[0] + each.predicted_ns, waiting[1] + float(seconds[each.call]) * 1e9
        waiting = (predicted, measured) if each.kernel == "list" else (0.0, 0.0)
        if each.kernel != "list":
            times.kernels[each.layer], times.densities[each.layer] = each.kernel, each.input_density
            times.predicted_ns[each.layer], times.measured_ns[each.layer] = predicted, measured
    return times


def summary(layers: Sequence[LayerChoice]) -> dict[str, float]:
    """Sums the layers up.

    Returns:
        Times in ns of the choices, of the faster method everywhere and of each method everywhere; the regret as a share
        of the fastest; how many choices were right; and the rank correlation of predicted and measured times.
    """
    best = sum(min(layer.measured_ns.values()) for layer in layers)
    regret = sum(layer.regret_ns for layer in layers)
    predicted = [layer.predicted_ns[method] for layer in layers for method in METHODS]
    measured = [layer.measured_ns[method] for layer in layers for method in METHODS]
    return {
        "chosen_ns": best + regret,
        "best_ns": best,
        **{f"{method}_ns": sum(layer.measured_ns[method] for layer in layers) for method in METHODS},
        "predicted_ns": sum(layer.predicted_ns[layer.chosen] for layer in layers),
        "regret_ns": regret,
        "regret_share": regret / best if best else 0.0,
        "right": sum(layer.regret_ns == 0 for layer in layers),
        "layers": len(layers),
        "rank_correlation": rank_correlation(predicted, measured),
    }


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's coefficient: 1 where both have the same order; 0 where one has none."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(a) > 1 else 0.0


def print_table(title: str, layers: Sequence[LayerChoice], totals: dict[str, float]) -> None:
    """Prints one row a layer, times in us: predicted and measured by both methods."""
    heads = ("layer", "active", "rows", "measured", "dense", "measured", "chosen", "regret")
    table = Table(*heads, title=title, show_footer=False)
    for layer in layers:
        times = [f"{ns[method] / 1e3:.1f}" for method in METHODS for ns in (layer.predicted_ns, layer.measured_ns)]
        table.add_row(layer.layer, f"{layer.input_density:.1%}", *times, layer.chosen, f"{layer.regret_ns / 1e3:.1f}")
    console = Console(width=max(Console().width, 120))
    console.print(table)
    console.print(
        f"chosen {totals['chosen_ns'] / 1e6:.3f} ms (predicted {totals['predicted_ns'] / 1e6:.3f}), fastest "
        f"{totals['best_ns'] / 1e6:.3f}, all by rows {totals['rows_ns'] / 1e6:.3f}, all dense "
        f"{totals['dense_ns'] / 1e6:.3f}; regret {totals['regret_share']:.1%}, {totals['right']:.0f} of "
        f"{totals['layers']:.0f} right, rank correlation {totals['rank_correlation']:.3f}"
    )


def main(
    network: Annotated[str, typer.Option(help="A network of the benchmarks or of the zoo.")] = "digits-spikformer",
    rate: Annotated[float | None, typer.Option(help="Firing rate of a random network.")] = None,
    precision: Annotated[str, typer.Option(help=f"Of the weights: {', '.join(PRECISIONS)}.")] = PRECISIONS[0],
    images: Annotated[int, typer.Option(help="Inputs that are taken in turn.", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="How often every call is timed.", min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Prints a table, or one JSON object."""
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as work:
            ready = prepare(network, rate, images, precision, Path(work))
            layers = compare(ready.onnx, load_board("host"), ready.inputs, rounds)
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    totals = summary(layers)
    if as_json:
        rows = [{**asdict(layer), "regret_ns": layer.regret_ns} for layer in layers]
        named = {"network": network, "rate": rate, "mean_rate": ready.mean_rate, "precision": precision}
        print(json.dumps({**named, **totals, "choices": rows}))
    else:
        print_table(f"{network} {precision}, layers fire at {ready.mean_rate:.3f}; us", layers, totals)


if __name__ == "__main__":
    typer.run(main)
