"""The kinds of data by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from svitkit.data.arrays import load_npz
from svitkit.data.cifar10 import load_cifar10
from svitkit.data.dataset import Dataset
from svitkit.data.digits import load_digits
from svitkit.data.fashion_mnist import load_fashion_mnist
from svitkit.data.images import load_imagefolder
from svitkit.data.nmnist import load_nmnist
from svitkit.errors import ConfigError, unknown_name

LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "npz": load_npz,
    "imagefolder": load_imagefolder,
    "cifar10": load_cifar10,
    "fashion-mnist": load_fashion_mnist,
}
KINDS = ("digits", *LOADERS, "nmnist")


def load_data(text: str, *, timesteps: int = 4) -> Dataset:
    """Loads data from their name on the command line, ``kind`` or ``kind:PATH``.

    Args:
        text: ``digits``, or one of the other kinds and a path.
        timesteps: frames into which an event recording is cut; images do not care.

    Raises:
        ConfigError: the kind is unknown, or its files are missing or wrong.
    """
    kind, _, path = text.partition(":")
    if kind not in KINDS:
        raise unknown_name("kind of data", kind, KINDS)
    if kind == "digits":
        if path:
            raise ConfigError("data 'digits' come with scikit-learn and take no path.")
        return load_digits()
    if not path:
        raise ConfigError(f"data of kind '{kind}' need a path: {kind}:PATH.")
    if kind == "nmnist":
        return load_nmnist(Path(path), timesteps)
    return LOADERS[kind](Path(path))
