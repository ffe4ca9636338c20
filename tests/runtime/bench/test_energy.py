"""Energy from readings that are made up, so that the answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from svitkit.errors import RunError
from svitkit.runtime.bench.energy import Energy, read_energy
from svitkit.runtime.bench.power_meter import Meter, Values
from svitkit.runtime.bench.runner_report import EnergyReport, Reading

SECOND = 1_000_000_000


def watts(values: Values) -> dict[str, float] | None:
    return None if values[0] is None else {"in": float(values[0])}


WATTS = Meter(name="INA3221", scope="rail in", files=("/in",), period_s=0.05, rails=watts)
JOULES = Meter(name="RAPL", scope="it", files=("/uj",), period_s=0.05, rails=watts, counts=True, wraps_at={"in": 100.0})


def report(power: Callable[[float], float | None], *, every_s: float = 0.05) -> EnergyReport:
    """Readings of three phases of 10 s with 2,000 inferences."""
    times = np.arange(0, 30, every_s)
    readings = [(time, power(float(time))) for time in times]
    return EnergyReport(
        active_ns=10 * SECOND,
        idle_ns=20 * SECOND,
        end_ns=30 * SECOND,
        inferences=2000,
        readings=tuple(
            Reading(at_ns=int(time * SECOND), values=(None if value is None else repr(value),))
            for time, value in readings
        ),
    )


def phases(idle: float, active: float, later: float) -> Callable[[float], float]:
    return lambda time: idle if time < 10 else active if time < 20 else later


def test_energy_is_power_above_idle_over_the_inferences() -> None:
    energy = read_energy(report(phases(2.0, 5.0, 2.0)), WATTS)
    assert energy == Energy(
        meter="INA3221",
        scope="rail in",
        inferences=2000,
        phase_s=10.0,
        idle_w=2.0,
        active_w=5.0,
        rails_w={"in": 5.0},
        idle_drift_w=0.0,
        per_inference_mj=25.0,
        net_per_inference_mj=15.0,
        net_error_mj=0.0,
        resolved=True,
    )


def test_a_board_that_idles_hotter_afterwards_widens_the_error_by_half_the_drift() -> None:
    energy = read_energy(report(phases(2.0, 5.0, 2.4)), WATTS)
    assert (energy.idle_w, energy.idle_drift_w) == pytest.approx((2.2, 0.4))
    assert energy.net_per_inference_mj == pytest.approx(14.0)
    assert energy.net_error_mj == pytest.approx(0.2 * 5)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        noise = iter(rng.normal(0, 0.3, 600))
        energy = read_energy(report(lambda time, noise=noise: phases(2.0, 5.0, 2.0)(time) + float(next(noise))), WATTS)
        missed += abs(energy.net_per_inference_mj - 15.0) > energy.net_error_mj
    assert missed <= 8  # of 300 at 99 %; half the drift makes it wider still


def test_energy_that_is_not_above_its_error_is_not_resolved() -> None:
    rng = np.random.default_rng(1)
    energy = read_energy(report(lambda time: 2.0 + float(rng.normal(0, 0.5))), WATTS)
    assert not energy.resolved


def test_a_counter_gives_the_same_although_it_begins_again() -> None:
    def counted(time: float) -> float:
        return (95 + 2 * time + 3 * min(max(time - 10, 0), 10)) % 100

    energy = read_energy(report(counted), JOULES)
    assert (energy.idle_w, energy.active_w) == pytest.approx((2.0, 5.0))
    assert energy.net_per_inference_mj == pytest.approx(15.0)


def test_the_start_of_a_phase_is_left_out_because_sensors_lag() -> None:
    energy = read_energy(report(lambda time: phases(2.0, 5.0, 2.0)(time - 0.5)), WATTS)
    assert (energy.idle_w, energy.active_w) == (2.0, 5.0)


@pytest.mark.parametrize("power", [lambda time: None, lambda time: 2.0 if time < 15 else None])
def test_a_sensor_that_falls_silent_is_an_error_and_no_zero(power: Callable[[float], float | None]) -> None:
    with pytest.raises(RunError, match=r"INA3221 gave \d+ readings in 9\.0 s, wanted 20"):
        read_energy(report(power), WATTS)
    with pytest.raises(RunError, match="gave 9 readings"):
        read_energy(report(phases(2.0, 5.0, 2.0), every_s=1.0), WATTS)
