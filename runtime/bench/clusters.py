"""Which cores of a board are alike, and which of them a measurement stays on.

Sources: Linux Documentation/devicetree/bindings/cpu/cpu-capacity.txt (``cpu_capacity``, relative to the fastest core)
and Documentation/arch/arm64/cpu-feature-registers.rst (``midr_el1``, whose bits 4 to 15 are the core's part number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from svitkit.errors import ConfigError
from svitkit.runtime.bench.sysfs import read_integer, read_text

CPU = "sys/devices/system/cpu"
CLUSTER_FILES = (
    f"{CPU}/online",
    f"{CPU}/cpu[0-9]*/cpu_capacity",
    f"{CPU}/cpu[0-9]*/regs/identification/midr_el1",
)
"""What :func:`read_clusters` reads, as patterns of a shell."""
MOST_CPUS = 8192


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        cpus: their numbers, ascending.
        capacity: their speed, 1024 for the fastest kind; None where the kernel does not say.
    """

    cpus: tuple[int, ...]
    capacity: int | None


def read_clusters(root: Path = Path("/")) -> tuple[Cluster, ...]:
    """Reads the cores that are switched on, the fastest kind first; empty where the kernel does not tell.

    Args:
        root: ``/``, or a tree with the board's ``sys``.
    """
    online = read_text(root / CPU / "online")
    if online is None:
        return ()
    kinds: dict[tuple[int | None, int], list[int]] = {}
    for cpu in parse_cpus(online, source="the kernel's list of cores"):
        folder = root / CPU / f"cpu{cpu}"
        capacity = read_integer(folder / "cpu_capacity")
        midr = read_integer(folder / "regs/identification/midr_el1", 16) or 0
        kinds.setdefault((capacity, midr >> 4 & 0xFFF), []).append(cpu)
    found = [Cluster(cpus=tuple(cpus), capacity=capacity) for (capacity, _), cpus in kinds.items()]
    return tuple(sorted(found, key=lambda cluster: (-(cluster.capacity or 0), cluster.cpus)))


def choose_cpus(wanted: str | None, clusters: Sequence[Cluster]) -> tuple[int, ...]:
    """Returns the cores to stay on; empty: the system may choose.

    Args:
        wanted: a list such as ``4-7,9``; ``big`` or ``little``; ``all``; None for the fastest cluster of several.
        clusters: of the board, the fastest first.

    Raises:
        ConfigError: it is none of these, or the board has no such cores.
    """
    if wanted is None:
        return clusters[0].cpus if len(clusters) > 1 else ()
    if wanted == "all":
        return ()
    if wanted in ("big", "little"):
        if len(clusters) < 2:
            raise ConfigError(f"--cpus {wanted}: all cores of this board are alike. Say numbers, such as --cpus 0-1.")
        return clusters[0 if wanted == "big" else -1].cpus
    cpus = parse_cpus(wanted, source="--cpus")
    known = {cpu for cluster in clusters for cpu in cluster.cpus}
    absent = sorted(set(cpus) - known) if known else []
    if absent:
        raise ConfigError(
            f"--cpus {wanted}: there is no core {absent[0]}, or it is switched off; there are "
            f"{', '.join(str(cpu) for cpu in sorted(known))}."
        )
    return cpus


def parse_cpus(text: str, *, source: str) -> tuple[int, ...]:
    """Reads a list of cores as the kernel writes it, such as ``0-3,6``.

    Raises:
        ConfigError: it is no such list.
    """
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        numbers = first.isdecimal() and last.isdecimal() and max(len(first), len(last)) <= len(str(MOST_CPUS))
        if not (numbers and int(first) <= int(last) < MOST_CPUS):
            raise ConfigError(f"{source}: '{text}' is no list of cores. Wanted numbers and ranges, such as 0-3,6.")
        cpus.update(range(int(first), int(last) + 1))
    return tuple(sorted(cpus))
