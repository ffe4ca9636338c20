from pathlib import Path

import pytest

from svitkit.runtime.bench.device_state import (
    DeviceState,
    parse_throttled,
    read_device_name,
    read_device_state,
    throttled_between,
    throttling,
)
from tests.runtime.sysfs_trees import BOARDS, CPU, FIRMWARE, HWMON, MODEL, PC, THERMAL, Tree, plant

ZONE = "sys/class/thermal/thermal_zone"


def test_governor_clocks_and_temperatures_of_a_board_are_read(tmp_path: Path) -> None:
    cores = {f"{CPU}/cpu{core}/cpufreq/scaling_governor": "ondemand" for core in range(11)}
    clocks = {f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": str(1_500_000 + core) for core in range(11)}
    zones = {f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "48686"}
    others = {f"{CPU}/cpufreq/boost": "0", f"{CPU}/cpuidle/current_driver": "psci"}
    state = read_device_state(plant(tmp_path, {**cores, **clocks, **zones, **others}))
    assert state.governor == "ondemand"
    assert state.requested_mhz == tuple(1500 + core / 1000 for core in range(11))
    assert state.actual_mhz is None
    assert state.temperatures_celsius == {"cpu-thermal": 48.686}
    assert state.throttling_zones is None


def test_what_a_machine_has_no_sensor_for_is_none_and_not_zero(tmp_path: Path) -> None:
    assert read_device_state(tmp_path) == DeviceState(
        governor=None, requested_mhz=None, actual_mhz=None, temperatures_celsius=None, throttling_zones=None
    )


def test_cores_with_different_governors_are_told_apart(tmp_path: Path) -> None:
    files = {f"{CPU}/cpu{i}/cpufreq/scaling_governor": name for i, name in enumerate(["schedutil", "performance"])}
    assert read_device_state(plant(tmp_path, files)).governor == "performance+schedutil"


def test_zones_of_one_type_are_numbered_and_unreadable_ones_left_out(tmp_path: Path) -> None:
    files = {f"{ZONE}{i}/type": "soc" for i in (0, 1, 10)} | {f"{ZONE}{i}/temp": f"{40 + i}000" for i in (0, 1, 10)}
    files |= {f"{ZONE}2/type": "broken", f"{ZONE}3/type": "odd", f"{ZONE}3/temp": "n/a", f"{ZONE}4/temp": "-5500"}
    state = read_device_state(plant(tmp_path, files))
    assert state.temperatures_celsius == {"soc": 40.0, "soc-1": 41.0, "thermal_zone4": -5.5, "soc-2": 50.0}


def test_a_zone_at_its_passive_trip_point_is_throttling(tmp_path: Path) -> None:
    trips = {"trip_point_0_type": "critical", "trip_point_0_temp": "40000"}
    trips |= {"trip_point_1_type": "passive", "trip_point_1_temp": "80000"}
    trips |= {"trip_point_2_type": "passive", "trip_point_2_temp": "0"}
    hot = {f"{ZONE}0/{name}": text for name, text in {**trips, "type": "cpu", "temp": "80000"}.items()}
    warm = {f"{ZONE}1/{name}": text for name, text in {**trips, "type": "gpu", "temp": "79999"}.items()}
    state = read_device_state(plant(tmp_path, hot | warm))
    assert state.throttling_zones == ("cpu",)
    assert throttling(state) == ["thermal zone cpu is at its passive trip point"]


def test_a_core_that_runs_slower_than_its_governor_asked_is_throttled(tmp_path: Path) -> None:
    files = {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "2601000", f"{CPU}/cpu0/cpufreq/cpuinfo_cur_freq": "649000"}
    files |= {f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "2601000", f"{CPU}/cpu1/cpufreq/cpuinfo_cur_freq": "2600000"}
    state = read_device_state(plant(tmp_path, files))
    assert throttling(state) == ["core 0 runs at 649 MHz although 2601 MHz were requested"]


def test_a_board_is_named_by_its_device_tree_and_a_pc_by_its_cpu(tmp_path: Path) -> None:
    assert read_device_name(tmp_path) is None
    plant(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name : AMD EPYC\n\nmodel name : other"})
    assert read_device_name(tmp_path) == "AMD EPYC"
    plant(tmp_path, {"sys/firmware/devicetree/base/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert read_device_name(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"


@pytest.mark.parametrize("board", BOARDS)
def test_an_idle_board_in_good_health_is_not_throttled(tmp_path: Path, board: str) -> None:
    state = read_device_state(plant(tmp_path, BOARDS[board]))
    assert state.temperatures_celsius
    assert state.governor in ("ondemand", "schedutil")
    assert state.requested_mhz == state.limit_mhz
    assert throttling(state) == throttled_between(state, state) == []
    assert read_device_name(tmp_path) == BOARDS[board][MODEL].rstrip("\0")


def test_sensors_of_one_family_of_boards_are_absent_on_another(tmp_path: Path) -> None:
    states = {name: read_device_state(plant(tmp_path / name, BOARDS[name])) for name in BOARDS}
    for name, state in states.items():
        is_pi = name.startswith("raspberry")
        assert (state.throttled_flags is not None, state.undervoltage_alarm is not None) == (is_pi, is_pi)
        assert (state.overcurrent_events is not None) == (name == "jetson-orin-nano")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({FIRMWARE: "50005"}, "under-voltage (get_throttled)"),
        ({FIRMWARE: "8"}, "at the soft temperature limit (get_throttled)"),
        ({f"{HWMON}/hwmon1/in0_lcrit_alarm": "1"}, "under-voltage alarm: the supply is too weak"),
        ({f"{THERMAL}/cooling_device1/cur_state": "3"}, "cpufreq-cpu0 slows cores down (step 3)"),
        (
            {f"{CPU}/cpu{core}/cpufreq/scaling_governor": "powersave" for core in range(4)},
            "governor powersave holds the lowest clock (choose one with --governor performance)",
        ),
    ],
)
def test_a_raspberry_pi_that_is_slowed_down_says_why(tmp_path: Path, change: Tree, reason: str) -> None:
    state = read_device_state(plant(tmp_path, {**BOARDS["raspberry-pi-4"], **change}))
    assert reason in throttling(state)


def test_a_governor_named_powersave_may_follow_the_load(tmp_path: Path) -> None:
    state = read_device_state(plant(tmp_path, PC))
    assert (state.governor, state.driver, throttling(state)) == ("powersave", "intel_pstate", [])


def test_flags_are_also_read_from_what_vcgencmd_says(tmp_path: Path) -> None:
    tree = {name: text for name, text in BOARDS["raspberry-pi-5"].items() if name != FIRMWARE}
    state = read_device_state(plant(tmp_path, {**tree, "sys/vcgencmd/get_throttled": "throttled=0x50000"}))
    assert state.throttled_flags == 0x50000


@pytest.mark.parametrize(("text", "flags"), [("0", 0), ("50005", 0x50005), ("0x8", 8), ("throttled=0x0", 0)])
def test_flags_have_three_spellings(text: str, flags: int) -> None:
    assert parse_throttled(text) == flags
    assert parse_throttled("error=1 text") is None


def test_what_happened_before_the_run_is_not_held_against_it_but_what_happened_in_it_is(tmp_path: Path) -> None:
    pi = BOARDS["raspberry-pi-4"]
    before = read_device_state(plant(tmp_path / "0", {**pi, FIRMWARE: "10000"}))
    after = read_device_state(plant(tmp_path / "1", {**pi, FIRMWARE: "50000"}))
    assert throttling(before) == throttling(after) == []
    assert throttled_between(before, after) == ["throttled since the run began (get_throttled)"]


def test_over_current_events_and_lowered_limits_during_the_run_are_told(tmp_path: Path) -> None:
    orin = BOARDS["jetson-orin-nano"]
    change = {f"{HWMON}/hwmon2/oc3_event_cnt": "6", f"{CPU}/cpu5/cpufreq/scaling_max_freq": "729600"}
    before = read_device_state(plant(tmp_path / "0", orin))
    after = read_device_state(plant(tmp_path / "1", {**orin, **change}))
    assert throttled_between(before, after) == [
        "over-current: oc3 counted 2 events",
        "the limit of core 5's clock fell from 1510 to 730 MHz",
    ]
