"""The cpufreq governor of this machine's cores, changed for as long as a measurement takes.

Source: Linux Documentation/admin-guide/pm/cpufreq.rst. On a board over SSH, ``remote.sh`` does the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from svitkit.errors import ConfigError

POLICIES = "sys/devices/system/cpu/cpufreq/policy*/scaling_governor"


@contextmanager
def set_governor(name: str, root: Path = Path("/")) -> Iterator[None]:
    """Sets the governor of every core, and sets the former ones again when the block is left.

    Args:
        name: the governor, such as ``performance``.
        root: ``/``, or a tree that holds ``sys``.

    Raises:
        ConfigError: the machine has no governors, not this one, or this user may not set it.
    """
    files = sorted(root.glob(POLICIES))
    if not files:
        raise no_governor(name, "this machine", "it has no cpufreq")
    former: list[tuple[Path, str]] = []
    try:
        for file in files:
            former.append((file, file.read_text(encoding="utf-8")))
            try:
                file.write_text(name + "\n", encoding="utf-8")
            except OSError as error:
                raise no_governor(name, "this machine", f"{file}: {error.strerror}") from None
        yield
    finally:
        for file, text in former:
            if file.read_text(encoding="utf-8") != text:
                file.write_text(text, encoding="utf-8")


def no_governor(name: str, where: str, reason: str) -> ConfigError:
    """Builds the error for a governor that cannot be set."""
    return ConfigError(
        f"governor {name} cannot be set on {where}: {reason}. Log in as a user who may write it (root), set it by "
        "hand, or leave --governor out. svitkit does not use sudo."
    )
