"""Sensors of power: which one a board has, and what its readings say.

Sources: Linux Documentation/hwmon/ina3221.rst (mV, mA) and Documentation/power/powercap/powercap.rst (RAPL, microjoules
that wrap); NVIDIA Jetson Linux Developer Guide, "Power monitors" (rails; iio names of JetPack 4, mW); Raspberry Pi,
documentation/asciidoc/computers/raspberry-pi/power-supplies.adoc (``vcgencmd pmic_read_adc``). What the PMIC of a
Raspberry Pi 5 delivers is less than what the board takes: W = 1.1451 x sum + 0.5879 is a fit by Pi-Top against a meter
at the plug; the record says that it was used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from svitkit.runtime.bench.sysfs import read_integer, read_numbered, read_text

HWMON = "sys/class/hwmon/hwmon[0-9]*"
IIO = "sys/bus/iio/devices/iio:device[0-9]*"
RAPL = "sys/class/powercap/intel-rapl:[0-9]*"
MODEL = "sys/firmware/devicetree/base/model"
METER_FILES = (
    *(f"{HWMON}/{name}" for name in ("name", "in[1-9]_label", "in[1-9]_input", "curr[1-9]_input")),
    *(f"{IIO}/{name}" for name in ("rail_name_[0-9]", "in_power[0-9]_input")),
    *(f"{RAPL}/{name}" for name in ("name", "energy_uj", "max_energy_range_uj")),
    MODEL,
)
"""What :func:`find_meter` reads, as patterns of a shell."""
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")  # of a Jetson: what feeds all others; the sum counts where there is none
NOT_A_RAIL = "NC"
SUM_CHANNEL = 7  # of an INA3221: the sum of its shunts, no rail
PMIC_LINE = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9]+(?:\.[0-9]+)?)[AV]\s*$", re.MULTILINE)
PMIC_SLOPE, PMIC_OFFSET_W = 1.1451, 0.5879

Values = Sequence[str | None]


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A sensor of power.

    Attributes:
        name: for people.
        scope: what it covers, and what not.
        files: of the board, read together; absolute paths.
        commands: what is run on the board besides.
        period_s: seconds between two readings that are worth while.
        rails: W by rail, of one reading; a counter's J by rail if ``counts``.
        counts: readings are joules since some start, not watts.
        wraps_at: joules at which a counter begins again, by rail.
    """

    name: str
    scope: str
    files: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    period_s: float
    rails: Callable[[Values], Mapping[str, float] | None]
    counts: bool = False
    wraps_at: Mapping[str, float] | None = None


def find_meter(root: Path = Path("/")) -> Meter | None:
    """Returns the sensor that a machine has; None if it has none that may be read.

    Args:
        root: ``/``, or a tree with the board's ``sys``.
    """
    model = read_text(root / MODEL) or ""
    if model.startswith("Raspberry Pi 5"):
        return _pmic()
    return _ina3221(root) or _ina3221_of_jetpack_4(root) or _rapl(root)


def _ina3221(root: Path) -> Meter | None:
    pairs: dict[str, tuple[Path, Path]] = {}
    for chip in read_numbered(root, HWMON):
        if read_text(chip / "name") != "ina3221":
            continue
        for label in read_numbered(chip, "in[1-9]_label"):
            channel = int(label.name[2])
            rail = read_text(label)
            files = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            readable = all(read_integer(path) is not None for path in files)
            if rail is not None and rail != NOT_A_RAIL and channel != SUM_CHANNEL and readable:
                pairs[rail] = files
    if not pairs:
        return None
    chosen = _total(pairs)

    def watts(values: Values) -> dict[str, float] | None:
        numbers = _numbers(values, 2 * len(chosen))
        if numbers is None:
            return None
        return {rail: numbers[2 * i] * numbers[2 * i + 1] * 1e-6 for i, rail in enumerate(chosen)}

    return Meter(
        name="INA3221",
        scope=f"rails {', '.join(chosen)}; the module without its carrier board",
        files=tuple(_on_board(path, root) for rail in chosen for path in pairs[rail]),
        period_s=0.05,
        rails=watts,
    )


def _ina3221_of_jetpack_4(root: Path) -> Meter | None:
    powers: dict[str, Path] = {}
    for chip in read_numbered(root, IIO):
        for name in read_numbered(chip, "rail_name_[0-9]"):
            rail, power = read_text(name), chip / f"in_power{name.name[-1]}_input"
            if rail is not None and rail != NOT_A_RAIL and read_integer(power) is not None:
                powers[rail] = power
    if not powers:
        return None
    chosen = _total(powers)

    def watts(values: Values) -> dict[str, float] | None:
        numbers = _numbers(values, len(chosen))
        return None if numbers is None else {rail: mw * 1e-3 for rail, mw in zip(chosen, numbers, strict=True)}

    return Meter(
        name="INA3221",
        scope=f"rails {', '.join(chosen)}; the module without its carrier board",
        files=tuple(_on_board(powers[rail], root) for rail in chosen),
        period_s=0.05,
        rails=watts,
    )


def _rapl(root: Path) -> Meter | None:
    zones = {
        read_text(zone / "name") or zone.name: zone
        for zone in read_numbered(root, RAPL)
        if zone.name.count(":") == 1 and read_integer(zone / "energy_uj") is not None
    }
    packages = {name: zone for name, zone in zones.items() if name.startswith("package")}
    if not packages:
        return None

    def joules(values: Values) -> dict[str, float] | None:
        numbers = _numbers(values, len(packages))
        return None if numbers is None else {rail: uj * 1e-6 for rail, uj in zip(packages, numbers, strict=True)}

    ranges = {name: read_integer(zone / "max_energy_range_uj") for name, zone in packages.items()}
    return Meter(
        name="RAPL",
        scope=f"{', '.join(packages)}: the processor as it estimates itself, without memory, disks and supply",
        files=tuple(_on_board(zone / "energy_uj", root) for zone in packages.values()),
        period_s=0.05,
        rails=joules,
        counts=True,
        wraps_at={name: count * 1e-6 for name, count in ranges.items() if count},
    )


def _pmic() -> Meter:
    def watts(values: Values) -> dict[str, float] | None:
        rails = read_pmic(values[0] or "") if values else {}
        return {"board": PMIC_SLOPE * sum(rails.values()) + PMIC_OFFSET_W} if rails else None

    return Meter(
        name="Raspberry Pi 5 PMIC",
        scope=f"the board by a fit, {PMIC_SLOPE} x the sum of the PMIC's rails + {PMIC_OFFSET_W} W; without USB",
        commands=("vcgencmd pmic_read_adc",),
        period_s=0.1,
        rails=watts,
    )


def read_pmic(text: str) -> dict[str, float]:
    """Reads what ``vcgencmd pmic_read_adc`` prints: W by rail, of the rails with a voltage and a current."""
    found = {(name, unit): float(value) for name, unit, value in PMIC_LINE.findall(text)}
    return {
        name: amperes * found[name, "V"]
        for (name, unit), amperes in found.items()
        if unit == "A" and (name, "V") in found
    }


def _total(rails: Mapping[str, object]) -> list[str]:
    return next(([rail] for rail in TOTAL_RAILS if rail in rails), list(rails))


def _on_board(path: Path, root: Path) -> str:
    return "/" + str(path.relative_to(root))


def _numbers(values: Values, count: int) -> list[float] | None:
    try:
        numbers = [float(value or "") for value in values]
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(math.isfinite(number) for number in numbers) else None
