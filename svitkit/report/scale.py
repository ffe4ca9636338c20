"""Axes of charts: their range, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_TICKS = 6
LOG_FROM = 4.0
"""An axis is logarithmic if its largest value is at least so many times the smallest."""
SUBDIVISIONS = ((1.0, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""Ticks of a logarithmic axis within a decade, the densest first."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One axis.

    Attributes:
        title: quantity and unit.
        low, high: the values at its ends.
        log: whether equal lengths are equal ratios.
        ticks: values that are marked.
    """

    title: str
    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Returns where a value lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def make_scale(
    title: str,
    values: Sequence[float],
    *,
    log: bool | None = None,
    lowest: float | None = None,
    highest: float = math.inf,
) -> Scale:
    """Makes an axis on which values have some room.

    Args:
        title: quantity and unit.
        values: at least one.
        log: whether it is logarithmic; if None, where the values are positive and far apart.
        lowest: where the axis begins at the lowest; None for any place.
        highest: where the axis ends at the highest.
    """
    least, most = min(values), max(values)
    if log is None:
        log = least > 0 and most / least >= LOG_FROM
    if log:
        margin = (most / least) ** 0.06 * 1.04
        low, high = least / margin, most * margin
    else:
        margin = 0.08 * (most - least) or 0.05 * abs(most) or 1.0
        low, high = least - margin, most + margin
    low = low if lowest is None else max(low, lowest)
    high = min(high, highest)
    return Scale(title=title, low=low, high=high, log=log, ticks=_ticks(low, high, log))


def _ticks(low: float, high: float, log: bool) -> tuple[float, ...]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if log:
        for subdivision in SUBDIVISIONS:
            ticks = _within(LogLocator(subs=subdivision, numticks=100).tick_values(low, high), low, high)
            if 3 <= len(ticks) <= MOST_TICKS:
                return ticks
    return _within(MaxNLocator(MOST_TICKS - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high), low, high)


def _within(ticks: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    margin = 1e-9 * (high - low)
    return tuple(float(tick) for tick in ticks if low - margin <= tick <= high + margin)


def tick_text(value: float) -> str:
    """Writes the value of a tick."""
    rounded = float(f"{value:.6g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
