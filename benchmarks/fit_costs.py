"""Fits the costs of work (runtime/cost_tables.py) of a CPU model: cycles of each kind, from the calls of many networks.

    python benchmarks/fit_costs.py --cpu x86-64-v4 [--rounds 8] [--keep DIR] [--json]

For a CPU whose code this machine runs, whole networks are compiled, once by rows and once densely, and svit-run times
their kernel calls; the costs say how fast *this* machine is. Of several rounds the fastest counts: what disturbs a call
only makes it longer. For other cores small networks and layers are estimated, as by estimate_arm.py: their data lie in
the first-level cache, so that no cost of memory comes out of it. Least squares over the relative errors, calls weighted
by their share of an inference, then give every kind of work a cost that is not negative. Printed is the entry of the
table, with how well it fits. ``--keep`` leaves programs, times and estimates in a folder, and takes what is there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.block_counts import board_for, count_compiled
from benchmarks.cost_grid import KINDS, SMALL_SHAPES, drive, grid_layers, layer_graph
from benchmarks.cost_networks import COST_NETWORKS, FLOAT, SMALL_NETWORKS, CostNetwork
from benchmarks.estimate_arm import CORES, call_costs
from benchmarks.mca import mca_version
from benchmarks.network_files import file_inputs
from benchmarks.program_files import profile_calls, write_inputs, write_program
from svitkit.boards.board import Board, load_board, read_cpus
from svitkit.errors import SvitError, unknown_name
from svitkit.export.pipeline import export_onnx
from svitkit.runtime.bench.device_state import read_device_name
from svitkit.runtime.cost_model import CostModel, Method
from svitkit.runtime.cost_tables import COSTS
from svitkit.runtime.host_clock import measure_clock_mhz
from svitkit.runtime.import_onnx import Graph, import_onnx
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.pipeline import Compiled, compile_kernels
from svitkit.runtime.prediction import count_calls
from svitkit.runtime.program import Program
from svitkit.runtime.vector_unit import VectorUnit, vector_unit
from svitkit.runtime.work_counts import Counts

METHODS: tuple[Method, ...] = ("rows", "dense")
IMAGES = 2
ESTIMATE_RATE = 0.15
MIN_TIME_S = 0.15
# Weight of a call that takes no time, beside its share: small calls count a little too.
LEAST_WEIGHT = 0.01
# Cycles of a cache line, of which estimates know nothing: 16 bytes a cycle from the second-level cache, 5 from memory.
ASSUMED_LINES = {"rows.l2_line": 4.0, "dense.l2_line": 4.0, "rows.l3_line": 12.0, "weights.line": 12.0}
Frames = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A kernel call: what it did, and the cycles that it took.

    Attributes:
        program: that it belongs to.
        kernel: its kernel.
        counts: its work.
        cycles: as timed or estimated.
        share: of the cycles of its program, 0..1.
    """

    program: str
    kernel: str
    counts: Counts
    cycles: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Costs, and how far the cycles that they predict are from those observed.

    Attributes:
        cycles: cycles of one, by kind of work.
        errors: kernel -> |predicted / observed - 1| of its calls.
        program_errors: program -> predicted / observed - 1 of the sum of its calls.
    """

    cycles: dict[str, float]
    errors: dict[str, list[float]]
    program_errors: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A program that lies compiled in a folder, with its inputs."""

    program: Program
    folder: Path
    inputs: int


def board_of(cpu: str) -> Board:
    """This machine, with code for another model of its kind."""
    name = f"{cpu}-vnni" if f"{cpu}-vnni" in read_cpus() else cpu
    model = read_cpus()[name]
    host = load_board("host")
    if model.triple != host.triple or not set(model.features) <= set(host.cpu_features):
        raise unknown_name("CPU model that this machine can time", cpu, [host.mcpu])
    return replace(host, mcpu=cpu, llvm_features=model.llvm_features, required_features=model.features)


def observe(cpu: str, rounds: int, work: Path) -> Iterator[Observation]:
    """Times the calls of the networks, by every method and with every variant of kernel that the CPU has."""
    board, cycles_per_ns = board_of(cpu), measure_clock_mhz() / 1e3
    unit = vector_unit(board)
    plain = replace(unit, dot=None, search="table")
    compilations = [
        compile_once(network, method, each, board, work)
        for network in COST_NETWORKS
        for each in dict.fromkeys((unit, unit if network.precision == FLOAT else plain))
        for method in METHODS
    ]
    for each, nanoseconds in zip(compilations, fastest_rounds(compilations, rounds), strict=True):
        yield from observations(each.folder.name, each.program, cpu, nanoseconds * cycles_per_ns)


def compile_once(network: CostNetwork, method: Method, unit: VectorUnit, board: Board, work: Path) -> Compilation:
    """Lowers a network, and compiles it unless that was done before."""
    graph, inputs = load_graph(network, work)
    program = lowered(graph, unit, board.mcpu, method)
    folder = work / "_".join((board.mcpu, network.name, method, unit.search, str(unit.dot)))
    if not (folder / "model.so").exists():
        folder.mkdir(exist_ok=True)
        write_program(Compiled(graph, program, plan_memory(program)), board, folder)
        write_inputs(inputs, folder)
        compile_kernels(program, board, folder / "part.so")
        (folder / "part.so").rename(folder / "model.so")
        print(f"compiled {folder.name}", file=sys.stderr)
    return Compilation(program=program, folder=folder, inputs=len(inputs))


def load_graph(network: CostNetwork, work: Path) -> tuple[Graph, Frames]:
    """Exports a network unless that was done before; returns its graph and its inputs (N, *input shape)."""
    exported, inputs = work / f"{network.name}.onnx", work / f"{network.name}.npy"
    if not exported.exists():
        built = network.load()
        metadata = export_onnx(built.checkpoint, work / "part.onnx", calibration=built.inputs)
        np.save(inputs, file_inputs(built, metadata))
        (work / "part.onnx").rename(exported)
    return import_onnx(exported), np.load(inputs)


def fastest_rounds(compilations: Sequence[Compilation], rounds: int) -> list[NDArray[np.float64]]:
    """Times all programs in turn, except those times that are there; returns the least median of every call, in ns."""
    for number in range(rounds):
        for each in compilations:
            times = each.folder / f"{number}.npy"
            if not times.exists():
                np.save(times, profile_calls(each.folder, count=each.inputs, min_time_s=MIN_TIME_S))
    return [np.min([np.load(each.folder / f"{n}.npy") for n in range(rounds)], axis=0) for each in compilations]


def estimate(core: str, work: Path) -> Iterator[Observation]:
    """Estimates small programs on a core that is not here, from the machine code and its runs under qemu."""
    board = board_for(core)
    cases = [
        (f"{kind}-{number}", layer_graph(layer, ESTIMATE_RATE), drive(layer, ESTIMATE_RATE, IMAGES))
        for kind in KINDS
        for number, layer in enumerate(grid_layers(kind, SMALL_SHAPES))
    ]
    cases += [(network.name, *load_graph(network, work)) for network in SMALL_NETWORKS]
    for name, graph, inputs in cases:
        for method in METHODS:
            program = lowered(graph, vector_unit(board), board.mcpu, method)
            cycles = work / f"{core}_{name}_{method}.npy"
            if not cycles.exists():
                compiled = Compiled(graph, program, plan_memory(program))
                np.save(cycles, estimate_calls(compiled, inputs[:IMAGES], board, core))
            yield from observations(f"{name}_{method}", program, board.mcpu, np.load(cycles))
        print(f"{core}, {name}", file=sys.stderr)


def estimate_calls(compiled: Compiled, inputs: Frames, board: Board, core: str) -> NDArray[np.float64]:
    """Estimates the cycles of every call of a program."""
    with tempfile.TemporaryDirectory() as folder:
        counted = count_compiled(compiled, board, inputs, Path(folder))
    return np.array([each.cost.cycles for each in call_costs(counted, board.triple, CORES[core])])


def lowered(graph: Graph, unit: VectorUnit, cpu: str, method: Method) -> Program:
    """Lowers a network by one method, whatever it costs; kinds of work may be new."""
    table = replace(COSTS[cpu], cycles=defaultdict(float))
    return lower(graph, unit=unit, costs=CostModel(table=table, clock_mhz=None), parts=1, prefer=method)


def observations(name: str, program: Program, cpu: str, cycles: NDArray[np.float64]) -> Iterator[Observation]:
    """Joins the cycles of a program's calls (calls,) with what the calls did."""
    counts = count_calls(program, COSTS[cpu].memory)
    for call, counted, taken in zip(program.calls, counts, cycles.tolist(), strict=True):
        kernel, share = call.symbol.rpartition("_")[0], taken / float(cycles.sum())
        yield Observation(program=name, kernel=kernel, counts=counted, cycles=taken, share=share)


def fit(observed: Sequence[Observation], known: Mapping[str, float] | None = None) -> Fit:
    """Finds costs, none below 0, with the least weighted sum of squared relative errors.

    Args:
        observed: at least as many as there are kinds of work.
        known: costs that are taken as they are, of work that the observations do not show.
    """
    known = known or {}
    seen = [each for each in observed if each.cycles > 0]
    names = sorted({name for each in seen for name, count in each.counts.items() if count} - set(known))
    shares = np.array([[each.counts.get(name, 0.0) / each.cycles for name in names] for each in seen])
    weights = np.sqrt([LEAST_WEIGHT + each.share for each in seen])
    scale = shares.max(axis=0)
    found, _ = nnls(shares / scale * weights[:, None], weights, maxiter=50 * len(names))
    ratios = shares @ (found / scale)
    errors: dict[str, list[float]] = {}
    sums: dict[str, float] = {}
    for each, ratio in zip(seen, ratios.tolist(), strict=True):
        errors.setdefault(each.kernel, []).append(abs(ratio - 1.0))
        sums[each.program] = sums.get(each.program, 0.0) + (ratio - 1.0) * each.share
    cycles = {**dict(zip(names, (found / scale).tolist(), strict=True)), **known}
    return Fit(cycles=cycles, errors=errors, program_errors=sums)


def fit_cpu(cpu: str, rounds: int, work: Path) -> Fit:
    """Observes a CPU model and fits its costs."""
    work.mkdir(parents=True, exist_ok=True)
    if cpu in CORES:
        return fit(list(estimate(cpu, work)), ASSUMED_LINES)
    return fit(list(observe(cpu, rounds, work)))


def main(
    cpu: Annotated[
        str, typer.Option(help="CPU model of this machine's kind, or a core for an estimate.")
    ] = "x86-64-v4",
    rounds: Annotated[int, typer.Option(help="How often each program is timed.", min=1)] = 8,
    keep: Annotated[Path | None, typer.Option(help="Folder of programs and times, to go on with them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Prints the costs."""
    try:
        with tempfile.TemporaryDirectory(prefix="svitkit-") as folder:
            fitted = fit_cpu(cpu, rounds, keep or Path(folder))
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    errors = {name: (float(np.median(each)), float(np.quantile(each, 0.9))) for name, each in fitted.errors.items()}
    device = f"llvm-mca {mca_version()}" if cpu in CORES else str(read_device_name())
    if as_json:
        values = {"cpu": cpu, "device": device, "cycles": fitted.cycles, "errors": errors}
        print(json.dumps({**values, "program_errors": fitted.program_errors}))
        return
    print(f"# {device}; error of a call: {', '.join(f'{name} {middle:.0%}' for name, (middle, _) in errors.items())}")
    print(f"# of a program: {', '.join(f'{name} {error:+.0%}' for name, error in fitted.program_errors.items())}")
    for name, cycles in fitted.cycles.items():
        print(f'            "{name}": {cycles:.3g},')


if __name__ == "__main__":
    typer.run(main)
