"""How a report writes figures; what was not measured is an empty cell."""

from __future__ import annotations

KIBIBYTE = 1024


def figure(value: float | None) -> str:
    """Writes a figure with three significant digits at least."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def between(ends: tuple[float, float]) -> str:
    """Writes a range."""
    return f"{figure(ends[0])} to {figure(ends[1])}"


def kibibytes(count: float | None) -> str:
    """Writes a number of bytes, in KiB and without the unit."""
    return "" if count is None else f"{count / KIBIBYTE:,.0f}"


def percent(share: float | None) -> str:
    """Writes a share (0..1)."""
    return "" if share is None else f"{100 * share:.1f} %"


def microseconds(nanoseconds: float | None) -> str:
    """Writes a duration, in microseconds and without the unit."""
    return "" if nanoseconds is None else f"{nanoseconds / 1e3:,.1f}"


def milliseconds(value: float | None, *, emulated: bool) -> str:
    """Writes a duration, without the unit; what an emulator took is called so."""
    return figure(value) + (" (emulator)" if emulated and value is not None else "")


def verdict(valid: bool, reasons: tuple[str, ...]) -> str:
    """Writes whether a run may be believed, and what speaks against it."""
    return "valid" if valid else "INVALID: " + "; ".join(reasons)
