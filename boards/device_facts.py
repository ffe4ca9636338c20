"""What a board says of itself over SSH, read from the text that ``remote.sh`` prints: lines of ``key<tab>value``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MUSL = "musl"
VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4})*")
NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What decides which programs run on a device, and what its figures are called. None: the device does not say.

    Attributes:
        architecture: as ``uname -m`` prints it.
        kernel: its release.
        model: of the board, by its device tree.
        processor: by its name in /proc/cpuinfo, which only x86 has.
        parts: Arm's numbers of its kinds of cores, ``implementer:part`` in hexadecimal.
        cpu_features: features that every core has, by their names in /proc/cpuinfo.
        cores: cores that are switched on.
        libc: ``musl``, or the version of glibc.
        page_size: bytes.
        word_bits: 32 or 64, of the programs of its system.
        memory_bytes, available_bytes: RAM, and what of it is free for programs.
        free_bytes: of the file system where svitkit's files lie.
        hashes: whether it has sha256sum.
        compatible: strings of the device tree that name board, module and SoC.
        l4t: release of NVIDIA's Linux for Tegra, ``36.4.3``; the CUDA driver is part of it.
        cuda_toolkit: version of the CUDA toolkit in /usr/local/cuda; not that of the driver.
        drivers: libraries of GPU drivers that it has, as paths; None if it was not looked.
    """

    architecture: str | None = None
    kernel: str | None = None
    model: str | None = None
    processor: str | None = None
    parts: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    cores: int | None = None
    libc: str | None = None
    page_size: int | None = None
    word_bits: int | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    free_bytes: int | None = None
    hashes: bool = False
    compatible: tuple[str, ...] = ()
    l4t: str | None = None
    cuda_toolkit: str | None = None
    drivers: tuple[str, ...] | None = None

    def has_driver(self, libraries: Sequence[str]) -> bool:
        """Whether it has one of some libraries of GPU drivers, by their file names."""
        return any(path.rpartition("/")[2] in libraries for path in self.drivers or ())

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return self.model or self.processor or self.architecture or "unknown device"


def read_facts(text: str) -> DeviceFacts:
    """Reads what ``remote.sh facts`` printed; lines that it does not know, and control characters, are passed over."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, tab, value = "".join(c for c in line if c.isprintable() or c == "\t").partition("\t")
        if tab and value.strip():
            values.setdefault(key.strip(), []).append(value.strip())
    first = {key: found[0] for key, found in values.items()}
    per_kind = [value.split() for key in ("Features", "flags") for value in values.get(key, ())]
    shared = set(per_kind[0]).intersection(*per_kind[1:]) if per_kind else set()
    return DeviceFacts(
        architecture=first.get("architecture"),
        kernel=first.get("kernel"),
        model=first.get("model"),
        processor=first.get("model name"),
        parts=_parts(values.get("CPU implementer", []), values.get("CPU part", [])),
        cpu_features=tuple(feature for feature in (per_kind[0] if per_kind else ()) if feature in shared),
        cores=_number(first.get("cores")),
        libc=_libc(first.get("libc")),
        page_size=_number(first.get("page_size")),
        word_bits=_number(first.get("word_bits")),
        memory_bytes=_kibibytes(first.get("MemTotal")),
        available_bytes=_kibibytes(first.get("MemAvailable")),
        free_bytes=_kibibytes(first.get("free_kib")),
        hashes="sha256sum" in first,
        compatible=tuple(first.get("compatible", "").split()),
        l4t=_version(first.get("l4t")),
        cuda_toolkit=_version(first.get("cuda_toolkit")),
        drivers=_drivers(first.get("drivers")),
    )


def _parts(implementers: list[str], parts: list[str]) -> tuple[str, ...]:
    """Names the kinds of cores; of Tegra X2, which mixes cores of two makers, every pair is named."""
    return tuple(f"{maker.lower()}:{part.lower()}" for maker in implementers for part in parts)


def _drivers(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(path for path in text.split() if path.startswith("/"))


def _version(text: str | None) -> str | None:
    return text if text is not None and VERSION.fullmatch(text) else None


def _libc(text: str | None) -> str | None:
    words = (text or "").split()
    if words[:1] == [MUSL]:
        return MUSL
    return _version(words[1] if words[:1] == ["glibc"] and len(words) > 1 else None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and NUMBER.fullmatch(text) else None


def _kibibytes(text: str | None) -> int | None:
    count = _number((text or "").split(" ")[0] or None)
    return None if count is None else count * 1024
