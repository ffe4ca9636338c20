"""What the kernels of boards show under /sys, as their documentation describes it: sources in the modules that read it.

Each tree is that of an idle, healthy board; tests change single files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"
HWMON = "sys/class/hwmon"
MODEL = "sys/firmware/devicetree/base/model"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
Tree = dict[str, str]


def plant(root: Path, tree: Mapping[str, str]) -> Path:
    """Writes a tree and returns its root."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def cores(count: int, *, mhz: int, governor: str = "ondemand", driver: str = "cpufreq-dt", first: int = 0) -> Tree:
    """cpufreq of some cores at their highest clock."""
    files = {
        "scaling_driver": driver,
        "scaling_governor": governor,
        "scaling_cur_freq": str(1000 * mhz),
        "scaling_max_freq": str(1000 * mhz),
    }
    numbers = range(first, first + count)
    return {f"{CPU}/cpu{core}/cpufreq/{name}": text for core in numbers for name, text in files.items()}


def online(count: int) -> Tree:
    """The list of cores."""
    return {f"{CPU}/online": f"0-{count - 1}" if count > 1 else "0"}


def zone(number: int, kind: str, celsius: float) -> Tree:
    """A thermal zone."""
    folder = f"{THERMAL}/thermal_zone{number}"
    return {f"{folder}/type": kind, f"{folder}/temp": str(round(1000 * celsius))}


def kinds(parts: Mapping[int, tuple[int | None, str]]) -> Tree:
    """Capacity and main identification register of cores, by number."""
    tree: Tree = {}
    for core, (capacity, midr) in parts.items():
        tree[f"{CPU}/cpu{core}/regs/identification/midr_el1"] = midr
        if capacity is not None:
            tree[f"{CPU}/cpu{core}/cpu_capacity"] = str(capacity)
    return tree


def raspberry_pi(model: str, *, mhz: int, midr: str) -> Tree:
    """A Raspberry Pi: one zone, a fan, an alarm of the supply, and the firmware's flags."""
    return {
        MODEL: f"{model}\0",
        **online(4),
        **cores(4, mhz=mhz),
        **kinds(dict.fromkeys(range(4), (1024, midr))),
        **zone(0, "cpu-thermal", 45.3),
        f"{THERMAL}/cooling_device0/type": "pwm-fan",
        f"{THERMAL}/cooling_device0/cur_state": "2",
        f"{THERMAL}/cooling_device1/type": "cpufreq-cpu0",
        f"{THERMAL}/cooling_device1/cur_state": "0",
        f"{HWMON}/hwmon0/name": "cpu_thermal",
        f"{HWMON}/hwmon1/name": "rpi_volt",
        f"{HWMON}/hwmon1/in0_lcrit_alarm": "0",
        FIRMWARE: "0",
    }


def ina3221(number: int, rails: Mapping[int, tuple[str, int, int]]) -> Tree:
    """An INA3221 as hwmon shows it: label, mV and mA by channel, and the sum of the shunts, which is no rail."""
    folder = f"{HWMON}/hwmon{number}"
    tree = {f"{folder}/name": "ina3221", f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": "1"}
    for channel, (label, millivolts, milliamperes) in rails.items():
        tree[f"{folder}/in{channel}_label"] = label
        tree[f"{folder}/in{channel}_input"] = str(millivolts)
        tree[f"{folder}/curr{channel}_input"] = str(milliamperes)
    return tree


def overcurrent(number: int) -> Tree:
    """The counters of over-current events of an Orin."""
    folder = f"{HWMON}/hwmon{number}"
    return {f"{folder}/name": "soctherm_oc", **{f"{folder}/oc{i}_event_cnt": "4" for i in (1, 2, 3)}}


JETSON_NANO = {
    MODEL: "NVIDIA Jetson Nano Developer Kit\0",
    **online(4),
    **cores(4, mhz=1479, governor="schedutil", driver="tegra_cpufreq"),
    **kinds(dict.fromkeys(range(4), (None, "0x00000000411fd071"))),
    **zone(0, "AO-therm", 40.0),
    **zone(1, "CPU-therm", 34.5),
    "sys/bus/iio/devices/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/iio/devices/iio:device0/rail_name_1": "POM_5V_GPU",
    "sys/bus/iio/devices/iio:device0/rail_name_2": "POM_5V_CPU",
    "sys/bus/iio/devices/iio:device0/in_power0_input": "2170",
    "sys/bus/iio/devices/iio:device0/in_power1_input": "40",
    "sys/bus/iio/devices/iio:device0/in_power2_input": "330",
}
JETSON_XAVIER_NX = {
    MODEL: "NVIDIA Jetson Xavier NX Developer Kit\0",
    **online(6),
    **cores(6, mhz=1420, governor="schedutil", driver="tegra194"),
    **kinds(dict.fromkeys(range(6), (None, "0x000000004e0f0040"))),
    **zone(0, "AUX-therm", 37.0),
    **ina3221(4, {1: ("VDD_IN", 5000, 812), 2: ("VDD_CPU_GPU_CV", 5000, 120), 3: ("VDD_SOC", 5000, 224)}),
}
JETSON_ORIN_NANO = {
    MODEL: "NVIDIA Jetson Orin Nano Developer Kit\0",
    **online(6),
    **cores(6, mhz=1510, governor="schedutil", driver="tegra194-cpufreq"),
    **kinds(dict.fromkeys(range(6), (1024, "0x00000000410fd421"))),
    **zone(0, "cpu-thermal", 44.6),
    **ina3221(1, {1: ("VDD_IN", 5064, 896), 2: ("VDD_CPU_GPU_CV", 5064, 104), 3: ("VDD_SOC", 5056, 280)}),
    **overcurrent(2),
}
AGX_ORIN = {
    **online(12),
    **ina3221(3, {1: ("VDD_GPU_SOC", 19000, 100), 2: ("VDD_CPU_CV", 19000, 50), 3: ("VIN_SYS_5V0", 5000, 900)}),
    **ina3221(4, {1: ("NC", 5000, 0), 2: ("VDDQ_VDD2_1V8AO", 5000, 60)}),
}
ROCK_5B = {
    MODEL: "Radxa ROCK 5B\0",
    **online(8),
    **cores(4, mhz=1800),
    **cores(4, mhz=2256, first=4),
    **kinds(
        dict.fromkeys(range(4), (530, "0x00000000412fd050")) | dict.fromkeys(range(4, 8), (1024, "0x00000000414fd0b0"))
    ),
    **zone(0, "soc-thermal", 39.8),
    **zone(1, "bigcore0-thermal", 40.7),
}
PC = {
    **online(2),
    **cores(2, mhz=3600, governor="powersave", driver="intel_pstate"),
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "10",
}
BOARDS: dict[str, Tree] = {
    "raspberry-pi-zero-2w": raspberry_pi("Raspberry Pi Zero 2 W Rev 1.0", mhz=1000, midr="0x00000000410fd034"),
    "raspberry-pi-3b-plus": raspberry_pi("Raspberry Pi 3 Model B Plus Rev 1.3", mhz=1400, midr="0x00000000410fd034"),
    "raspberry-pi-4": raspberry_pi("Raspberry Pi 4 Model B Rev 1.4", mhz=1800, midr="0x00000000410fd083"),
    "raspberry-pi-5": raspberry_pi("Raspberry Pi 5 Model B Rev 1.0", mhz=2400, midr="0x00000000414fd0b1"),
    "jetson-nano": JETSON_NANO,
    "jetson-xavier-nx": JETSON_XAVIER_NX,
    "jetson-orin-nano": JETSON_ORIN_NANO,
    "rock-5b": ROCK_5B,
}
