"""Data in one ``.npz`` file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.data.assemble import assemble, checked_split
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError

MAX_ARRAY_BYTES = 16 << 30
KEYS = ("train_x", "train_y", "test_x", "test_y")


def require_file(path: Path, kind: str) -> Path:
    """Returns the path of an existing file.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        found = "a directory" if path.is_dir() else "nothing"
        raise ConfigError(f"'{path}' for data of kind '{kind}' must be a file, but there is {found}.")
    return path


def read_arrays(path: Path, keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Reads arrays of an ``.npz`` file; pickled objects are refused.

    Raises:
        ConfigError: the file is damaged or too large, or an array is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > MAX_ARRAY_BYTES:
            raise ConfigError(f"'{path}' unpacks to {declared} bytes, more than {MAX_ARRAY_BYTES}.")
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise ConfigError(f"'{path}' lacks the arrays {', '.join(missing)}; it has {', '.join(file.files)}.")
            found = {key: file[key] for key in keys}
    except ConfigError:
        raise
    except Exception as error:  # a damaged file may fail anywhere
        raise ConfigError(
            f"'{path}' is no whole .npz file of plain arrays ({type(error).__name__}: {str(error)[:200]})."
        ) from None
    strange = [key for key, array in found.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise ConfigError(f"'{path}': '{strange[0]}' is no array. Write it again with numpy.savez.")
    return found


def load_npz(path: Path) -> Dataset:
    """Loads ``train_x``, ``train_y``, ``test_x`` and ``test_y`` from an ``.npz`` file.

    Images are (N, H, W) or (N, C, H, W) uint8, recordings (N, T, C, H, W) uint8 event counts; labels (N,) integers from
    0.

    Raises:
        ConfigError: the file is missing or damaged, or an array is wrong.
    """
    arrays = read_arrays(require_file(path, "npz"), KEYS)
    labels = [arrays[key] for key in ("train_y", "test_y")]
    numbers = [int(y.max()) for y in labels if y.size and y.dtype.kind in "iu"]
    classes = max([1, *numbers]) + 1
    if classes > 1 << 16:
        raise ConfigError(f"'{path}': label {classes - 1} is out of range, wanted 0..{(1 << 16) - 1}.")
    splits = [
        checked_split(arrays[f"{part}_x"], arrays[f"{part}_y"], classes=classes, source=f"'{path}', {part}")
        for part in ("train", "test")
    ]
    absent = sorted(set(range(classes)) - set(splits[0].y.tolist()))
    if absent:
        raise ConfigError(f"'{path}': no training sample has label {absent[0]}. Number the classes 0..{classes - 1}.")
    return assemble(path.stem, splits[0], splits[1], class_names=tuple(str(number) for number in range(classes)))
