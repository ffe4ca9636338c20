"""How much faster svitkit is on two threads than on one.

    python benchmarks/bench_threads.py --network spikformer-4-384 --rate 0.15 [--threads 2] [--images 8] [--rounds 5]
        [--seed 0] [--data KIND:PATH] [--json]

One process, batch 1, for float32, int8 and int4 weights. Each bundle is loaded twice, for one thread and for several;
the sessions take turns as the runtimes of ``bench_latency.py`` do. ``speedup`` is the ratio of the medians. Before
anything is timed, both sessions must give the same logits in every bit. Every thread needs a core to itself: where
others use the machine, the medians say little, and ``speedup_of_fastest``, the ratio of the shortest times, says more.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.bench_latency import time_in_turn
from benchmarks.network_files import Files, write_files
from benchmarks.networks import BenchNetwork, load_network, network_names
from benchmarks.peers import Runtime
from svitkit.boards.board import load_board
from svitkit.errors import SvitError, VerificationError
from svitkit.runtime.bench.device_state import read_device_name
from svitkit.runtime.build import build_bundle
from svitkit.runtime.session import Session


@dataclass(frozen=True, kw_only=True)
class Speedups:
    """What was measured.

    Attributes:
        network, device: what ran and where.
        threads: of the sessions with several.
        cpus: that this process may run on.
        rate: spikes per neuron and time step that were asked for; None for a network's own.
        speedup: precision of the weights -> median on one thread over that on several.
        speedup_of_fastest: precision -> the same of the shortest times.
        p50_ms: precision -> number of threads -> median.
        samples_ms: precision -> number of threads -> every sample.
    """

    network: str
    device: str | None
    threads: int
    cpus: int
    rate: float | None
    speedup: dict[str, float]
    speedup_of_fastest: dict[str, float]
    p50_ms: dict[str, dict[str, float]]
    samples_ms: dict[str, dict[str, list[float]]]


def measure(network: BenchNetwork, *, threads: int, rounds: int) -> Speedups:
    """Builds the bundles and times them.

    Args:
        network: what to run.
        threads: to compare with one.
        rounds: how often every image is timed in every session.

    Raises:
        ConfigError: the bundle cannot run on so many threads.
        VerificationError: a number of threads changes a logit.
    """
    with tempfile.TemporaryDirectory(prefix="svitkit-") as work:
        files = write_files(network, Path(work), threads=threads)
        paths = {"fp32": files.onnx, **{method: made.onnx for method, made in files.integers.items()}}
        samples = {precision: time_threads(files, path, rounds) for precision, path in paths.items()}
    medians = {precision: _reduce(by_count, np.median) for precision, by_count in samples.items()}
    fastest = {precision: _reduce(by_count, np.min) for precision, by_count in samples.items()}
    return Speedups(
        network=network.name,
        device=read_device_name(),
        threads=threads,
        cpus=len(os.sched_getaffinity(0)),
        rate=network.rate,
        speedup={precision: times["1"] / times[str(threads)] for precision, times in medians.items()},
        speedup_of_fastest={precision: times["1"] / times[str(threads)] for precision, times in fastest.items()},
        p50_ms=medians,
        samples_ms=samples,
    )


def _reduce(samples: dict[str, list[float]], statistic: Callable[[list[float]], Any]) -> dict[str, float]:
    return {count: float(statistic(values)) for count, values in samples.items()}


def time_threads(files: Files, onnx: Path, rounds: int) -> dict[str, list[float]]:
    """Times the bundle of one file; returns the samples in ms by number of threads."""
    bundle = files.work / f"bundle-{onnx.stem}"
    build_bundle(onnx, load_board("host"), bundle, golden=files.inputs[:1])
    counts = (1, files.threads)
    runtimes: dict[str, Runtime] = {str(count): Session(bundle, threads=count).run for count in counts}
    one, several = (np.concatenate([runtimes[str(count)](x) for x in files.inputs]) for count in counts)
    if not np.array_equal(one, several):
        raise VerificationError(f"{onnx.stem}: {files.threads} threads give other logits than one. Report this.")
    passed, _ = time_in_turn(runtimes, list(files.inputs), rounds)
    return passed


def print_table(result: Speedups) -> None:
    """Prints the medians and their ratio."""
    asked = "its own rates" if result.rate is None else f"{result.rate:g} spikes per neuron and step"
    title = f"{result.network}, {asked}\nbatch 1, on {result.device}, {result.cpus} CPU(s)"
    heads = ("weights", "1 thread, p50 ms", f"{result.threads} threads, p50 ms", "speedup", "of the fastest")
    table = Table(*heads, title=title)
    for precision, medians in result.p50_ms.items():
        times = (f"{medians[count]:.2f}" for count in ("1", str(result.threads)))
        table.add_row(
            precision, *times, f"{result.speedup[precision]:.2f}", f"{result.speedup_of_fastest[precision]:.2f}"
        )
    Console(width=max(Console().width, 80)).print(table)


def main(
    network: Annotated[str, typer.Option(help=f"One of {', '.join(network_names())}.")] = "spikformer-4-384",
    rate: Annotated[float | None, typer.Option(help="Spikes per neuron and time step; 0.15 by default.")] = None,
    threads: Annotated[int, typer.Option(min=2, help="To compare with one.")] = 2,
    images: Annotated[int, typer.Option(min=1, help="Different inputs.")] = 8,
    data: Annotated[str | None, typer.Option(help="Of a network of the zoo, where it needs a path.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often every input is timed.")] = 5,
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Times one thread beside several and prints a table, or one JSON object."""
    torch.set_num_threads(1)
    try:
        result = measure(
            load_network(network, rate=rate, images=images, seed=seed, data=data), threads=threads, rounds=rounds
        )
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        print_table(result)


if __name__ == "__main__":
    typer.run(main)
