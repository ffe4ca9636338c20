"""The robustness curves and the order table of a search as a picture, ``sweep.svg`` beside the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svitkit.compress.balance import BalanceConfig
from svitkit.compress.primesvt import PrimeSVTConfig
from svitkit.compress.report import GroupReport, PruneReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT_NAME = "sweep.svg"
NAMED = 10
"""Groups, the largest, that have a colour of their own; the others are grey."""
GREY = "#c4c4c4"


def draw_sweep(path: Path, report: PruneReport) -> None:
    """Draws what a search measured and decided; the same report gives the same bytes.

    On the left, for every group, accuracy on the validation split over the fraction of its channels removed, nothing
    else pruned, with the loss up to which a rate counts as robust; a ring marks what was removed in the end. On the
    right the groups by size, as they were gone through, and the part of each that was removed.

    Args:
        path: the SVG file to write.
        report: of a method that sweeps groups.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    groups = sorted((group for group in report.groups if group.order), key=lambda group: group.order or 0)
    figure = Figure(figsize=(11, max(4.0, 1.2 + 0.22 * len(groups))), layout="constrained")
    curves, table = figure.subplots(1, 2, width_ratios=(3, 2))
    colors = {group.name: f"C{at}" if at < NAMED else GREY for at, group in enumerate(groups)}
    _draw_curves(curves, report, groups, colors)
    _draw_table(table, groups, colors)
    with mpl.rc_context({"svg.hashsalt": "svitkit", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_curves(axes: Axes, report: PruneReport, groups: Sequence[GroupReport], colors: dict[str, str]) -> None:
    before = report.before.validation
    for group in reversed(groups):  # the largest on top
        rates = [1 - point.channels / group.channels_before for point in group.sweep]
        values = [point.accuracy for point in group.sweep]
        axes.plot([0.0, *rates], [before, *values], color=colors[group.name], marker=".", linewidth=1)
        for rate, value in zip(rates, values, strict=True):
            if group.ratio and abs(rate - group.ratio) < 1e-9:
                axes.plot(rate, value, color=colors[group.name], marker="o", markersize=9, fillstyle="none")
    axes.axhline(before, color="black", linewidth=0.8)
    assert isinstance(report.settings, BalanceConfig | PrimeSVTConfig), "other methods have no groups"
    axes.axhline(before - report.settings.tolerance, color="black", linewidth=0.8, linestyle="dashed")
    axes.set(xlabel="fraction of the group's channels removed, alone", ylabel="validation accuracy in %")
    axes.set_title("robustness; dashed: the loss up to which a rate is robust", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_table(axes: Axes, groups: Sequence[GroupReport], colors: dict[str, str]) -> None:
    names = [group.name for group in groups]
    sizes = [group.size_bytes / 1024 for group in groups]
    axes.barh(names, sizes, color=[colors[name] for name in names], alpha=0.35)
    removed = [size * group.ratio for size, group in zip(sizes, groups, strict=True)]
    bars = axes.barh(names, removed, color=[colors[name] for name in names])
    texts = [f"{group.ratio:.0%} removed" if group.ratio else "" if group.target else "no target" for group in groups]
    axes.bar_label(bars, texts, padding=4, fontsize="small")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize="small")
    axes.set(xlabel="KiB; full colour: removed")
    axes.set_title("order, largest first", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
