"""A network that runs for minutes: what is left of a board's speed once it is warm."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass

from svitkit.runtime.bench.device_state import FIRMWARE, parse_throttled, throttled_flags
from svitkit.runtime.bench.latency import STRICT
from svitkit.runtime.bench.runner_report import Reading, SustainedReport
from svitkit.runtime.bench.sysfs import parse_integer, read_integer, read_numbered

TEMPERATURES = "sys/class/thermal/thermal_zone[0-9]*/temp"
CLOCKS = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
SUSTAINED_FILES = (TEMPERATURES, CLOCKS, FIRMWARE)
"""Sensors that are read between two windows, as patterns of a shell."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SustainedWindow:
    """Inferences without a break, and the sensors after them.

    Attributes:
        start_s: since the phase began.
        count: inferences.
        p50_ms, max_ms: of their times.
        celsius: of the hottest zone.
        clock_mhz: of the slowest core, as the governor asked.
        flags: what a Raspberry Pi's get_throttled says.
    """

    start_s: float
    count: int
    p50_ms: float
    max_ms: float
    celsius: float | None = None
    clock_mhz: float | None = None
    flags: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sustained:
    """A run without a break.

    Attributes:
        emulated: the times are those of an emulator and say nothing about a board.
        duration_s: how long.
        inferences: how many.
        first_ms: median of the first window.
        last_ms: median of the medians of the last quarter of the windows.
        slowdown: ``last_ms`` over ``first_ms``, less 1.
        windows: in order.
    """

    emulated: bool
    duration_s: float
    inferences: int
    first_ms: float
    last_ms: float
    slowdown: float
    windows: tuple[SustainedWindow, ...]


def sustained_sensors(root: Path) -> tuple[str, ...]:
    """Returns the files on the board that are read between two windows; ``root`` holds a copy of its ``sys``."""
    files = [path for pattern in SUSTAINED_FILES for path in read_numbered(root, pattern)]
    readable = [path for path in files if read_integer(path, 16) is not None]
    return tuple("/" + str(path.relative_to(root)) for path in readable)


def read_sustained(report: SustainedReport, sensors: Sequence[str], *, emulated: bool) -> Sustained:
    """Describes a run without a break.

    Args:
        report: what the program printed.
        sensors: the files it read.
        emulated: whether an emulator ran.
    """
    medians = [window.p50_ns / 1e6 for window in report.windows]
    last = statistics.median(medians[-max(1, len(medians) // 4) :])
    final = report.windows[-1]
    return Sustained(
        emulated=emulated,
        duration_s=max(report.readings[-1].at_ns, final.start_ns + final.p50_ns * final.count) / 1e9,
        inferences=sum(window.count for window in report.windows),
        first_ms=medians[0],
        last_ms=last,
        slowdown=last / medians[0] - 1,
        windows=tuple(
            SustainedWindow(
                start_s=window.start_ns / 1e9,
                count=window.count,
                p50_ms=window.p50_ns / 1e6,
                max_ms=window.max_ns / 1e6,
                celsius=_celsius(reading, sensors),
                clock_mhz=_clock_mhz(reading, sensors),
                flags=_flags(reading, sensors),
            )
            for window, reading in zip(report.windows, report.readings[1:], strict=True)
        ),
    )


def _texts(reading: Reading, sensors: Sequence[str], name: str) -> list[str]:
    found = zip(sensors, reading.values, strict=True)
    return [text for path, text in found if Path(path).name == name and text is not None]


def _celsius(reading: Reading, sensors: Sequence[str]) -> float | None:
    return max(_thousandths(reading, sensors, "temp"), default=None)


def _clock_mhz(reading: Reading, sensors: Sequence[str]) -> float | None:
    return min(_thousandths(reading, sensors, "scaling_cur_freq"), default=None)


def _thousandths(reading: Reading, sensors: Sequence[str], name: str) -> list[float]:
    numbers = (parse_integer(text) for text in _texts(reading, sensors, name))
    return [number / 1000 for number in numbers if number is not None]


def _flags(reading: Reading, sensors: Sequence[str]) -> tuple[str, ...] | None:
    bits = [parse_throttled(text) for text in _texts(reading, sensors, Path(FIRMWARE).name)]
    return None if not bits or bits[0] is None else tuple(throttled_flags(bits[0]))
