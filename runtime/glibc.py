"""Which glibc a program needs: a board whose glibc is older cannot start it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from svitkit.errors import ConfigError, VerificationError

GLIBC_FLOOR = "2.27"


def glibc_floor(path: Path) -> str:
    """Returns the oldest glibc version that has every symbol an ELF file needs.

    Returns:
        For example ``2.17``; ``2.0`` if the file needs no symbol of glibc.

    Raises:
        ConfigError: the file is missing or no ELF file.
        VerificationError: the file needs a private or ABI-marked glibc, for which no version can be told.
    """
    versions: list[tuple[int, ...]] = [(2, 0)]
    for name in _needed_versions(path):
        numbers = name.removeprefix("GLIBC_").split(".")
        if not all(number.isdigit() for number in numbers):
            raise VerificationError(
                f"{path} needs {name}, which is no released glibc version. Link it with {GLIBC_FLOOR}."
            )
        versions.append(tuple(int(number) for number in numbers))
    return ".".join(str(number) for number in max(versions))


def check_glibc(paths: Iterable[Path], floor: str = GLIBC_FLOOR) -> None:
    """Checks that every ELF file starts on glibc ``floor``.

    Raises:
        VerificationError: one needs a newer glibc; the text names it.
    """
    for path in paths:
        needed = glibc_floor(path)
        if [int(n) for n in needed.split(".")] > [int(n) for n in floor.split(".")]:
            raise VerificationError(f"{path} needs glibc {needed}, boards have {floor}. Link it with zig for {floor}.")


def _needed_versions(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            sections = [s for s in ELFFile(file).iter_sections() if isinstance(s, GNUVerNeedSection)]
            names = [
                aux.name for section in sections for _, auxiliaries in section.iter_versions() for aux in auxiliaries
            ]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    except ELFError as error:
        raise ConfigError(f"{path} is no ELF file: {error}.") from None
    return [name for name in names if name.startswith("GLIBC_")]
