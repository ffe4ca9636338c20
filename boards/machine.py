"""The machine that svitkit runs on, as Linux describes it under /proc."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides which code runs on a machine.

    Attributes:
        triple: GNU triple of its programs.
        cpu_features: features that every core has, by their names in /proc/cpuinfo.
        cores: cores that this process may run on.
        memory_bytes: RAM; 0 where /proc/meminfo does not say.
        glibc: version of the C library, None where there is another one.
    """

    triple: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    glibc: str | None


def read_machine(proc: Path = Path("/proc"), architecture: str | None = None) -> Machine:
    """Reads the machine from a /proc tree.

    Args:
        proc: the root of the tree.
        architecture: as ``uname -m`` prints it; this machine's if None.
    """
    return Machine(
        triple=f"{architecture or platform.machine()}-linux-gnu",
        cpu_features=read_cpu_features(proc / "cpuinfo"),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=_total_memory(proc / "meminfo"),
        glibc=platform.libc_ver()[1] or None,
    )


def read_cpu_features(cpuinfo: Path) -> tuple[str, ...]:
    """Returns the features that all cores list under ``flags`` (x86) or ``Features`` (aarch64), in the file's order."""
    lines = _key_values(cpuinfo)
    per_core = [value.split() for key, value in lines if key in ("flags", "Features")]
    if not per_core:
        return ()
    shared = set(per_core[0]).intersection(*per_core[1:])
    return tuple(feature for feature in per_core[0] if feature in shared)


def _total_memory(meminfo: Path) -> int:
    kibibytes = next((value for key, value in _key_values(meminfo) if key == "MemTotal"), "0 kB")
    return int(kibibytes.split()[0]) * 1024


def _key_values(path: Path) -> list[tuple[str, str]]:
    """Splits the ``key : value`` lines of a /proc file; an absent file has none."""
    if not path.is_file():
        return []
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]
