"""Reports of left out tokens and weights for people: a table in the terminal, a table in Markdown, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.compress_views import format_change, format_number, list_reasons, markdown_table, terminal_table
from benchmarks.token_results import Sparing

HEADS = (
    "network",
    "method",
    "accuracy %",
    "operations M",
    "saved",
    "synaptic M",
    "p50 ms",
    "saved",
    "weights 0",
    "weights KiB",
    "saved",
    "tokens",
)
KIB = 1 << 10
MEGA = 1e6
WIDTH = 200
MARKERS = "osD^vP*Xph"


def print_table(results: Sequence[Sparing]) -> None:
    """Prints a row for every method, and below what is missing."""
    terminal_table(_title(results), HEADS, [_cells(r) for r in results], list_reasons(results), width=WIDTH)


def markdown(results: Sequence[Sparing]) -> str:
    """Returns a table with a row for every method, and what is missing below it; then the rounds of lotteries."""
    table = markdown_table(_title(results), HEADS, [_cells(r) for r in results], list_reasons(results))
    ladders = [_ladder(result) for result in results if result.ladder]
    return "\n\n".join([table, *ladders])


def plot(path: Path, results: Sequence[Sparing]) -> None:
    """Draws the change of accuracy over the operations saved, and over the sparsity of every round of a lottery."""
    methods = list(dict.fromkeys(result.method for result in results))
    networks = list(dict.fromkeys(result.network for result in results))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    tokens, weights = figure.subplots(1, 2)
    for result in results:
        if result.operations_saving is not None and result.accuracy_after is not None and not result.ladder:
            change = result.accuracy_after - (result.accuracy_before or 0.0)
            look = {"color": f"C{networks.index(result.network)}", "marker": MARKERS[methods.index(result.method)]}
            tokens.plot(100 * result.operations_saving, change, linestyle="", markersize=8, alpha=0.8, **look)
        if result.ladder:
            _draw_ladder(weights, result, f"C{networks.index(result.network)}")
    tokens.set(xlabel="operations saved, %", ylabel="change of accuracy on the test split, points")
    weights.set(xlabel="weights that are 0, %", ylabel="change of accuracy on validation, points")
    for axes in (tokens, weights):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=f"C{at}", linewidth=4, label=name) for at, name in enumerate(networks)]
    handles += [
        Line2D([], [], linestyle="", color="black", marker=MARKERS[at], label=name) for at, name in enumerate(methods)
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _draw_ladder(axes: Axes, result: Sparing, color: str) -> None:
    before = result.validation_before or 0.0
    rounds = [(100 * sparsity, reached - before) for sparsity, reached in result.ladder]
    axes.plot(*zip(*rounds, strict=True), color=color, marker=".")
    for at, (name, sparsity, validation, _) in enumerate(result.controls):
        axes.plot(100 * sparsity, validation - before, color=color, marker="x+1"[at % 3], markersize=9)
        axes.annotate(name, (100 * sparsity, validation - before), fontsize="small", ha="right")


def _ladder(result: Sparing) -> str:
    rows = [
        [str(at), f"{100 * sparsity:.1f}", f"{reached:.2f}"] for at, (sparsity, reached) in enumerate(result.ladder)
    ]
    rows += [
        [name, f"{100 * sparsity:.1f}", f"{validation:.2f} (test {test:.2f})"]
        for name, sparsity, validation, test in result.controls
    ]
    title = f"{result.network}: rounds of the lottery, accuracy on {result.validation_images} validation images."
    return markdown_table(title, ("round", "weights 0, %", "validation %"), rows, [])


def _title(results: Sequence[Sparing]) -> str:
    images = sorted({(result.data, result.validation_images, result.test_images) for result in results})
    data = "; ".join(f"{name}: {search} validation and {test} test images" for name, search, test in images)
    return (
        f"{data}; operations are dense multiply-accumulates over all time steps, synaptic ones those that spikes "
        f"cause; batch 1, one thread, on {results[0].device}; in brackets against the network before."
    )


def _cells(result: Sparing) -> list[str]:
    if result.accuracy_after is None:
        return [result.network, result.method, *["-"] * (len(HEADS) - 2)]
    return [
        result.network,
        result.method + ("" if result.satisfied else " (constraint missed)"),
        format_change(result.accuracy_after, result.accuracy_before),
        _mega(result.operations),
        _percent(result.operations_saving),
        _mega(result.synaptic_operations),
        format_number(result.latency_ms),
        _percent(result.latency_saving),
        _percent(result.sparsity),
        "-" if result.weights_bytes is None else f"{result.weights_bytes / KIB:,.0f}",
        _percent(result.artifact_saving),
        ", ".join(f"{kept}/{tokens} {chosen}" for _, tokens, kept, chosen in result.tokens),
    ]


def _mega(count: float | None) -> str:
    return "-" if count is None else f"{count / MEGA:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{round(100 * share, 1) or 0.0:.1f} %"  # no -0.0
