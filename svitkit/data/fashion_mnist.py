"""Fashion-MNIST as one ``.npz`` file or as its four published files.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.data.arrays import KEYS, read_arrays
from svitkit.data.assemble import assemble, checked_split
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError
from svitkit.manifest import Normalization

CLASS_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FILES = {
    "train_x": "train-images-idx3-ubyte.gz",
    "train_y": "train-labels-idx1-ubyte.gz",
    "test_x": "t10k-images-idx3-ubyte.gz",
    "test_y": "t10k-labels-idx1-ubyte.gz",
}
NORMALIZATION = Normalization(mean=(0.286,), std=(0.353,))
MAX_IDX_BYTES = 256 << 20


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads a gzipped IDX file of bytes: a big-endian magic number 0x08NN, NN extents, the values.

    Raises:
        ConfigError: the file is missing, damaged, too large or of another type.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read '{path}' ({error}). Copy or download it again.") from None
    dims = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or not 1 <= dims <= 3 or len(content) < 4 + 4 * dims:
        raise ConfigError(f"'{path}' is no IDX file of bytes.")
    shape = struct.unpack_from(f">{dims}I", content, 4)
    values = content[4 + 4 * dims :]
    wanted = 1
    for extent in shape:
        wanted *= extent
    if len(values) != wanted:
        raise ConfigError(f"'{path}' announces {wanted} bytes of shape {shape}, but holds {len(values)}.")
    return np.frombuffer(values, np.uint8).reshape(shape)


def load_fashion_mnist(path: Path) -> Dataset:
    """Loads an ``.npz`` file (train_x, train_y, test_x, test_y) or the directory of the four ``.gz`` files.

    Raises:
        ConfigError: a file is missing or damaged, or its content is not Fashion-MNIST's.
    """
    arrays: dict[str, NDArray[Any]]
    if path.is_dir():
        arrays = {key: read_idx(path / name) for key, name in FILES.items()}
    elif path.is_file():
        arrays = read_arrays(path, KEYS)
    else:
        raise ConfigError(f"'{path}' does not exist. Wanted an .npz file or the directory of {FILES['train_x']}, ...")
    splits = [
        checked_split(arrays[f"{part}_x"], arrays[f"{part}_y"], classes=10, source=f"'{path}', {part}")
        for part in ("train", "test")
    ]
    if splits[0].x.shape[1:] != (1, 28, 28):
        raise ConfigError(f"'{path}': images have shape {splits[0].x.shape[1:]}, wanted (1, 28, 28).")
    return assemble("Fashion-MNIST", splits[0], splits[1], class_names=CLASS_NAMES, normalization=NORMALIZATION)
