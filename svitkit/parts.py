"""The files of a bundle, wherever they lie: in its directory, or as sections of a single file (``--single-file``)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from svitkit.errors import ConfigError
from svitkit.files import sha256

SECTION = ".svit."
"""What stands before a file's name in the name of its section."""

_MANIFEST = "manifest.json"


def is_single_file(path: Path) -> bool:
    """Whether a path is a program with a network in it."""
    try:
        return path.is_file() and read_section(path, _MANIFEST) is not None
    except ConfigError:
        return False


def read_part(bundle: Path, name: str) -> bytes:
    """Returns the content of one file of a bundle.

    Args:
        bundle: a directory, or a single file.
        name: the file's name in the directory.

    Raises:
        ConfigError: it is no bundle, or has no such file.
    """
    if bundle.is_file():
        section = read_section(bundle, name)
        if section is not None:
            return section
    elif (bundle / name).is_file():
        return (bundle / name).read_bytes()
    raise ConfigError(f"{bundle} is no bundle: it has no {name}. Make one with 'svitkit build'.")


def read_section(path: Path, name: str) -> bytes | None:
    """Returns a section of a single file, None if it has no such section.

    Raises:
        ConfigError: the file is no program, or a damaged one.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as file:
            section: Any = ELFFile(file).get_section_by_name(SECTION + name)
            if section is None:
                return None
            if section.compressed:  # svitkit writes none, and a small one may hide a large one
                raise ConfigError(f"{path} has a compressed {name}, which no single file has. Build it again.")
            content: bytes = section.data()
            return content
    except (ELFError, ConstructError, ValueError, OverflowError, MemoryError, AttributeError, OSError) as error:
        raise ConfigError(
            f"{path} is no bundle and no whole program ({error}). Make one with 'svitkit build'."
        ) from None


def bundle_sha256(bundle: Path) -> str:
    """Returns what identifies a bundle: the hash of its manifest, which has those of all files, or of a single file."""
    return sha256(bundle) if bundle.is_file() else hashlib.sha256(read_part(bundle, _MANIFEST)).hexdigest()
