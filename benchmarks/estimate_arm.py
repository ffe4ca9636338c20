"""Estimates how many cycles a network takes on Arm cores that are not here. Nothing that it prints was measured.

    python benchmarks/estimate_arm.py --network NAME [--rate R] [--core cortex-a72] [--precision fp32|int8|int4]
        [--images 2] [--json]

The machine code that TVM emits for the core is run under emulation on real inputs, with a counter in every basic block;
llvm-mca says what the blocks cost on that core. Beside it stand the bounds of a dense runtime: the multiplications of
the same graph at the core's full width. Both sides assume that data lie in the first-level cache. ``--core host`` does
the same for this machine and measures as well, which shows how far the method can be trusted.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.assembly import ISAS, Function
from benchmarks.block_counts import Counted, board_for, count_blocks
from benchmarks.cycles import Cost, Pipeline, function_cost, pieces
from benchmarks.dense_bound import UNITS, layer_macs
from benchmarks.estimates import ASSUMPTIONS, Estimate, Kernel, Layer, print_table
from benchmarks.mca import analyse, mca_version
from benchmarks.measure_calls import clock_hz, time_calls
from benchmarks.network_files import file_inputs
from benchmarks.networks import integer_network, load_network
from svitkit.compress.options import INTEGER_METHODS
from svitkit.errors import SvitError, VerificationError, unknown_name
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
PRECISIONS = ("fp32", *INTEGER_METHODS)


@dataclass(frozen=True, kw_only=True)
class CallCost:
    """Estimate of one kernel call: the layer that it belongs to and the kind of kernel."""

    layer: str
    kernel: str
    cost: Cost


def call_costs(counted: Counted, triple: str, core: Core) -> list[CallCost]:
    """Estimates every call of the program, in its order."""
    isa = ISAS[triple]
    codes = {piece.code for function in counted.assembly.functions for piece in pieces(function, counted.counts, isa)}
    timings = analyse(codes, triple=triple, mcpu=core.model, comment=isa.comment)
    counts = (counted.counts, counted.varying)
    costs = []
    for call, functions in functions_of_calls(counted).items():
        site = counted.compiled.program.calls[call]
        parts = [function_cost(function, counts, isa, timings.__getitem__, core.pipeline) for function in functions]
        kernel = re.sub(r"_\d+_call\d+$", "", site.symbol)
        costs.append(CallCost(layer=site.layer, kernel=kernel, cost=sum(parts, Cost())))
    return costs


def by_layer(costs: Sequence[CallCost]) -> dict[str, tuple[list[str], Cost]]:
    """Sums over the calls of every layer: its kernels, and their cost."""
    layers: dict[str, tuple[list[str], Cost]] = {}
    for call in costs:
        kernels, cost = layers.get(call.layer, ([], Cost()))
        layers[call.layer] = ([*kernels, call.kernel], cost + call.cost)
    return layers


def by_kernel(costs: Sequence[CallCost]) -> list[Kernel]:
    """Sums over the calls of every kind of kernel, the costliest first."""
    total = sum(call.cost.cycles for call in costs)
    kernels = []
    for name in dict.fromkeys(call.kernel for call in costs):
        calls = [call.cost for call in costs if call.kernel == name]
        cost = sum(calls, Cost())
        kernels.append(
            Kernel(
                kernel=name,
                calls=len(calls),
                svitkit_cycles=cost.cycles,
                share=cost.cycles / max(total, 1.0),
                instructions=cost.instructions,
                bound_by=cost.bound,
            )
        )
    return sorted(kernels, key=lambda kernel: -kernel.svitkit_cycles)


def functions_of_calls(counted: Counted) -> dict[int, list[Function]]:
    """Returns the functions of every call by its number.

    Raises:
        VerificationError: a function ran that belongs to no call, so that a sum over the calls would miss it.
    """
    found: dict[int, list[Function]] = {index: [] for index in range(len(counted.compiled.program.calls))}
    for function in counted.assembly.functions:
        match = re.search(r"_call(\d+)(?!\d)", function.name)
        if match:
            found[int(match[1])].append(function)
        elif any(counted.counts[block.counter] for block in function.blocks):
            raise VerificationError(f"the function '{function.name}' ran, but belongs to no kernel call.")
    return found


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An exported network.

    Attributes:
        onnx: with weights of the precision asked for.
        dense: with float32 weights, whose multiplications are the dense bounds: with integer weights, means are taken
            behind the products that follow them, which are more then.
        inputs: (N, *input shape) float32, as the files take them.
        mean_rate: spikes per neuron and time step, mean over the layers.
    """

    onnx: Path
    dense: Path
    inputs: NDArray[np.float32]
    mean_rate: float


def estimate(prepared: Prepared, core: str) -> Estimate:
    """Estimates an exported network; the counts are means over its inputs.

    Args:
        prepared: the network; it was exported in sequence mode.
        core: a key of ``CORES``.
    """
    if core not in CORES:
        raise unknown_name("core", core, CORES)
    board = board_for(core)
    with tempfile.TemporaryDirectory() as work:
        counted = count_blocks(prepared.onnx, board, prepared.inputs, Path(work))
    calls = call_costs(counted, board.triple, CORES[core])
    costs = by_layer(calls)
    macs = layer_macs(prepared.dense, costs)
    costs |= {layer: ([], Cost()) for layer in macs if layer not in costs}
    measured: dict[str, float] = {}
    if core == "host":
        hz = clock_hz()
        seconds = time_calls(counted.compiled.program, board, prepared.inputs)
        measured = {layer: each * hz for layer, each in seconds.items()}
    layers = [
        describe_layer(layer, *cost, macs=macs.get(layer, 0), core=core, measured=measured.get(layer))
        for layer, cost in costs.items()
    ]
    weights_bytes = counted.compiled.plan.weights_bytes
    return Estimate(core=core, layers=layers, kernels=by_kernel(calls), weights_bytes=weights_bytes)


def describe_layer(
    layer: str, kernels: list[str], cost: Cost, *, macs: int, core: str, measured: float | None
) -> Layer:
    """Returns what the report says of a layer."""
    unit = UNITS.get(core)
    return Layer(
        layer=layer,
        kernels=" + ".join(kernels),
        svitkit_cycles=cost.cycles,
        svitkit_low_cycles=cost.low_cycles,
        svitkit_high_cycles=cost.high_cycles,
        mispredicted_cycles=cost.missed_cycles,
        dense_fp32_bound_cycles=macs / unit.fp32 if unit else None,
        dense_int8_bound_cycles=macs / unit.int8 if unit else None,
        instructions=cost.instructions,
        covered_share=cost.loop_instructions / max(cost.instructions, 1.0),
        bound_by=cost.bound,
        macs=macs,
        measured_cycles=measured,
    )


def prepare(network: str, rate: float | None, images: int, precision: str, work: Path) -> Prepared:
    """Exports a network of the benchmarks.

    Raises:
        ConfigError: network, rate or precision do not exist.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    ready = load_network(network, rate=rate, images=max(images, 2))
    onnx = dense = work / "fp32.onnx"
    metadata = export_onnx(ready.checkpoint, dense, calibration=ready.inputs)
    inputs = file_inputs(ready, metadata)[:images]
    if precision in INTEGER_METHODS:
        ready, onnx = integer_network(ready, precision), work / f"{precision}.onnx"
        export_onnx(ready.checkpoint, onnx, calibration=ready.inputs)
    return Prepared(onnx=onnx, dense=dense, inputs=inputs, mean_rate=float(np.mean(list(ready.rates.values()))))


def main(
    network: Annotated[str, typer.Option(help="A network of the benchmarks or of the zoo.")] = "digits-spikformer",
    rate: Annotated[
        float | None, typer.Option(help="Firing rate of a random network; a zoo network has its own.")
    ] = None,
    core: Annotated[str, typer.Option(help=", ".join(CORES))] = "cortex-a72",
    precision: Annotated[str, typer.Option(help=f"Of the weights: {', '.join(PRECISIONS)}.")] = PRECISIONS[0],
    images: Annotated[int, typer.Option(help="Inputs that the counts are averaged over.", min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Prints a table, or one JSON object."""
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as work:
            prepared = prepare(network, rate, images, precision, Path(work))
            estimated = estimate(prepared, core)
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    result: dict[str, object] = {
        "network": network,
        "rate": rate,
        "mean_rate": prepared.mean_rate,
        "core": core,
        "precision": precision,
        "is_estimate": True,
        "llvm_mca": mca_version(),
        "scheduling_model": CORES[core].model,
        **estimated.summary(),
    }
    if as_json:
        kernels = [asdict(kernel) for kernel in estimated.kernels]
        layers = [asdict(layer) for layer in estimated.layers]
        print(json.dumps({**result, "assumptions": ASSUMPTIONS, "kernels": kernels, "layers": layers}))
    else:
        print_table(result, estimated)


if __name__ == "__main__":
    typer.run(main)
