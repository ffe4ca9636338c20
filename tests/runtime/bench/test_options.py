from typing import Any

import pytest

from svitkit.errors import ConfigError
from svitkit.runtime.bench.options import BenchOptions, threads_or_auto


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup": -1}, "warmup=-1: nothing can be measured so. Wanted >= 0"),
        ({"warmup_s": -0.1}, "warmup_s=-0.1"),
        ({"repeat": 0}, "repeat=0: nothing can be measured so. Wanted >= 1"),
        ({"min_time_s": -1.0}, "min_time_s=-1.0"),
        ({"timeout_s": 0.0}, "timeout_s=0.0: nothing can be measured so. Wanted > 0"),
        ({"threads": 0}, "threads=0: nothing can be measured so. Wanted >= 1 or auto"),
        ({"duration_s": -1.0}, "duration_s=-1.0"),
        ({"energy_s": -1.0}, "energy_s=-1.0"),
        ({"frames": 100_001}, "frames=100001: nothing can be measured so. Wanted 0 to 100000"),
        ({"fps": 30.0}, "fps=30.0: nothing can be measured so. Wanted > 0, together with frames"),
        ({"fps": 0.0, "frames": 10}, "fps=0.0"),
        ({"deadline_ms": 3.0, "frames": 10}, "deadline_ms=3.0: nothing can be measured so. Wanted together with fps"),
        ({"min_time_s": float("nan")}, "min_time_s=nan"),
    ],
)
def test_numbers_with_which_nothing_is_measured_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(">", "\\>")):
        BenchOptions(**wrong)


def test_threads_are_a_number_or_to_be_found() -> None:
    assert (threads_or_auto(None), threads_or_auto("auto"), threads_or_auto("3")) == (None, "auto", 3)
    with pytest.raises(ConfigError, match=r"'many' is no number of threads\. Wanted 1, 2, \.\.\. or auto"):
        threads_or_auto("many")
