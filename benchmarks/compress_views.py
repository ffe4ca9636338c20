"""Reports of compression for people: a table in the terminal, a table in Markdown, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console
from rich.table import Table

from benchmarks.compressions import Compression, Point

HEADS = (
    "network",
    "method",
    "memory saved",
    "accuracy %",
    "after",
    "fine-tuned",
    "MACs",
    "p50 ms",
    "peak MiB",
    "search s (CPU)",
)
MIB = 1 << 20
WIDTH = 140


def print_table(results: Sequence[Compression]) -> None:
    """Prints a row for every method, and below what is missing or had to be done."""
    terminal_table(_title(results), HEADS, [_cells(result) for result in results], list_reasons(results))


def markdown(results: Sequence[Compression]) -> str:
    """Returns a table with a row for every method, and what is missing or had to be done below it."""
    return markdown_table(_title(results), HEADS, [_cells(result) for result in results], list_reasons(results))


def plot(path: Path, results: Sequence[Compression]) -> None:
    """Draws accuracy over memory saved, one panel a network and one colour a method.

    Lines are what the searches measured on the validation images; a disc is the network that a method chose, and a
    diamond the same after fine-tuning, both on the test split.
    """
    networks = list(dict.fromkeys(result.network for result in results))
    methods = list(dict.fromkeys(result.method for result in results))
    figure = Figure(figsize=(1.5 + 5 * len(networks), 4.2), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        shown = [result for result in results if result.network == network and result.memory_saving is not None]
        for result in shown:
            color = f"C{methods.index(result.method)}"
            start = Point(saving=0.0, lost=0.0)
            inside = [start, *(point for point in result.points if point.lost <= 2 * result.max_drop + 1)]
            axes.plot(
                [100 * point.saving for point in inside],
                [-point.lost for point in inside],
                color=color,
                marker=".",
                linewidth=1,
                markersize=3,
            )
            for reached, marker in ((result.accuracy_after, "o"), (result.accuracy_finetuned, "D")):
                if reached is not None and result.accuracy_before is not None:
                    change = reached - result.accuracy_before
                    axes.plot(100 * (result.memory_saving or 0.0), change, color=color, marker=marker, markersize=8)
        for limit in {result.max_drop for result in shown}:
            axes.axhline(-limit, color="black", linewidth=0.8, linestyle="dashed")
        axes.set(xlabel="memory saved, % of the parameter bytes", ylabel="change of accuracy, points")
        axes.set_title(network, fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=f"C{at}", label=method) for at, method in enumerate(methods)]
    marks = [("o", "test split"), ("D", "fine-tuned, test split"), (".", "searched, validation")]
    handles += [Line2D([], [], color="black", marker=marker, linestyle="", label=text) for marker, text in marks]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def terminal_table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], *, width: int = WIDTH
) -> None:
    """Prints rows, and notes below them, at least so many characters wide."""
    table = Table(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    console = Console(width=max(Console().width, width))
    console.print(table, *notes, sep="\n", highlight=False)


def markdown_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Returns rows as a table in Markdown, with notes below it; all columns but the first two hold numbers."""
    lines = [title, "", *(_row(row) for row in (heads, ["---", "---", *["---:"] * (len(heads) - 2)], *rows))]
    return "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes)])


def _title(results: Sequence[Compression]) -> str:
    first = results[0]
    images = sorted({(result.data, result.validation_images, result.test_images) for result in results})
    data = "; ".join(f"{name}: {search} validation and {test} test images" for name, search, test in images)
    return (
        f"At most {first.max_drop:g} points lost in the search, at least {first.min_saving:.2%} to save ({data}); "
        f"batch 1, one thread, on {first.device}; in brackets against the network before."
    )


def _cells(result: Compression) -> list[str]:
    if result.memory_saving is None or result.before is None or result.after is None:
        return [result.network, result.method, *["-"] * (len(HEADS) - 2)]
    before, after = result.before, result.after
    return [
        result.network,
        result.method,
        f"{100 * result.memory_saving:.1f} %" + ("" if result.satisfied else " (constraint missed)"),
        format_number(result.accuracy_before),
        format_change(result.accuracy_after, result.accuracy_before),
        format_change(result.accuracy_finetuned, result.accuracy_before),
        f"{after.macs / 1e6:.1f} M (-{1 - after.macs / before.macs:.0%})",
        format_ratio(before.latency_ms, after.latency_ms, 1) + _predicted(result.predicted_speedup),
        format_ratio(before.peak_bytes, after.peak_bytes, MIB),
        f"{format_number(result.search_s, 0)} ({format_number(result.search_cpu_s, 0)})",
    ]


def format_number(value: float | None, digits: int = 2) -> str:
    """Writes a number, or a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def format_change(value: float | None, before: float | None) -> str:
    """Writes a number, and in brackets how far it is from another."""
    return "-" if value is None or before is None else f"{value:.2f} ({value - before:+.2f})"


def format_ratio(before: float | None, after: float | None, unit: int) -> str:
    """Writes a number in units, and in brackets how many times as much it was before."""
    return "-" if before is None or after is None else f"{after / unit:.2f} ({before / after:.2f}x)"


def _predicted(speedup: float | None) -> str:
    return "" if speedup is None else f", {speedup:.2f}x predicted"


class Explained(Protocol):
    """What a report of any method says."""

    @property
    def network(self) -> str: ...  # noqa: D102

    @property
    def method(self) -> str: ...  # noqa: D102

    @property
    def reasons(self) -> dict[str, str]: ...  # noqa: D102


def list_reasons(results: Sequence[Explained]) -> list[str]:
    """Says of every method what is missing or had to be done."""
    return [
        f"{result.network}, {result.method}: {key}: {reason}"
        for result in results
        for key, reason in result.reasons.items()
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
