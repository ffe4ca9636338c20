"""Splitting a channel axis into vector panels, and packing weights in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.runtime.kernels.launch import current_gpu

VECTOR = 32  # channels; panels of a multiple of it are cut into vectors that are powers of two


@dataclass(frozen=True)
class PanelRun:
    """``count`` neighbouring panels of ``width`` channels, beginning at channel ``start``."""

    start: int
    width: int
    count: int


def panel_runs(channels: int, lanes: int) -> tuple[PanelRun, ...]:
    """Covers ``channels`` with panels of at most ``lanes``; no channel is padded.

    As few equal panels as possible, if they are whole vectors; else panels of ``lanes`` and then of falling powers of
    two, because vectors that are no power of two are about four times slower in LLVM. On a GPU every channel is one.
    """
    if current_gpu() is not None:
        return (PanelRun(0, 1, channels),)
    count = -(-channels // lanes)
    if channels % (count * VECTOR) == 0:
        return (PanelRun(0, channels // count, count),)
    runs = []
    start = 0
    width = lanes
    while start < channels:
        count = (channels - start) // width
        if count:
            runs.append(PanelRun(start, width, count))
            start += count * width
        width //= 2
    return tuple(runs)


def panels(array: NDArray[Any], runs: Sequence[PanelRun]) -> list[NDArray[Any]]:
    """Cuts an array (rows, channels, ...) into panels that cover its channels, :func:`panel_runs` for example."""
    return [array[:, run.start + index * run.width :][:, : run.width] for run in runs for index in range(run.count)]


def pack_panels(weight: NDArray[Any], runs: Sequence[PanelRun]) -> NDArray[Any]:
    """Packs (rows, channels, ...) float32 or int8 so that every panel's (rows, width, ...) block is contiguous.

    Returns:
        (weight.size,) of the same type; the panel at channel n begins at ``n`` times the elements of one channel.
    """
    return np.concatenate([panel.ravel() for panel in panels(weight, runs)])
