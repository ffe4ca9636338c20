"""Fits the costs of work (runtime/cost_tables.py) of a CPU model: cycles of each kind, from layers of many shapes.

    python benchmarks/fit_costs.py --cpu x86-64-v4 [--rounds 15] [--json]

Every layer is computed by rows and densely at several firing rates. For a CPU whose code this machine runs, the kernel
calls are timed here, and the costs say how fast *this* machine is. For other cores small layers are estimated, as by
estimate_arm.py: their data lie in the first-level cache, so that no cost of memory comes out of it. Least squares over
the relative errors then give every kind of work a cost that is not negative. Printed is the entry of the table, with
how well it fits.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from scipy.optimize import nnls

from benchmarks.block_counts import board_for, count_compiled
from benchmarks.cost_grid import KINDS, RATES, SHAPES, SMALL_SHAPES, GridLayer, Kind, drive, grid_layers, layer_graph
from benchmarks.estimate_arm import CORES, call_costs
from benchmarks.mca import mca_version
from benchmarks.measure_calls import load_player, time_in_turn
from svitkit.boards.board import Board, load_board, read_cpus
from svitkit.errors import SvitError, unknown_name
from svitkit.runtime.cost_model import CostModel, Method
from svitkit.runtime.cost_tables import COSTS
from svitkit.runtime.device_state import read_device_name
from svitkit.runtime.host_clock import measure_clock_mhz
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.pipeline import Compiled
from svitkit.runtime.program import Program
from svitkit.runtime.vector_unit import VectorUnit, vector_unit
from svitkit.runtime.work_counts import Counts

METHODS: tuple[Method, ...] = ("rows", "dense")
IMAGES = 2
ESTIMATE_RATE = 0.15
# Cycles of a cache line, of which estimates know nothing: 16 bytes a cycle from the second-level cache, 5 from memory.
ASSUMED_LINES = {"rows.l2_line": 4.0, "dense.l2_line": 4.0, "rows.l3_line": 12.0, "weights.line": 12.0}


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
    for each in dict.fromkeys((unit, plain)):
        for kind in KINDS:
            yield from _observe_kind(cpu, kind, each, rounds, board=board, hz=hz)


def _observe_kind(
    cpu: str, kind: Kind, unit: VectorUnit, rounds: int, *, board: Board, hz: float
) -> Iterator[Observation]:
    cases = [(layer, method) for layer in grid_layers(kind, SHAPES) for method in METHODS]
    players = [load_player(lowered(layer, RATES[0], unit, cpu, method), board) for layer, method in cases]
    for rate in RATES:
        inputs = [drive(layer, rate, IMAGES) for layer, _ in cases]
        seconds = time_in_turn(list(zip(players, inputs, strict=True)), rounds)
        for (layer, method), taken in zip(cases, seconds, strict=True):
            for chosen in lowered(layer, rate, unit, cpu, method).kernels:
                if chosen.counts:
                    cycles = float(taken[chosen.call]) * hz
                    yield Observation(kernel=chosen.kernel, counts=chosen.counts, cycles=cycles)
    print(f"{kind}, lists by {unit.search}, {unit.dot}", file=sys.stderr)


def estimate(core: str) -> Iterator[Observation]:
    """Estimates small layers of the grid on a core that is not here, from the machine code and its runs under qemu."""
    board = board_for(core)
    for kind in KINDS:
        for layer in grid_layers(kind, SMALL_SHAPES):
            for method in METHODS:
                program = lowered(layer, ESTIMATE_RATE, vector_unit(board), board.mcpu, method)
                yield from _estimate_calls(program, layer, board, core)
        print(f"{core}, {kind}", file=sys.stderr)


def _estimate_calls(program: Program, layer: GridLayer, board: Board, core: str) -> Iterator[Observation]:
    compiled = Compiled(layer_graph(layer, ESTIMATE_RATE), program, plan_memory(program))
    with tempfile.TemporaryDirectory() as work:
        counted = count_compiled(compiled, board, drive(layer, ESTIMATE_RATE, IMAGES), Path(work))
    costs = call_costs(counted, board.triple, CORES[core])
    for chosen in program.kernels:
        if chosen.counts:
            yield Observation(kernel=chosen.kernel, counts=chosen.counts, cycles=costs[chosen.call].cost.cycles)


def lowered(layer: GridLayer, rate: float, unit: VectorUnit, cpu: str, method: Method) -> Program:
    """Lowers a layer by one method."""
    costs = CostModel(table=COSTS[cpu], clock_mhz=None)
    return lower(layer_graph(layer, rate), unit=unit, costs=costs, parts=1, prefer=method)


def fit(observations: list[Observation], known: Mapping[str, float] | None = None) -> Fit:
    """Finds costs, none below 0, with the least sum of squared relative errors.

    Args:
        observations: at least as many as there are kinds of work.
        known: costs that are taken as they are, of work that the observations do not show.
    """
    known = known or {}
    seen = [each for each in observations if each.cycles > 0]
    names = sorted({name for each in seen for name, count in each.counts.items() if count} - set(known))
    shares = np.array([[each.counts.get(name, 0.0) / each.cycles for name in names] for each in seen])
    scale = shares.max(axis=0)
    found, _ = nnls(shares / scale, np.ones(len(seen)), maxiter=50 * len(names))
    errors: dict[str, list[float]] = {}
    for each, predicted in zip(seen, shares @ (found / scale), strict=True):
        errors.setdefault(each.kernel, []).append(abs(float(predicted) - 1.0))
    return Fit(cycles={**dict(zip(names, (found / scale).tolist(), strict=True)), **known}, errors=errors)


def main(
    cpu: Annotated[
        str, typer.Option(help="CPU model of this machine's kind, or a core for an estimate.")
    ] = "x86-64-v4",
    rounds: Annotated[int, typer.Option(help="How often each call is timed.", min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Prints the costs."""
    try:
        fitted = fit(list(estimate(cpu)), ASSUMED_LINES) if cpu in CORES else fit(list(observe(cpu, rounds)))
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    errors = {name: (float(np.median(each)), float(np.quantile(each, 0.9))) for name, each in fitted.errors.items()}
    device = f"llvm-mca {mca_version()}" if cpu in CORES else str(read_device_name())
    if as_json:
        print(json.dumps({"cpu": cpu, "device": device, "cycles": fitted.cycles, "errors": errors}))
        return
    print(f"# measured on {device}; error of a call: {', '.join(f'{k} {a:.0%}' for k, (a, _) in errors.items())}")
    for name, cycles in fitted.cycles.items():
        print(f'            "{name}": {cycles:.3g},')


if __name__ == "__main__":
    typer.run(main)
