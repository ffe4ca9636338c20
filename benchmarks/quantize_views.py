"""Reports of quantization for people: a table in the terminal, a table in Markdown, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from benchmarks.compress_views import (
    MIB,
    format_change,
    format_number,
    format_ratio,
    list_reasons,
    markdown_table,
    terminal_table,
)
from benchmarks.quantizations import Quantization

HEADS = (
    "network",
    "method",
    "weights KiB",
    "promised",
    "bundle KiB",
    "accuracy %",
    "layers x bits",
    "membranes",
    "float32 layers",
    "p50 ms",
    "peak MiB",
    "measured (gated)",
    "gate: rho, wrong",
    "search s (CPU)",
)
KIB = 1 << 10
WIDTH = 220
MARKERS = "osD^vP*Xph"


def print_table(results: Sequence[Quantization]) -> None:
    """Prints a row for every method, and below what is missing."""
    rows = [_cells(result) for result in results]
    terminal_table(_title(results), HEADS, rows, list_reasons(results), width=WIDTH)


def markdown(results: Sequence[Quantization]) -> str:
    """Returns a table with a row for every method, and what is missing below it."""
    return markdown_table(_title(results), HEADS, [_cells(result) for result in results], list_reasons(results))


def plot(path: Path, results: Sequence[Quantization]) -> None:
    """Draws accuracy on the test split over the bytes of weights in the bundle: a panel a network, a marker a method.

    The dashed line is the accuracy of the network as it is, less what a search might lose.
    """
    networks = list(dict.fromkeys(result.network for result in results))
    methods = list(dict.fromkeys(result.method for result in results))
    figure = Figure(figsize=(2 + 4 * len(networks), 4.2), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        _draw(axes, [result for result in results if result.network == network], methods)
        axes.set_title(network, fontsize="medium")
    handles = [Line2D([], [], linestyle="", label=method, **_look(at)) for at, method in enumerate(methods)]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, results: Sequence[Quantization], methods: Sequence[str]) -> None:
    for result in results:
        if result.weights_bytes is not None and result.accuracy_after is not None:
            look = _look(methods.index(result.method))
            axes.plot(result.weights_bytes / KIB, result.accuracy_after, linestyle="", markersize=8, alpha=0.8, **look)
    for least in {result.accuracy_before - result.max_drop for result in results if result.accuracy_before is not None}:
        axes.axhline(least, color="black", linewidth=0.8, linestyle="dashed")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="weights in the bundle, KiB", ylabel="accuracy on the test split, %")
    axes.spines[["top", "right"]].set_visible(False)


def _look(at: int) -> dict[str, str]:
    return {"color": f"C{at % 10}", "marker": MARKERS[at % len(MARKERS)]}


def _title(results: Sequence[Quantization]) -> str:
    first = results[0]
    images = sorted({(result.data, result.validation_images, result.test_images) for result in results})
    data = "; ".join(f"{name}: {search} validation and {test} test images" for name, search, test in images)
    return (
        f"At most {first.max_drop:g} points lost in the search ({data}); "
        f"batch 1, one thread, on {first.device}; in brackets against the network before."
    )


def _cells(result: Quantization) -> list[str]:
    if result.memory_saving is None:
        return [result.network, result.method, *["-"] * (len(HEADS) - 2)]
    return [
        result.network,
        result.method + ("" if result.satisfied else " (constraint missed)"),
        _kibibytes(result.weights_bytes),
        _kibibytes(result.promised_bytes),
        _kibibytes(result.bundle_bytes),
        format_change(result.accuracy_after, result.accuracy_before),
        " ".join(f"{layers}x{bits}" for bits, layers in result.bits.items()),
        "float32" if result.membranes is None else str(result.membranes),
        "-" if result.weights_bytes is None else str(len(result.floating_point)),
        format_ratio(result.latency_before_ms, result.latency_ms, 1),
        "-" if result.peak_bytes is None else format_number(result.peak_bytes / MIB),
        f"{result.full_evaluations}" + (f" ({result.gated})" if result.gated else ""),
        _gate(result),
        f"{format_number(result.search_s, 0)} ({format_number(result.search_cpu_s, 0)})",
    ]


def _kibibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / KIB:,.1f}"


def _gate(result: Quantization) -> str:
    if not result.gated:
        return "-"
    return f"{format_number(result.rank_correlation)}, {result.wrongly_rejected} of {result.audited}"
