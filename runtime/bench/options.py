"""What a measurement is asked for, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from svitkit.boards.gpu import Device
from svitkit.errors import ConfigError

MOST_FRAMES = 100_000


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of :func:`svitkit.runtime.bench.measure.bench`.

    Attributes:
        limit: test images to classify at most.
        warmup: inferences before the samples, at least.
        warmup_s: the warm-up goes on until times are steady, but no longer than this.
        repeat: least number of samples; an emulated board takes at most 10.
        min_time_s: least time that the samples add up to; not on an emulated board.
        timeout_s: longest time for one run of the program on the board, beside what the options below ask for.
        threads: threads that share the work of an inference; ``auto`` tries 1, 2, 4 and so on and takes the fastest;
            the board's own number if None.
        cpus: cores to stay on: ``4-7,9``, ``big``, ``little`` or ``all``; the fastest cluster if None.
        governor: cpufreq governor for the time of the measurement; left as it is if None.
        profile: whether every kernel call is timed as well, in inferences that are no samples.
        duration_s: how long the network then runs without a break; 0 for not at all.
        frames: frames that are then streamed; 0 for none.
        fps: frames that arrive in a second; None: each comes when the last one is done.
        deadline_ms: a frame that took longer since its arrival is late; the time between two arrivals if None.
        energy_s: how long energy is measured, with as long a rest before and after; 0 for not at all.
        require_device: ``cpu`` or ``gpu``: nothing is measured on another kind of device; None: what the bundle wants.

    Raises:
        ConfigError: with such numbers nothing can be measured.
    """

    limit: int = 360
    warmup: int = 5
    warmup_s: float = 5.0
    repeat: int = 50
    min_time_s: float = 1.0
    timeout_s: float = 600.0
    threads: int | Literal["auto"] | None = None
    cpus: str | None = None
    governor: str | None = None
    profile: bool = False
    duration_s: float = 0.0
    frames: int = 0
    fps: float | None = None
    deadline_ms: float | None = None
    energy_s: float = 0.0
    require_device: Device | None = None

    def __post_init__(self) -> None:
        """Refuses numbers with which nothing can be measured."""
        self._require("warmup", self.warmup >= 0, ">= 0")
        self._require("warmup_s", self.warmup_s >= 0, ">= 0")
        self._require("repeat", self.repeat >= 1, ">= 1")
        self._require("min_time_s", self.min_time_s >= 0, ">= 0")
        self._require("timeout_s", self.timeout_s > 0, "> 0")
        self._require("threads", self.threads in (None, "auto") or int(self.threads or 0) >= 1, ">= 1 or auto")
        self._require("duration_s", self.duration_s >= 0, ">= 0")
        self._require("energy_s", self.energy_s >= 0, ">= 0")
        self._require("frames", 0 <= self.frames <= MOST_FRAMES, f"0 to {MOST_FRAMES}")
        self._require("fps", self.fps is None or (self.fps > 0 and self.frames > 0), "> 0, together with frames")
        has_deadline = self.deadline_ms is not None
        self._require("deadline_ms", not has_deadline or self.fps is not None, "together with fps")

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name}={getattr(self, name)}: nothing can be measured so. Wanted {wanted}.")


def threads_or_auto(text: str | None) -> int | Literal["auto"] | None:
    """Reads a number of threads, or the word ``auto``.

    Raises:
        ConfigError: it is neither.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise ConfigError(f"--threads '{text}' is no number of threads. Wanted 1, 2, ... or auto.")
    return int(text)
