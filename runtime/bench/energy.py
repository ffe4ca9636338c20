"""Energy of an inference: power while the network runs, less the power of the idle board.

The sensors are read in a thread of the running program, every 50 ms or so, in three phases of one length: idle,
running and idle. A phase's power is the mean of ten parts of it, and their scatter gives the error (batch means with
Student's t, 99 %: readings in a row are not independent, parts are nearly so). The first tenth of a phase is left out,
because sensors average over some time.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic.dataclasses import dataclass as pydantic_dataclass

from svitkit.errors import RunError
from svitkit.runtime.bench.power_meter import Meter
from svitkit.runtime.bench.runner_report import STRICT, EnergyReport, Reading

PARTS = 10
T_99 = 3.250  # two-sided 99 % of Student's t with 9 degrees of freedom
LEFT_OUT = 0.1


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class Energy:
    """What the sensor said of one measurement.

    Attributes:
        meter: the sensor.
        scope: what it covers, and what not.
        inferences: in the running phase.
        phase_s: length of that phase.
        idle_w: mean power of both idle phases.
        active_w: mean power of the running phase.
        rails_w: of the running phase, by rail.
        idle_drift_w: power of the second idle phase less that of the first.
        per_inference_mj: energy of the running phase over its inferences, the idle board included.
        net_per_inference_mj: the same of what the running phase took beyond idle power.
        net_error_mj: half the 99 % interval of ``net_per_inference_mj``, half the drift included; the sensor's own
            systematic error is not in it.
        resolved: the net energy is larger than its error.
    """

    meter: str
    scope: str
    inferences: int
    phase_s: float
    idle_w: float
    active_w: float
    rails_w: dict[str, float]
    idle_drift_w: float
    per_inference_mj: float
    net_per_inference_mj: float
    net_error_mj: float
    resolved: bool


@dataclass(frozen=True, kw_only=True)
class _Power:
    """A phase: W by rail, their sum, and the half width of its 99 % interval."""

    rails: dict[str, float]
    watts: float
    error: float


def read_energy(report: EnergyReport, meter: Meter) -> Energy:
    """Computes the energy of an inference from the readings of a run.

    Raises:
        RunError: the sensor could not be read, or too seldom.
    """
    active_s = (report.idle_ns - report.active_ns) / 1e9
    before = _power(report.readings, meter, 0, report.active_ns)
    active = _power(report.readings, meter, report.active_ns, report.idle_ns)
    after = _power(report.readings, meter, report.idle_ns, report.end_ns)
    idle = (before.watts + after.watts) / 2
    drift = after.watts - before.watts
    net = active.watts - idle
    error = math.hypot(active.error, math.hypot(before.error, after.error) / 2) + abs(drift) / 2
    per_watt = active_s / report.inferences * 1e3
    return Energy(
        meter=meter.name,
        scope=meter.scope,
        inferences=report.inferences,
        phase_s=active_s,
        idle_w=idle,
        active_w=active.watts,
        rails_w=active.rails,
        idle_drift_w=drift,
        per_inference_mj=active.watts * per_watt,
        net_per_inference_mj=net * per_watt,
        net_error_mj=error * per_watt,
        resolved=net > error,
    )


def _power(readings: Sequence[Reading], meter: Meter, start_ns: int, end_ns: int) -> _Power:
    start_ns += int(LEFT_OUT * (end_ns - start_ns))
    taken = [(reading.at_ns, meter.rails(reading.values)) for reading in readings if start_ns <= reading.at_ns < end_ns]
    points = [(at_ns, rails) for at_ns, rails in taken if rails is not None]
    parts = _energy_parts(points, meter) if meter.counts else _power_parts(points)
    if parts is None:
        raise RunError(
            f"{meter.name} gave {len(points)} readings in {(end_ns - start_ns) / 1e9:.1f} s, wanted {2 * PARTS}. "
            "Measure energy for longer, or look whether this user may read the sensor."
        )
    sums = [sum(part.values()) for part in parts]
    error = T_99 * statistics.stdev(sums) / math.sqrt(PARTS)
    rails = {rail: statistics.fmean(part[rail] for part in parts) for rail in parts[0]}
    return _Power(rails=rails, watts=statistics.fmean(sums), error=error)


def _power_parts(points: Sequence[tuple[int, Mapping[str, float]]]) -> list[dict[str, float]] | None:
    """Returns the mean power of each part, by rail."""
    size = len(points) // PARTS
    if size < 2:
        return None
    parts = [points[i * size : (i + 1) * size] for i in range(PARTS)]
    return [{rail: statistics.fmean(rails[rail] for _, rails in part) for rail in part[0][1]} for part in parts]


def _energy_parts(points: Sequence[tuple[int, Mapping[str, float]]], meter: Meter) -> list[dict[str, float]] | None:
    """Returns the same of a counter: what it grew by over a part, over the part's length."""
    size = (len(points) - 1) // PARTS
    if size < 2:
        return None
    ends = [points[i * size] for i in range(PARTS + 1)]
    return [
        {
            rail: _grown(early[rail], late[rail], (meter.wraps_at or {}).get(rail)) / ((late_ns - early_ns) / 1e9)
            for rail in early
        }
        for (early_ns, early), (late_ns, late) in itertools.pairwise(ends)
    ]


def _grown(early: float, late: float, wraps_at: float | None) -> float:
    return late - early if late >= early or wraps_at is None else late - early + wraps_at
