"""Reports of latencies for people: a table in the terminal, a table in Markdown, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.latencies import FIGURES, PEER, Latencies

# How the figures are called in Markdown; peers without any value there get no column.
COLUMNS = {
    "svitkit_fp32_ms": "svitkit fp32",
    "svitkit_int8_ms": "svitkit int8",
    "svitkit_int4_ms": "svitkit int4",
    "ort_fp32_ms": "ONNX Runtime fp32",
    "ort_int8_ms": "ONNX Runtime int8",
    "torch_ms": "torch eager",
    "openvino_fp32_ms": "OpenVINO fp32",
    "openvino_best_ms": "OpenVINO best",
    "ncnn_ms": "ncnn",
}


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
    console.print(*_rates(result), *(f"{key}: {reason}" for key, reason in result.reasons.items()), sep="\n")


def _rates(result: Latencies) -> list[str]:
    return [
        _rates_line(result.rate, rates, name) for name, rates in (("fp32", result.rates), *result.integer_rates.items())
    ]


def _rates_line(asked: float | None, rates: dict[str, float], name: str) -> str:
    values = list(rates.values())
    far = {layer: rate for layer, rate in rates.items() if asked and abs(rate / asked - 1) > 0.05}
    named = "; off by more than 5 %: " + ", ".join(f"{layer} {rate:.3f}" for layer, rate in far.items()) if far else ""
    return f"{name}: {len(values)} layers fire at {min(values):.3f} .. {max(values):.3f}{named}"


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


def markdown(results: Sequence[Latencies]) -> str:
    """Returns a table with a row for every report, and what is missing below it.

    Args:
        results: reports of one device and number of threads.
    """
    keys = [key for key in FIGURES if any(result.p50_ms[key] is not None for result in results)]
    heads = ["network", "rate", *(COLUMNS[key] for key in keys)]
    lines = [
        f"Median ms of one inference, batch 1, {results[0].threads} thread(s), on {results[0].device}; "
        "x: times as fast as ONNX Runtime fp32.",
        "",
        _row(heads),
        _row(["---", *["---:"] * (len(heads) - 1)]),
        *(_row([*_network_cells(result), *(_cell(result, key) for key in keys)]) for result in results),
    ]
    reasons = dict.fromkeys(
        f"- {COLUMNS[key]}, {result.network}: {result.reasons[key]}"
        for result in results
        for key in FIGURES
        if result.p50_ms[key] is None
    )
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def _network_cells(result: Latencies) -> list[str]:
    own = f"its own, {np.mean(list(result.rates.values())):.2f}"
    return [result.network, own if result.rate is None else f"{result.rate:g}"]


def _cell(result: Latencies, key: str) -> str:
    value, peer = result.p50_ms[key], result.p50_ms[PEER]
    if value is None:
        return "-"
    return f"{value:.2f}" if peer is None or key == PEER else f"{value:.2f} ({peer / value:.1f}x)"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
