from pathlib import Path

from svitkit.runtime.device_state import DeviceState, read_device_name, read_device_state, throttling


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


CPU = "sys/devices/system/cpu"
ZONE = "sys/class/thermal/thermal_zone"


def test_governor_clocks_and_temperatures_of_a_board_are_read(tmp_path: Path) -> None:
    cores = {f"{CPU}/cpu{core}/cpufreq/scaling_governor": "ondemand" for core in range(11)}
    clocks = {f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": str(1_500_000 + core) for core in range(11)}
    zones = {f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "48686"}
    others = {f"{CPU}/cpufreq/boost": "0", f"{CPU}/cpuidle/current_driver": "psci"}
    state = read_device_state(write(tmp_path, {**cores, **clocks, **zones, **others}))
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
    assert read_device_state(write(tmp_path, files)).governor == "performance+schedutil"


def test_zones_of_one_type_are_numbered_and_unreadable_ones_left_out(tmp_path: Path) -> None:
    files = {f"{ZONE}{i}/type": "soc" for i in (0, 1, 10)} | {f"{ZONE}{i}/temp": f"{40 + i}000" for i in (0, 1, 10)}
    files |= {f"{ZONE}2/type": "broken", f"{ZONE}3/type": "odd", f"{ZONE}3/temp": "n/a", f"{ZONE}4/temp": "-5500"}
    state = read_device_state(write(tmp_path, files))
    assert state.temperatures_celsius == {"soc": 40.0, "soc-1": 41.0, "thermal_zone4": -5.5, "soc-2": 50.0}


def test_a_zone_at_its_passive_trip_point_is_throttling(tmp_path: Path) -> None:
    trips = {"trip_point_0_type": "critical", "trip_point_0_temp": "40000"}
    trips |= {"trip_point_1_type": "passive", "trip_point_1_temp": "80000"}
    trips |= {"trip_point_2_type": "passive", "trip_point_2_temp": "0"}
    hot = {f"{ZONE}0/{name}": text for name, text in {**trips, "type": "cpu", "temp": "80000"}.items()}
    warm = {f"{ZONE}1/{name}": text for name, text in {**trips, "type": "gpu", "temp": "79999"}.items()}
    state = read_device_state(write(tmp_path, hot | warm))
    assert state.throttling_zones == ("cpu",)
    assert throttling(state) == ["thermal zone cpu is at its passive trip point"]


def test_a_core_that_runs_slower_than_its_governor_asked_is_throttled(tmp_path: Path) -> None:
    files = {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "2601000", f"{CPU}/cpu0/cpufreq/cpuinfo_cur_freq": "649000"}
    files |= {f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "2601000", f"{CPU}/cpu1/cpufreq/cpuinfo_cur_freq": "2600000"}
    state = read_device_state(write(tmp_path, files))
    assert throttling(state) == ["core 0 runs at 649 MHz although 2601 MHz were requested"]


def test_a_board_is_named_by_its_device_tree_and_a_pc_by_its_cpu(tmp_path: Path) -> None:
    assert read_device_name(tmp_path) is None
    write(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name : AMD EPYC\n\nmodel name : other"})
    assert read_device_name(tmp_path) == "AMD EPYC"
    write(tmp_path, {"sys/firmware/devicetree/base/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert read_device_name(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"
