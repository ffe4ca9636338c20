"""What a Linux machine says about its clocks and temperatures, before and after a measurement.

Sources: Linux Documentation/admin-guide/pm/cpufreq.rst and Documentation/driver-api/thermal/sysfs-api.rst. What a
machine has no sensor for is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"
CLOCKS = ("scaling_governor", "scaling_cur_freq", "cpuinfo_cur_freq")
READINGS = ("type", "temp", "trip_point_[0-9]*_type", "trip_point_[0-9]*_temp")
STATE_FILES = (
    *(f"{CPU}/cpu[0-9]*/cpufreq/{name}" for name in CLOCKS),
    *(f"{THERMAL}/thermal_zone[0-9]*/{name}" for name in READINGS),
)
"""What :func:`read_device_state` reads, as patterns of a shell."""
ACTUAL_CLOCK_SHARE = (
    0.9  # below this share of the requested clock, something other than the governor holds the CPU back
)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class DeviceState:
    """One look at a machine's clocks and temperatures.

    Attributes:
        governor: cpufreq governor of the cores, joined with ``+`` where they differ.
        requested_mhz: clock that the governor asked for, per core (``scaling_cur_freq``).
        actual_mhz: clock that the hardware reports, per core (``cpuinfo_cur_freq``, often readable by root only).
        temperatures_celsius: temperature of each thermal zone by its type; zones of one type are numbered.
        throttling_zones: zones at or above a passive trip point, where the kernel slows the machine down.
    """

    governor: str | None = None
    requested_mhz: tuple[float, ...] | None = None
    actual_mhz: tuple[float, ...] | None = None
    temperatures_celsius: dict[str, float] | None = None
    throttling_zones: tuple[str, ...] | None = None


def read_device_state(root: Path = Path("/")) -> DeviceState:
    """Reads governor, clocks and temperatures from a tree that holds ``sys``.

    Args:
        root: ``/``, or a recorded tree.
    """
    governors = sorted(set(_per_core(root, "scaling_governor")))
    zones = dict(_zones(root))
    temperatures = {name: value for name, (value, _) in zones.items()}
    return DeviceState(
        governor="+".join(governors) or None,
        requested_mhz=_clocks_mhz(root, "scaling_cur_freq"),
        actual_mhz=_clocks_mhz(root, "cpuinfo_cur_freq"),
        temperatures_celsius=temperatures or None,
        throttling_zones=tuple(name for name, (_, hot) in zones.items() if hot) or None,
    )


def throttling(state: DeviceState) -> list[str]:
    """Returns the reasons to believe that the machine is being slowed down, empty if there are none."""
    reasons = [f"thermal zone {zone} is at its passive trip point" for zone in state.throttling_zones or ()]
    for core, (asked, got) in enumerate(zip(state.requested_mhz or (), state.actual_mhz or (), strict=False)):
        if got < ACTUAL_CLOCK_SHARE * asked:
            reasons.append(f"core {core} runs at {got:.0f} MHz although {asked:.0f} MHz were requested")
    return reasons


def read_device_name(root: Path = Path("/")) -> str | None:
    """Returns what the machine calls itself: the model of a board, or of its CPU; None if it does not say."""
    model = _read(root / "sys/firmware/devicetree/base/model")
    if model:
        return model
    lines = (_read(root / "proc/cpuinfo") or "").splitlines()
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else None


def _clocks_mhz(root: Path, file: str) -> tuple[float, ...] | None:
    clocks = tuple(int(text) / 1000 for text in _per_core(root, file) if text.isdigit())
    return clocks or None


def _per_core(root: Path, file: str) -> Iterator[str]:
    cores = (root / CPU).glob("cpu[0-9]*")
    for core in sorted(cores, key=lambda path: int(path.name.removeprefix("cpu"))):
        text = _read(core / "cpufreq" / file)
        if text is not None:
            yield text


def _zones(root: Path) -> Iterator[tuple[str, tuple[float, bool]]]:
    """Yields every thermal zone that can be read: its name, its temperature in Celsius and whether it throttles."""
    seen: dict[str, int] = {}
    folders = (root / THERMAL).glob("thermal_zone*")
    for zone in sorted(folders, key=lambda path: int(path.name.removeprefix("thermal_zone"))):
        millidegrees = _integer(zone / "temp")
        if millidegrees is None:
            continue
        kind = _read(zone / "type") or zone.name
        seen[kind] = seen.get(kind, -1) + 1
        name = f"{kind}-{seen[kind]}" if seen[kind] else kind
        yield name, (millidegrees / 1000, any(millidegrees >= trip for trip in _passive_trips(zone)))


def _passive_trips(zone: Path) -> list[int]:
    kinds = sorted(zone.glob("trip_point_*_type"))
    trips = [
        _integer(kind.with_name(kind.name.replace("_type", "_temp"))) for kind in kinds if _read(kind) == "passive"
    ]
    return [trip for trip in trips if trip is not None and trip > 0]


def _integer(path: Path) -> int | None:
    text = _read(path) or ""
    return int(text) if text.lstrip("-").isdigit() else None


def _read(path: Path) -> str | None:
    """Returns a file's text without blanks and zero bytes at its ends; None where it is absent or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t") or None
    except OSError:
        return None
