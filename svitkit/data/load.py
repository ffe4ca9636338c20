"""The kinds of data by name."""

from __future__ import annotations

from svitkit.data.dataset import Dataset
from svitkit.data.digits import load_digits
from svitkit.errors import unknown_name


def load_data(text: str, *, timesteps: int = 4) -> Dataset:
    """Loads data from their name on the command line, ``kind`` or ``kind:PATH``.

    Args:
        text: ``digits`` or a kind and a path.
        timesteps: frames into which an event recording is cut.

    Raises:
        ConfigError: the kind is unknown, or its files are missing or wrong.
    """
    kind, _, path = text.partition(":")
    if kind == "digits":
        return load_digits()
    raise unknown_name("kind of data", kind, ["digits"])
