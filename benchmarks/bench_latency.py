"""How long one inference takes: svitkit beside torch eager, ONNX Runtime and OpenVINO, in one process.

    python benchmarks/bench_latency.py --network spikformer-4-384 --rate 0.15 [--threads 1] [--images 8] [--rounds 5]
        [--seed 0] [--plot SVG] [--json]

Batch 1, all T time steps, a fixed number of threads. In every round each runtime in turn runs one image untimed, then
every image timed: a disturbance hits all of them, and each finds its own data in the caches. The order turns by one a
round. Reported are the medians of all samples, and the medians of the processor time that the process took meanwhile:
on a machine that others use, where the two differ, believe the latter. Where a runtime has several variants its fastest
counts, and the report names it. A runtime that cannot run the network has null and a reason.

The network's weights are random and its layers calibrated to fire at the rate asked for; ``rates`` holds what each
layer reached on the very images that are timed. A network of the zoo takes no rate and has its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__" and "--threads" in sys.argv:
    os.environ["OMP_NUM_THREADS"] = sys.argv[sys.argv.index("--threads") + 1]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.networks import BenchNetwork, load_network, network_names
from benchmarks.peers import Runtime, load, write_files
from svitkit.errors import SvitError
from svitkit.runtime.device_state import read_device_name

# Key of the report -> the variants of which the fastest counts.
FIGURES = {
    "svitkit_fp32_ms": ("svitkit_fp32",),
    "svitkit_int8_ms": ("svitkit_int8",),
    "svitkit_int4_ms": ("svitkit_int4",),
    "ort_fp32_ms": ("ort_fp32_scan", "ort_fp32_unrolled"),
    "ort_int8_ms": ("ort_int8",),
    "torch_ms": ("torch",),
    "openvino_fp32_ms": ("openvino_f32",),
    "openvino_best_ms": ("openvino_f32", "openvino_bf16", "openvino_int8"),
    "ncnn_ms": ("ncnn",),
}
PEER = "ort_fp32_ms"
REFERENCE = "ort_fp32_scan"
SAME_LOGITS = 1e-4
Samples = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """What was measured.

    Attributes:
        network, threads, device: what ran, on how many threads, and where.
        rate: spikes per neuron and time step that were asked for; None for a network's own.
        rates: layer -> spikes per neuron and time step on the timed images.
        p50_ms: key of ``FIGURES`` -> median of the fastest variant; None if none runs the network.
        reasons: key or variant -> why there is no figure.
        fastest: key -> the variant that its figure is of.
        samples_ms: variant -> every sample.
        cpu_p50_ms: variant -> median of the processor time of a sample, of all threads together.
        same_logits_percent: variant -> share of images with the logits of ONNX Runtime on the exported file, up to
            1e-4. Floats are added in another order by everyone, and one neuron in 1e5 whose potential rounds to the
            other side of its threshold changes what all layers behind it do.
        max_abs_diff: variant -> largest difference of a logit from those.
    """

    network: str
    threads: int
    device: str | None
    rate: float | None
    rates: dict[str, float]
    p50_ms: dict[str, float | None]
    reasons: dict[str, str]
    fastest: dict[str, str]
    samples_ms: dict[str, list[float]]
    cpu_p50_ms: dict[str, float]
    same_logits_percent: dict[str, float]
    max_abs_diff: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report's JSON object; the medians stand at its top."""
        content = asdict(self)
        return {**content.pop("p50_ms"), **content}


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
    differences = {name: np.abs(y - logits[REFERENCE]).max(axis=1) for name, y in logits.items() if REFERENCE in logits}
    missing = {key: reasons[FIGURES[key][0]] for key in FIGURES if key not in fastest}
    variants = {name: reason for name, reason in reasons.items() if f"{name}_ms" not in missing}
    return Latencies(
        network=network.name,
        threads=threads,
        device=read_device_name(),
        rate=network.rate,
        rates=network.rates,
        p50_ms={key: medians[fastest[key]] if key in fastest else None for key in FIGURES},
        reasons={**missing, **variants},
        fastest=fastest,
        samples_ms=samples,
        cpu_p50_ms={name: float(np.median(values)) for name, values in cpu.items()},
        same_logits_percent={name: 100 * float((y < SAME_LOGITS).mean()) for name, y in differences.items()},
        max_abs_diff={name: float(y.max()) for name, y in differences.items()},
    )


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


def print_table(result: Latencies) -> None:
    """Prints the figures beside the ratio to ONNX Runtime's, the rates that were reached, and what is missing."""
    peer = result.p50_ms[PEER]
    asked = "its own rates" if result.rate is None else f"{result.rate:g} spikes per neuron and step"
    title = f"{result.network}, {asked}\n{result.threads} thread(s), batch 1, on {result.device}"
    table = Table("figure", "p50 ms", "p5 .. p95 ms", "ORT fp32 / this", "CPU ms", "variant", title=title)
    for key, value in result.p50_ms.items():
        if value is None:
            table.add_row(key, "-", "-", "-", "-", "-")
            continue
        low, high = np.percentile(result.samples_ms[result.fastest[key]], [5, 95])
        ratio = "-" if peer is None else f"{peer / value:.2f}"
        name = result.fastest[key]
        table.add_row(key, f"{value:.2f}", f"{low:.2f} .. {high:.2f}", ratio, f"{result.cpu_p50_ms[name]:.2f}", name)
    console = Console(width=max(Console().width, 96))  # a pipe's 80 columns would cut the names
    console.print(table)
    console.print(_rates(result), *(f"{key}: {reason}" for key, reason in result.reasons.items()), sep="\n")


def _rates(result: Latencies) -> str:
    values = list(result.rates.values())
    far = {name: rate for name, rate in result.rates.items() if result.rate and abs(rate / result.rate - 1) > 0.05}
    named = "; off by more than 5 %: " + ", ".join(f"{name} {rate:.3f}" for name, rate in far.items()) if far else ""
    return f"{len(values)} layers fire at {min(values):.3f} .. {max(values):.3f}{named}"


def plot(path: Path, result: Latencies) -> None:
    """Draws the medians that there are as bars, with the ratio to ONNX Runtime's written on them."""
    medians = {key.removesuffix("_ms"): value for key, value in result.p50_ms.items() if value is not None}
    peer = medians[PEER.removesuffix("_ms")]
    colors = ["#2a7f62" if name.startswith("svitkit") else "#b8b8b8" for name in medians]
    figure = Figure(figsize=(7, 0.9 + 0.35 * len(medians)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(medians), list(medians.values()), color=colors)
    axes.bar_label(bars, [f"{value:.2f} ms, {peer / value:.2f}x" for value in medians.values()], padding=4)
    axes.invert_yaxis()
    axes.set_title(f"{result.network} on {result.device}, {result.threads} thread(s), batch 1", fontsize="medium")
    axes.set(xlabel="median of one inference in ms; x: times as fast as ONNX Runtime fp32")
    axes.set_xlim(right=1.3 * max(medians.values()))
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(
    network: Annotated[str, typer.Option(help=f"One of {', '.join(network_names())}.")] = "spikformer-4-384",
    rate: Annotated[float | None, typer.Option(help="Spikes per neuron and time step; 0.15 by default.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    images: Annotated[int, typer.Option(min=1, help="Different inputs.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="How often every input is timed.")] = 5,
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    picture: Annotated[Path | None, typer.Option("--plot", help="Also draws the medians into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Times the runtimes and prints a table, or one JSON object."""
    torch.set_num_threads(threads)
    try:
        result = measure(load_network(network, rate=rate, images=images, seed=seed), threads=threads, rounds=rounds)
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if picture is not None:
        plot(picture, result)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        print_table(result)


if __name__ == "__main__":
    typer.run(main)
