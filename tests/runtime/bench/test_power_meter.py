from __future__ import annotations

from pathlib import Path

import pytest

from svitkit.runtime.bench.power_meter import Meter, find_meter, read_pmic
from tests.runtime.sysfs_trees import AGX_ORIN, BOARDS, PC, plant

PMIC = """\
 3V7_WL_SW_A current(0)=0.10000000A
   VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.75000000V
       EXT5V_V volt(24)=5.10000000V
"""


def read(meter: Meter, root: Path) -> dict[str, float]:
    """Reads the meter's files from a tree."""
    rails = meter.rails([(root / path.removeprefix("/")).read_text() for path in meter.files])
    assert rails is not None
    return {rail: round(value, 6) for rail, value in rails.items()}


@pytest.mark.parametrize("board", ["raspberry-pi-zero-2w", "raspberry-pi-3b-plus", "raspberry-pi-4", "rock-5b"])
def test_boards_without_a_sensor_have_no_meter(tmp_path: Path, board: str) -> None:
    assert find_meter(plant(tmp_path, BOARDS[board])) is None


@pytest.mark.parametrize(
    ("board", "rails"),
    [
        ("jetson-nano", {"POM_5V_IN": 2.17}),
        ("jetson-xavier-nx", {"VDD_IN": 4.06}),
        ("jetson-orin-nano", {"VDD_IN": 4.537344}),
    ],
)
def test_the_rail_that_feeds_a_jetson_is_read(tmp_path: Path, board: str, rails: dict[str, float]) -> None:
    meter = find_meter(plant(tmp_path, BOARDS[board]))
    assert meter is not None
    assert (meter.name, meter.counts, read(meter, tmp_path)) == ("INA3221", False, rails)
    assert "without its carrier board" in meter.scope


def test_rails_are_summed_where_none_feeds_the_others_and_unconnected_channels_left_out(tmp_path: Path) -> None:
    meter = find_meter(plant(tmp_path, AGX_ORIN))
    assert meter is not None
    wanted = {"VDD_GPU_SOC": 1.9, "VDD_CPU_CV": 0.95, "VIN_SYS_5V0": 4.5, "VDDQ_VDD2_1V8AO": 0.3}
    assert read(meter, tmp_path) == wanted


def test_a_processor_counts_its_own_joules_and_they_wrap(tmp_path: Path) -> None:
    meter = find_meter(plant(tmp_path, PC))
    assert meter is not None
    assert (meter.name, meter.counts, read(meter, tmp_path)) == ("RAPL", True, {"package-0": 0.001})
    assert meter.wraps_at == {"package-0": pytest.approx(262143.32885)}


def test_a_counter_that_this_user_may_not_read_is_no_meter(tmp_path: Path) -> None:
    tree = {name: text for name, text in PC.items() if not name.endswith("energy_uj")}
    assert find_meter(plant(tmp_path, tree)) is None


def test_the_pmic_of_a_raspberry_pi_5_is_asked_by_its_program(tmp_path: Path) -> None:
    meter = find_meter(plant(tmp_path, BOARDS["raspberry-pi-5"]))
    assert meter is not None
    assert (meter.files, meter.commands) == ((), ("vcgencmd pmic_read_adc",))
    rails = meter.rails([PMIC])
    assert rails == {"board": pytest.approx(1.1451 * (0.37 + 1.5) + 0.5879)}
    assert "by a fit" in meter.scope


def test_rails_without_a_current_deliver_nothing_that_is_known() -> None:
    assert read_pmic(PMIC) == {"3V7_WL_SW": pytest.approx(0.37), "VDD_CORE": pytest.approx(1.5)}
    assert read_pmic("vcgencmd: not found") == {}


@pytest.mark.parametrize("values", [[None], ["n/a"], [""]])
def test_a_reading_that_failed_is_none(tmp_path: Path, values: list[str | None]) -> None:
    for board in ("raspberry-pi-5", "jetson-nano"):
        meter = find_meter(plant(tmp_path / board, BOARDS[board]))
        assert meter is not None
        assert meter.rails(values) is None
