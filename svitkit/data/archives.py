"""Tar archives from strangers: regular files only, nothing written to disk, sizes bounded."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from svitkit.errors import ConfigError

MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 64 << 20
MAX_TOTAL_BYTES = 2 << 30


def read_members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields name and content of every file of a tar archive, compressed or not.

    Raises:
        ConfigError: the archive is damaged or too large, or holds a link, a device or a path that leads out of it.
    """
    total = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for count, member in enumerate(archive):
                if member.isdir():
                    continue
                total += member.size
                _check_member(path, member, count, total)
                file = archive.extractfile(member)
                if file is None:
                    raise ConfigError(f"'{path}': cannot read '{member.name}'.")
                content = file.read()
                if len(content) != member.size:
                    raise ConfigError(f"'{path}' is cut off in '{member.name}'. Copy or download it again.")
                yield PurePosixPath(member.name), content
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise ConfigError(f"'{path}' is no whole tar archive ({error}). Copy or download it again.") from None


def _check_member(path: Path, member: tarfile.TarInfo, count: int, total: int) -> None:
    name = PurePosixPath(member.name)
    if not member.isreg():
        raise ConfigError(f"'{path}': '{name}' is a link or a device. Only plain files are read.")
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(f"'{path}': the path '{name}' leads out of the archive.")
    if count >= MAX_MEMBERS or member.size > MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
        raise ConfigError(
            f"'{path}' is too large: at most {MAX_MEMBERS} files of {MAX_MEMBER_BYTES} bytes, {MAX_TOTAL_BYTES} in all."
        )
