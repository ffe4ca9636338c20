"""Fits the costs of work (runtime/cost_tables.py) of a CPU model: cycles of each kind, from layers of many shapes.

    python benchmarks/fit_costs.py --cpu x86-64-v4 [--rounds 15] [--json]

Every layer is computed by rows and densely at several firing rates. For a CPU whose code this machine runs, the kernel
calls are timed here, and the costs say how fast *this* machine is. Least squares over the relative errors then give
every kind of work a cost that is not negative. Printed is the entry of the table, with how well it fits.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from scipy.optimize import nnls

from benchmarks.cost_grid import RATES, SHAPES, GridLayer, drive, grid_layers, layer_graph
from benchmarks.measure_calls import load_player, time_in_turn
from svitkit.boards.board import Board, load_board, read_cpus
from svitkit.errors import SvitError, unknown_name
from svitkit.runtime.cost_model import CostModel, Method
from svitkit.runtime.cost_tables import COSTS
from svitkit.runtime.device_state import read_device_name
from svitkit.runtime.host_clock import measure_clock_mhz
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.program import Program
from svitkit.runtime.vector_unit import VectorUnit, vector_unit
from svitkit.runtime.work_counts import Counts

METHODS: tuple[Method, ...] = ("rows", "dense")
IMAGES = 2


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A kernel call: what it did, and the cycles that it took."""

    kernel: str
    counts: Counts
    cycles: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Costs, and how far the cycles that they predict are from those observed.

    Attributes:
        cycles: cycles of one, by kind of work.
        errors: kernel -> |predicted / observed - 1| of its calls.
    """

    cycles: dict[str, float]
    errors: dict[str, list[float]]


def board_of(cpu: str) -> Board:
    """This machine, with code for another model of its kind."""
    name = f"{cpu}-vnni" if f"{cpu}-vnni" in read_cpus() else cpu
    model = read_cpus()[name]
    host = load_board("host")
    if model.triple != host.triple or not set(model.features) <= set(host.cpu_features):
        raise unknown_name("CPU model that this machine can time", cpu, [host.mcpu])
    return replace(host, mcpu=cpu, llvm_features=model.llvm_features, required_features=model.features)


def observe(cpu: str, rounds: int) -> Iterator[Observation]:
    """Times the layers of the grid, with every variant of kernel that the CPU has."""
    board, hz = board_of(cpu), measure_clock_mhz() * 1e6
    unit = vector_unit(board)
    plain = replace(unit, dot=None, search="table")
    for layer in grid_layers(SHAPES):
        for each in dict.fromkeys((unit, plain)):
            players = {rate: lowered(layer, rate, each, cpu) for rate in RATES}
            loaded = {method: load_player(players[RATES[0]][method], board) for method in METHODS}
            for rate in RATES:
                seconds = time_in_turn(list(loaded.values()), drive(layer, rate, IMAGES), rounds)
                for method, taken in zip(METHODS, seconds, strict=True):
                    for chosen in players[rate][method].kernels:
                        if chosen.counts:
                            cycles = float(taken[chosen.call]) * hz
                            yield Observation(kernel=chosen.kernel, counts=chosen.counts, cycles=cycles)
        print(f"{layer}", file=sys.stderr)


def lowered(layer: GridLayer, rate: float, unit: VectorUnit, cpu: str) -> dict[Method, Program]:
    """Lowers a layer by both methods."""
    costs = CostModel(table=COSTS[cpu], clock_mhz=None)
    graph = layer_graph(layer, rate)
    return {method: lower(graph, unit=unit, costs=costs, parts=1, prefer=method) for method in METHODS}


def fit(observations: list[Observation]) -> Fit:
    """Finds costs, none below 0, with the least sum of squared relative errors."""
    seen = [each for each in observations if each.cycles > 0]
    names = sorted({name for each in seen for name, count in each.counts.items() if count})
    shares = np.array([[each.counts.get(name, 0.0) / each.cycles for name in names] for each in seen])
    scale = shares.max(axis=0)
    found, _ = nnls(shares / scale, np.ones(len(seen)), maxiter=50 * len(names))
    errors: dict[str, list[float]] = {}
    for each, predicted in zip(seen, shares @ (found / scale), strict=True):
        errors.setdefault(each.kernel, []).append(abs(float(predicted) - 1.0))
    return Fit(cycles=dict(zip(names, (found / scale).tolist(), strict=True)), errors=errors)


def main(
    cpu: Annotated[str, typer.Option(help="CPU model, of this machine's kind.")] = "x86-64-v4",
    rounds: Annotated[int, typer.Option(help="How often each call is timed.", min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Prints the costs."""
    try:
        fitted = fit(list(observe(cpu, rounds)))
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    errors = {name: (float(np.median(each)), float(np.quantile(each, 0.9))) for name, each in fitted.errors.items()}
    device = read_device_name()
    if as_json:
        print(json.dumps({"cpu": cpu, "device": device, "cycles": fitted.cycles, "errors": errors}))
        return
    print(f"# measured on {device}; error of a call: {', '.join(f'{k} {a:.0%}' for k, (a, _) in errors.items())}")
    for name, cycles in fitted.cycles.items():
        print(f'            "{name}": {cycles:.3g},')


if __name__ == "__main__":
    typer.run(main)
