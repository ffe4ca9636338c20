from __future__ import annotations

from pathlib import Path

import pytest

from svitkit.boards.governor import set_governor
from svitkit.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for policy, governor in enumerate(["ondemand", "schedutil"]):
        folder = tmp_path / f"sys/devices/system/cpu/cpufreq/policy{policy}"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
    return tmp_path


def governors(root: Path) -> list[str]:
    return [path.read_text().strip() for path in sorted(root.rglob("scaling_governor"))]


def test_a_governor_is_set_for_every_core_and_the_former_ones_return(root: Path) -> None:
    with set_governor("performance", root):
        assert governors(root) == ["performance", "performance"]
    assert governors(root) == ["ondemand", "schedutil"]


def test_the_former_governors_return_after_a_failure(root: Path) -> None:
    with pytest.raises(KeyError), set_governor("performance", root):
        raise KeyError
    assert governors(root) == ["ondemand", "schedutil"]


def test_a_machine_without_cpufreq_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="performance cannot be set on this machine: it has no cpufreq"),
        set_governor("performance", tmp_path),
    ):
        pass


def test_what_cannot_be_written_is_named_and_what_was_written_returns(root: Path) -> None:
    last = root / "sys/devices/system/cpu/cpufreq/policy9/scaling_governor"
    last.parent.mkdir()
    last.symlink_to("/proc/version")
    with (
        pytest.raises(ConfigError, match=r"policy9/scaling_governor: .*svitkit does not use sudo"),
        set_governor("performance", root),
    ):
        pass
    assert governors(root)[:2] == ["ondemand", "schedutil"]
