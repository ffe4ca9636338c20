"""What a Linux machine says about its clocks, temperatures and supply, before and after a measurement.

Sources: Linux Documentation/admin-guide/pm/cpufreq.rst and Documentation/driver-api/thermal/sysfs-api.rst; of Raspberry
Pi, documentation/asciidoc/computers/os/using-os.adoc (get_throttled); of Jetson, the over-current counters beside its
power monitors (oc*_event_cnt, NVIDIA Jetson Linux Developer Guide, "Over-Current Throttling"). What a machine has no
sensor for is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from svitkit.runtime.bench.sysfs import parse_integer, read_integer, read_numbered, read_text

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"
HWMON = "sys/class/hwmon/hwmon[0-9]*"
CLOCKS = ("scaling_driver", "scaling_governor", "scaling_cur_freq", "cpuinfo_cur_freq", "scaling_max_freq")
READINGS = ("type", "temp", "trip_point_[0-9]*_type", "trip_point_[0-9]*_temp")
FIRMWARE = "sys/devices/platform/*/*firmware/get_throttled"
VCGENCMD = "sys/vcgencmd/get_throttled"
STATE_FILES = (
    *(f"{CPU}/cpu[0-9]*/cpufreq/{name}" for name in CLOCKS),
    *(f"{THERMAL}/thermal_zone[0-9]*/{name}" for name in READINGS),
    *(f"{THERMAL}/cooling_device[0-9]*/{name}" for name in ("type", "cur_state")),
    *(f"{HWMON}/{name}" for name in ("name", "in0_lcrit_alarm", "oc[0-9]_event_cnt")),
    FIRMWARE,
    VCGENCMD,
)
"""What :func:`read_device_state` reads, as patterns of a shell. ``vcgencmd`` is what that program says, where it is."""
ACTUAL_CLOCK_SHARE = (
    0.9  # below this share of the requested clock, something other than the governor holds the CPU back
)
# Bits of get_throttled, and 16 bits higher the same since the system was started.
FLAGS = ("under-voltage", "the clock is capped", "throttled", "at the soft temperature limit")
SINCE_START = 16
# Beginnings of the names of cooling devices that lower the clock of cores; others are fans, GPUs and modems.
CPU_COOLING = ("cpu", "thermal-cpu", "processor")
# Drivers whose governor "powersave" follows the load; every other one holds the lowest clock under that name.
DYNAMIC_DRIVERS = ("intel_pstate", "amd-pstate", "amd-pstate-epp")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class DeviceState:
    """One look at a machine's clocks, temperatures and supply.

    Attributes:
        governor: cpufreq governor of the cores, joined with ``+`` where they differ.
        driver: of cpufreq, in the same way.
        requested_mhz: clock that the governor asked for, per core (``scaling_cur_freq``).
        actual_mhz: clock that the hardware reports, per core (``cpuinfo_cur_freq``, often readable by root only).
        limit_mhz: highest clock that the governor may ask for, per core (``scaling_max_freq``).
        temperatures_celsius: temperature of each thermal zone by its type; zones of one type are numbered.
        throttling_zones: zones at or above a passive trip point, where the kernel slows the machine down.
        cooling: devices that slow cores down to cool them, with their step above 0.
        throttled_flags: a Raspberry Pi's ``get_throttled``.
        undervoltage_alarm: a Raspberry Pi's alarm of its supply (driver ``rpi_volt``).
        overcurrent_events: a Jetson's counters of over-current events since it was started.
    """

    governor: str | None = None
    driver: str | None = None
    requested_mhz: tuple[float, ...] | None = None
    actual_mhz: tuple[float, ...] | None = None
    limit_mhz: tuple[float, ...] | None = None
    temperatures_celsius: dict[str, float] | None = None
    throttling_zones: tuple[str, ...] | None = None
    cooling: dict[str, int] | None = None
    throttled_flags: int | None = None
    undervoltage_alarm: bool | None = None
    overcurrent_events: dict[str, int] | None = None


def read_device_state(root: Path = Path("/")) -> DeviceState:
    """Reads governor, clocks, temperatures and supply from a tree that holds ``sys``.

    Args:
        root: ``/``, or a recorded tree.
    """
    zones = dict(_zones(root))
    temperatures = {name: value for name, (value, _) in zones.items()}
    return DeviceState(
        governor=_joined(root, "scaling_governor"),
        driver=_joined(root, "scaling_driver"),
        requested_mhz=_clocks_mhz(root, "scaling_cur_freq"),
        actual_mhz=_clocks_mhz(root, "cpuinfo_cur_freq"),
        limit_mhz=_clocks_mhz(root, "scaling_max_freq"),
        temperatures_celsius=temperatures or None,
        throttling_zones=tuple(name for name, (_, hot) in zones.items() if hot) or None,
        cooling=dict(_cooling(root)) or None,
        throttled_flags=_throttled_flags(root),
        undervoltage_alarm=_undervoltage_alarm(root),
        overcurrent_events=dict(_overcurrent_events(root)) or None,
    )


def throttling(state: DeviceState) -> list[str]:
    """Returns the reasons to believe that the machine is being slowed down, empty if there are none."""
    reasons = [f"thermal zone {zone} is at its passive trip point" for zone in state.throttling_zones or ()]
    reasons += [f"{device} slows cores down (step {step})" for device, step in (state.cooling or {}).items()]
    for core, (asked, got) in enumerate(zip(state.requested_mhz or (), state.actual_mhz or (), strict=False)):
        if got < ACTUAL_CLOCK_SHARE * asked:
            reasons.append(f"core {core} runs at {got:.0f} MHz although {asked:.0f} MHz were requested")
    reasons += [f"{flag} (get_throttled)" for flag in throttled_flags(state.throttled_flags or 0)]
    if state.undervoltage_alarm:
        reasons.append("under-voltage alarm: the supply is too weak")
    if state.governor == "powersave" and state.driver not in DYNAMIC_DRIVERS:
        reasons.append("governor powersave holds the lowest clock (choose one with --governor performance)")
    return reasons


def throttled_between(before: DeviceState, after: DeviceState) -> list[str]:
    """Returns what happened between two looks that neither shows by itself."""
    new = (after.throttled_flags or 0) & ~(before.throttled_flags or 0)
    now = throttled_flags(after.throttled_flags or 0)
    reasons = [
        f"{flag} since the run began (get_throttled)" for flag in throttled_flags(new >> SINCE_START) if flag not in now
    ]
    earlier = before.overcurrent_events or {}
    for name, count in (after.overcurrent_events or {}).items():
        if count > earlier.get(name, count):
            reasons.append(f"over-current: {name} counted {count - earlier[name]} events")
    lowered = [
        f"the limit of core {core}'s clock fell from {high:.0f} to {low:.0f} MHz"
        for core, (high, low) in enumerate(zip(before.limit_mhz or (), after.limit_mhz or (), strict=False))
        if low < high
    ]
    return [*reasons, *lowered]


def throttled_flags(bits: int) -> list[str]:
    """Names what the lower bits of ``get_throttled`` say."""
    return [flag for bit, flag in enumerate(FLAGS) if bits >> bit & 1]


def parse_throttled(text: str) -> int | None:
    """Reads ``50005``, ``0x50005`` or ``throttled=0x50005``; None if it is none of them."""
    return parse_integer(text.strip().removeprefix("throttled="), 16)


def read_device_name(root: Path = Path("/")) -> str | None:
    """Returns what the machine calls itself: the model of a board, or of its CPU; None if it does not say."""
    model = read_text(root / "sys/firmware/devicetree/base/model")
    if model:
        return model
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else None


def _joined(root: Path, file: str) -> str | None:
    return "+".join(sorted(set(_per_core(root, file)))) or None


def _clocks_mhz(root: Path, file: str) -> tuple[float, ...] | None:
    clocks = (parse_integer(text) for text in _per_core(root, file))
    return tuple(kilohertz / 1000 for kilohertz in clocks if kilohertz is not None) or None


def _per_core(root: Path, file: str) -> Iterator[str]:
    for core in read_numbered(root / CPU, "cpu[0-9]*"):
        text = read_text(core / "cpufreq" / file)
        if text is not None:
            yield text


def _zones(root: Path) -> Iterator[tuple[str, tuple[float, bool]]]:
    """Yields every thermal zone that can be read: its name, its temperature in Celsius and whether it throttles."""
    seen: dict[str, int] = {}
    for zone in read_numbered(root / THERMAL, "thermal_zone*"):
        millidegrees = read_integer(zone / "temp")
        if millidegrees is None:
            continue
        kind = read_text(zone / "type") or zone.name
        seen[kind] = seen.get(kind, -1) + 1
        name = f"{kind}-{seen[kind]}" if seen[kind] else kind
        yield name, (millidegrees / 1000, any(millidegrees >= trip for trip in _passive_trips(zone)))


def _passive_trips(zone: Path) -> list[int]:
    kinds = sorted(zone.glob("trip_point_*_type"))
    trips = [
        read_integer(kind.with_name(kind.name.replace("_type", "_temp")))
        for kind in kinds
        if read_text(kind) == "passive"
    ]
    return [trip for trip in trips if trip is not None and trip > 0]


def _cooling(root: Path) -> Iterator[tuple[str, int]]:
    """Yields the cooling devices that lower the clock of cores right now; a fan cools without disturbing."""
    for device in read_numbered(root / THERMAL, "cooling_device*"):
        kind, step = read_text(device / "type") or "", read_integer(device / "cur_state") or 0
        if kind.lower().startswith(CPU_COOLING) and step > 0:
            yield kind, step


def _throttled_flags(root: Path) -> int | None:
    for path in [*root.glob(FIRMWARE), root / VCGENCMD]:
        flags = parse_throttled(read_text(path) or "")
        if flags is not None:
            return flags
    return None


def _undervoltage_alarm(root: Path) -> bool | None:
    for sensor in read_numbered(root, HWMON):
        alarm = read_integer(sensor / "in0_lcrit_alarm")
        if read_text(sensor / "name") == "rpi_volt" and alarm is not None:
            return alarm != 0
    return None


def _overcurrent_events(root: Path) -> Iterator[tuple[str, int]]:
    for sensor in read_numbered(root, HWMON):
        for path in read_numbered(sensor, "oc[0-9]_event_cnt"):
            count = read_integer(path)
            if count is not None:
                yield path.name.removesuffix("_event_cnt"), count
