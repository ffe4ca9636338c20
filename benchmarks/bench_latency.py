"""How long one inference takes: svitkit beside torch eager, ONNX Runtime and OpenVINO, in one process.

    python benchmarks/bench_latency.py --network spikformer-4-384 --rate 0.15 [--threads 1] [--images 8] [--rounds 5]
        [--seed 0] [--data KIND:PATH] [--plot SVG] [--markdown] [--json]

``--network`` and ``--rate`` may be given several times: every network runs at every rate.

Batch 1, all T time steps, a fixed number of threads. In every round each runtime in turn runs one image untimed, then
every image timed: a disturbance hits all of them, and each finds its own data in the caches. The order turns by one a
round. Reported are the medians of all samples, and the medians of the processor time that the process took meanwhile:
on a machine that others use, where the two differ, believe the latter. Where a runtime has several variants its fastest
counts, and the report names it. A runtime that cannot run the network has null and a reason.

The network's weights are random and its layers calibrated to fire at the rate asked for; ``rates`` holds what each
layer reached on the very images that are timed. A network of the zoo takes no rate and has its own. The networks with
int8 and int4 weights are the same one rounded as ``svitkit compress`` does it, and calibrated again to the rate, as
rounding moves it (:func:`benchmarks.networks.integer_network`); ``integer_rates`` holds what their layers reached.
Before an integer bundle is timed, its logits must be those of ONNX Runtime on the same integer file, in every bit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__" and "--threads" in sys.argv:
    os.environ["OMP_NUM_THREADS"] = sys.argv[sys.argv.index("--threads") + 1]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.latencies import FIGURES, Latencies
from benchmarks.latency_views import markdown, plot, print_table
from benchmarks.network_files import Files, write_files
from benchmarks.networks import BenchNetwork, load_network, network_names
from benchmarks.peers import Runtime, load
from svitkit.errors import SvitError
from svitkit.runtime.bench.device_state import read_device_name
from svitkit.zoo import ZOO

DEFAULT = "spikformer-4-384"
REFERENCE = "ort_fp32_scan"
SAME_LOGITS = 1e-4
Samples = dict[str, list[float]]
Logits = NDArray[np.float32]


def measure(network: BenchNetwork, *, threads: int, rounds: int) -> Latencies:
    """Prepares every runtime and times it.

    Args:
        network: what to run.
        threads: of every runtime.
        rounds: how often every image is timed in every runtime.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="svitkit-") as work:
        files = write_files(network, Path(work), threads=threads)
        runtimes, reasons = load(files)
        logits = {name: np.concatenate([run(x) for x in files.inputs]) for name, run in runtimes.items()}
        samples, cpu = time_in_turn(runtimes, list(files.inputs), rounds)
    medians = {name: float(np.median(values)) for name, values in samples.items()}
    fastest = fastest_variants(medians)
    differences = differences_to_reference(logits, files)
    missing = {key: reasons[FIGURES[key][0]] for key in FIGURES if key not in fastest}
    variants = {name: reason for name, reason in reasons.items() if f"{name}_ms" not in missing}
    return Latencies(
        network=network.name,
        threads=threads,
        device=read_device_name(),
        rate=network.rate,
        rates=network.rates,
        integer_rates={method: made.rates for method, made in files.integers.items()},
        p50_ms={key: medians[fastest[key]] if key in fastest else None for key in FIGURES},
        reasons={**missing, **variants},
        fastest=fastest,
        samples_ms=samples,
        cpu_p50_ms={name: float(np.median(values)) for name, values in cpu.items()},
        same_logits_percent={name: 100 * float((y < SAME_LOGITS).mean()) for name, y in differences.items()},
        max_abs_diff={name: float(y.max()) for name, y in differences.items()},
    )


def differences_to_reference(logits: dict[str, Logits], files: Files) -> dict[str, NDArray[np.float32]]:
    """Returns the largest difference of every image's logits (N,) to what ONNX Runtime computes from the same file.

    Peers that round the exported network in their own way are held against the exported network.
    """
    own = {f"svitkit_{method}": made.logits for method, made in files.integers.items()}
    references = {name: own.get(name, logits.get(REFERENCE)) for name in logits}
    return {
        name: np.abs(y - wanted).max(axis=1) for name, y in logits.items() if (wanted := references[name]) is not None
    }


def time_in_turn(runtimes: dict[str, Runtime], inputs: list[Any], rounds: int) -> tuple[Samples, Samples]:
    """Times every input in every runtime; each round starts with another runtime.

    Returns:
        The time that passed and the processor time of every inference, in ms.
    """
    passed: Samples = {name: [] for name in runtimes}
    spent: Samples = {name: [] for name in runtimes}
    names = list(runtimes)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            run = runtimes[name]
            run(inputs[-1])
            for x in inputs:
                cpu, start = time.process_time_ns(), time.perf_counter_ns()
                run(x)
                end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
                passed[name].append((end - start) / 1e6)
                spent[name].append((cpu_end - cpu) / 1e6)
    return passed, spent


def fastest_variants(medians: dict[str, float]) -> dict[str, str]:
    """Returns for every figure that can be given the variant with the least median."""
    run = {key: [name for name in names if name in medians] for key, names in FIGURES.items()}
    return {key: min(names, key=lambda name: medians[name]) for key, names in run.items() if names}


def main(
    network: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(network_names())}; {DEFAULT} by default; may be given again."),
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="Spikes per neuron and time step; 0.15 by default; may be given again.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    images: Annotated[int, typer.Option(min=1, help="Different inputs.")] = 8,
    data: Annotated[str | None, typer.Option(help="Of a network of the zoo, where it needs a path.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often every input is timed.")] = 5,
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    picture: Annotated[Path | None, typer.Option("--plot", help="Also draws the medians into this file.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Prints one table in Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints a JSON object a line for every network.")] = False,
) -> None:
    """Times the runtimes and prints tables, or JSON objects."""
    runs = list(combinations(network or [DEFAULT], rate or []))
    if picture is not None and len(runs) > 1:
        raise typer.BadParameter("a picture shows one network at one rate.", param_hint="--plot")
    results = []
    torch.set_num_threads(threads)
    for name, asked in runs:
        try:
            own = data if name in ZOO else None
            loaded = load_network(name, rate=asked, images=images, seed=seed, data=own)
            results.append(measure(loaded, threads=threads, rounds=rounds))
        except SvitError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        if as_json:
            print(json.dumps(results[-1].to_dict()), flush=True)
        elif not as_markdown:
            print_table(results[-1])
    if picture is not None:
        plot(picture, results[0])
    if as_markdown:
        print(markdown(results))


def combinations(networks: list[str], rates: list[float]) -> Iterator[tuple[str, float | None]]:
    """Yields every network at every rate; networks of the zoo, which have their own, once if others come with them."""
    for name in networks:
        has_own = name in ZOO and len(networks) > 1
        for rate in rates if rates and not has_own else [None]:
            yield name, rate


if __name__ == "__main__":
    typer.run(main)
