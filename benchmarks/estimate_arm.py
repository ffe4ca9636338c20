"""Estimates how many cycles a network takes on Arm cores that are not here. Nothing that it prints was measured.

    python benchmarks/estimate_arm.py --network NAME [--rate R] [--core cortex-a72] [--images 2] [--json]

The machine code that TVM emits for the core is run under emulation on real inputs, with a counter in every basic block;
llvm-mca says what the blocks cost on that core. Beside it stand the bounds of a dense runtime: the multiplications of
the same graph at the core's full width. Both sides assume that data lie in the first-level cache. ``--core host`` does
the same for this machine and measures as well, which shows how far the method can be trusted.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.assembly import ISAS, Function
from benchmarks.block_counts import Counted, board_for, count_blocks
from benchmarks.cycles import Cost, Pipeline, function_cost, pieces
from benchmarks.dense_bound import UNITS, layer_macs
from benchmarks.mca import analyse, mca_version
from benchmarks.measure_calls import clock_hz, time_calls
from benchmarks.networks import load_network
from svitkit.errors import unknown_name
from svitkit.export.pipeline import export_onnx


@dataclass(frozen=True, kw_only=True)
class Core:
    """How a core is modelled.

    Attributes:
        model: LLVM's scheduling model.
        pipeline: the penalties are MispredictPenalty of LLVM's models, for the host a guess.
    """

    model: str
    pipeline: Pipeline


# LLVM 22 schedules the Cortex-A72 and A76 by its model of the A57; the Neoverse N1 is the A76 with a model of its own.
CORES = {
    "cortex-a53": Core(model="cortex-a53", pipeline=Pipeline(penalty_cycles=9, in_order=True)),
    "cortex-a57": Core(model="cortex-a57", pipeline=Pipeline(penalty_cycles=16, in_order=False)),
    "cortex-a72": Core(model="cortex-a72", pipeline=Pipeline(penalty_cycles=16, in_order=False)),
    "cortex-a76": Core(model="neoverse-n1", pipeline=Pipeline(penalty_cycles=11, in_order=False)),
    "host": Core(model="native", pipeline=Pipeline(penalty_cycles=15, in_order=False)),
}
ASSUMPTIONS = (
    "loads hit the first-level cache: waiting for memory is not counted, neither here nor in the bounds",
    "code runs at llvm-mca's steady rate, on an in-order core with an empty pipeline at every block outside innermost "
    "loops ('at least' predicts every branch, 'at most' starts with an empty pipeline on every core)",
    "branches that spikes decide are mispredicted as often as they go their rarer way, others at the end of long loops",
    "covered: the share of the instructions executed that lies in innermost loops, where the steady rate holds best",
    "LLVM has no model of its own for the Cortex-A72: it is scheduled as a Cortex-A57, and the Cortex-A76 here as a "
    "Neoverse N1",
    "the dense bounds count multiplications only: no loads, no neurons, no loop",
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Estimate of one layer; cycles of one inference."""

    layer: str
    kernels: str
    svitkit_cycles: float
    svitkit_low_cycles: float
    svitkit_high_cycles: float
    mispredicted_cycles: float
    dense_fp32_bound_cycles: float | None
    dense_int8_bound_cycles: float | None
    instructions: float
    covered_share: float
    bound_by: str
    macs: int
    measured_cycles: float | None


def layer_costs(counted: Counted, triple: str, core: Core) -> dict[str, tuple[list[str], Cost]]:
    """Estimates every layer: the kernels that it calls, and their cost."""
    isa = ISAS[triple]
    codes = {piece.code for function in counted.assembly.functions for piece in pieces(function, counted.counts, isa)}
    timings = analyse(codes, triple=triple, mcpu=core.model, comment=isa.comment)
    costs: dict[str, tuple[list[str], Cost]] = {}
    for call, functions in _functions_of_calls(counted).items():
        site = counted.compiled.program.calls[call]
        kernels, cost = costs.get(site.layer, ([], Cost()))
        for function in functions:
            counts = (counted.counts, counted.varying)
            cost += function_cost(function, counts, isa, timings.__getitem__, core.pipeline)
        costs[site.layer] = ([*kernels, re.sub(r"_\d+_call\d+$", "", site.symbol)], cost)
    return costs


def _functions_of_calls(counted: Counted) -> dict[int, list[Function]]:
    found: dict[int, list[Function]] = {index: [] for index in range(len(counted.compiled.program.calls))}
    for function in counted.assembly.functions:
        match = re.search(r"_call(\d+)(?!\d)", function.name)
        if match:
            found[int(match[1])].append(function)
    return found


def estimate(onnx: Path, inputs: NDArray[np.float32], core: str) -> tuple[list[Layer], int]:
    """Estimates an exported network.

    Args:
        onnx: a file that ``svitkit export`` wrote, in sequence mode.
        inputs: (N, *input shape) float32; the counts are means over them.
        core: a key of ``CORES``.

    Returns:
        The layers in the order of execution, and the bytes of weights that every inference reads.
    """
    if core not in CORES:
        raise unknown_name("core", core, CORES)
    board, unit = board_for(core), UNITS.get(core)
    with tempfile.TemporaryDirectory() as work:
        counted = count_blocks(onnx, board, inputs, Path(work))
    costs = layer_costs(counted, board.triple, CORES[core])
    macs = layer_macs(onnx, costs)
    measured: dict[str, float] = {}
    if core == "host":
        hz = clock_hz()
        measured = {
            layer: seconds * hz for layer, seconds in time_calls(counted.compiled.program, board, inputs).items()
        }
    layers = [
        Layer(
            layer=layer,
            kernels=" + ".join(kernels),
            svitkit_cycles=cost.cycles,
            svitkit_low_cycles=cost.low_cycles,
            svitkit_high_cycles=cost.high_cycles,
            mispredicted_cycles=cost.missed_cycles,
            dense_fp32_bound_cycles=macs.get(layer, 0) / unit.fp32 if unit else None,
            dense_int8_bound_cycles=macs.get(layer, 0) / unit.int8 if unit else None,
            instructions=cost.instructions,
            covered_share=cost.loop_instructions / max(cost.instructions, 1.0),
            bound_by=cost.bound,
            macs=macs.get(layer, 0),
            measured_cycles=measured.get(layer),
        )
        for layer, (kernels, cost) in costs.items()
    ]
    return layers, counted.compiled.plan.weights_bytes


def summarize(layers: list[Layer], core: str) -> dict[str, object]:
    """Sums over the network; ratios are the dense bound over svitkit's estimate, so above 1 svitkit is faster."""

    def total(key: str) -> float | None:
        values = [getattr(layer, key) for layer in layers]
        return None if any(value is None for value in values) else float(sum(values))

    cycles, fp32, int8 = (total(f"{key}_cycles") for key in ("svitkit", "dense_fp32_bound", "dense_int8_bound"))
    assert cycles is not None
    instructions = sum(layer.instructions for layer in layers)
    covered = sum(layer.covered_share * layer.instructions for layer in layers) / max(instructions, 1.0)
    unit = UNITS.get(core)
    return {
        "svitkit_cycles": cycles,
        "svitkit_low_cycles": total("svitkit_low_cycles"),
        "svitkit_high_cycles": total("svitkit_high_cycles"),
        "mispredicted_cycles": total("mispredicted_cycles"),
        "dense_fp32_bound_cycles": fp32,
        "dense_int8_bound_cycles": int8,
        "dense_fp32_ratio": fp32 / cycles if fp32 is not None else None,
        "dense_int8_ratio": int8 / cycles if int8 is not None else None,
        "dense_int8_assumes": unit.int8_how if unit else None,
        "instructions": instructions,
        "covered_share": covered,
        "macs": sum(layer.macs for layer in layers),
        "measured_cycles": total("measured_cycles"),
    }


def prepare(network: str, rate: float | None, images: int, work: Path) -> tuple[Path, NDArray[np.float32], float]:
    """Exports a network of the benchmarks.

    Returns:
        The ONNX file, inputs as it takes them (N, ...), and the mean firing rate of its layers on them.
    """
    ready = load_network(network, rate=rate, images=max(images, 2))
    metadata = export_onnx(ready.checkpoint, work / "model.onnx", calibration=ready.inputs)
    frames = ready.inputs[:, :images].numpy()
    inputs = frames[0, :, None] if metadata.static_input else frames.swapaxes(0, 1)[:, :, None]
    return work / "model.onnx", np.ascontiguousarray(inputs), float(np.mean(list(ready.rates.values())))


def print_table(result: dict[str, object], layers: list[Layer]) -> None:
    """Prints layers and totals; every number but the host's measured ones is an estimate."""
    title = (
        f"ESTIMATE, not measured: {result['network']} on {result['core']} (llvm-mca {result['llvm_mca']}, "
        f"model {result['scheduling_model']}), layers fire at {result['mean_rate']:.3f}"
    )
    heads = (
        "layer",
        "kernels",
        "k cycles",
        "at least",
        "at most",
        "dense fp32",
        "dense int8",
        "fp32 ratio",
        "covered",
        "bound by",
    )
    table = Table(*heads, *(["measured"] if result["measured_cycles"] else []), title=title)

    def row(name: str, kernels: str, numbers: dict[str, object], bound: str) -> None:
        def thousands(key: str) -> str:
            value = numbers[key]
            return "-" if value is None else f"{float(str(value)) / 1e3:.1f}"

        cycles, dense = numbers["svitkit_cycles"], numbers["dense_fp32_bound_cycles"]
        ratio = f"{float(str(dense)) / float(str(cycles)):.2f}" if dense and cycles else "-"
        keys = ["svitkit_cycles", "svitkit_low_cycles", "svitkit_high_cycles"]
        keys += ["dense_fp32_bound_cycles", "dense_int8_bound_cycles"]
        cells = [*map(thousands, keys), ratio, f"{100 * float(str(numbers['covered_share'])):.0f} %", bound]
        table.add_row(name, kernels, *cells, *([thousands("measured_cycles")] if result["measured_cycles"] else []))

    for layer in layers:
        row(layer.layer, layer.kernels, asdict(layer), layer.bound_by)
    table.add_section()
    row("whole network", "", result, "")
    Console(width=None if Console().is_terminal else 190).print(table)
    for assumption in ASSUMPTIONS:
        print(f"- {assumption}")
    print(f"- dense int8 bound: {result['dense_int8_assumes'] or 'not given for this machine'}")
    print(f"- weights: {float(str(result['weights_bytes'])) / 1e6:.1f} MB, whose way from memory is not counted")


def main(
    network: Annotated[str, typer.Option(help="A network of the benchmarks or of the zoo.")] = "digits-spikformer",
    rate: Annotated[
        float | None, typer.Option(help="Firing rate of a random network; a zoo network has its own.")
    ] = None,
    core: Annotated[str, typer.Option(help=", ".join(CORES))] = "cortex-a72",
    images: Annotated[int, typer.Option(help="Inputs that the counts are averaged over.", min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Prints a table, or one JSON object."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        onnx, inputs, mean_rate = prepare(network, rate, images, Path(work))
        layers, weights_bytes = estimate(onnx, inputs, core)
    result: dict[str, object] = {
        "network": network,
        "rate": rate,
        "mean_rate": mean_rate,
        "core": core,
        "is_estimate": True,
        "llvm_mca": mca_version(),
        "scheduling_model": CORES[core].model,
        **summarize(layers, core),
        "weights_bytes": weights_bytes,
    }
    if as_json:
        print(json.dumps({**result, "assumptions": ASSUMPTIONS, "layers": [asdict(layer) for layer in layers]}))
    else:
        print_table(result, layers)


if __name__ == "__main__":
    typer.run(main)
