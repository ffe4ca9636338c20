from __future__ import annotations

from pathlib import Path

from svitkit.runtime.bench.runner_report import Reading, SustainedReport, Window
from svitkit.runtime.bench.sustained import SustainedWindow, read_sustained, sustained_sensors
from tests.runtime.sysfs_trees import BOARDS, FIRMWARE, plant

MS = 1_000_000


def test_temperatures_clocks_and_flags_are_watched_where_a_board_has_them(tmp_path: Path) -> None:
    pi = sustained_sensors(plant(tmp_path / "pi", BOARDS["raspberry-pi-4"]))
    clocks = [f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in range(4)]
    assert pi == ("/sys/class/thermal/thermal_zone0/temp", *clocks, f"/{FIRMWARE}")
    assert len(sustained_sensors(plant(tmp_path / "rock", BOARDS["rock-5b"]))) == 2 + 8
    assert sustained_sensors(tmp_path / "nothing") == ()


def test_a_board_that_slows_down_as_it_gets_warm_shows_it() -> None:
    sensors = ("/a/temp", "/b/temp", "/c/scaling_cur_freq", "/d/scaling_cur_freq", "/f/get_throttled")
    values = [
        ("40000", "41000", "1800000", "1800000", "0"),
        ("60000", "59000", "1800000", "1800000", "0"),
        ("81500", None, "1000000", "1800000", "e0008"),
    ]
    report = SustainedReport(
        windows=(
            Window(start_ns=0, count=100, p50_ns=10 * MS, max_ns=11 * MS),
            Window(start_ns=1000 * MS, count=60, p50_ns=16 * MS, max_ns=20 * MS),
        ),
        readings=tuple(Reading(at_ns=1000 * i * MS, values=each) for i, each in enumerate(values)),
    )
    kept = read_sustained(report, sensors, emulated=False)
    assert (kept.duration_s, kept.inferences, kept.first_ms, kept.last_ms) == (2.0, 160, 10.0, 16.0)
    assert round(kept.slowdown, 6) == 0.6
    assert kept.windows == (
        SustainedWindow(start_s=0, count=100, p50_ms=10, max_ms=11, celsius=60, clock_mhz=1800, flags=()),
        SustainedWindow(
            start_s=1,
            count=60,
            p50_ms=16,
            max_ms=20,
            celsius=81.5,
            clock_mhz=1000,
            flags=("at the soft temperature limit",),
        ),
    )


def test_what_a_board_has_no_sensor_for_is_absent() -> None:
    window = Window(start_ns=0, count=1, p50_ns=MS, max_ns=MS)
    readings = tuple(Reading(at_ns=at, values=()) for at in (0, MS))
    (kept,) = read_sustained(SustainedReport(windows=(window,), readings=readings), (), emulated=True).windows
    assert (kept.celsius, kept.clock_mhz, kept.flags) == (None, None, None)
