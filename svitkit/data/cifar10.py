"""CIFAR-10 as its authors publish it, or as folders of JPEG files.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.data.archives import MAX_MEMBER_BYTES, read_members
from svitkit.data.assemble import assemble, checked_split
from svitkit.data.dataset import Dataset
from svitkit.data.images import NamedFile, assemble_images, walk_images
from svitkit.errors import ConfigError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
FOLDER = "cifar-10-batches-py"
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle._Unpickler):
    """Reads numpy arrays in plain containers; any other name in the pickle is refused before it is looked up.

    The unpickler in C takes memory for as many objects as a file numbers, up to 4 billion; the one in Python does not.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def read_batch(content: bytes, source: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Reads one of the published batches, a pickled dictionary of ``data`` and ``labels``.

    Returns:
        (N, 3, 32, 32) uint8 images and (N,) int64 labels.

    Raises:
        ConfigError: the batch is damaged, or holds anything but arrays in plain containers; no code of it runs.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:  # a damaged pickle may fail anywhere
        raise ConfigError(f"{source} is no CIFAR-10 batch: {type(error).__name__}: {str(error)[:200]}.") from None
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or labels.dtype.kind not in "iu":
        raise ConfigError(f"{source}: data are {data.dtype} of shape {data.shape}, wanted uint8 of shape (N, 3072).")
    return data.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def load_cifar10(path: Path) -> Dataset:
    """Loads the published batches (directory or ``.tar.gz``) or the JPEG copy (directory or ``.tar.xz``).

    Raises:
        ConfigError: nothing of the kind is there, or something in it is missing, damaged or out of range.
    """
    if path.is_dir():
        batches = path / FOLDER if (path / FOLDER).is_dir() else path
        if (batches / "test_batch").is_file():
            return _from_batches(_walk_batches(batches), f"'{path}'")
        if (path / "train").is_dir():
            return _from_images(walk_images(path), f"'{path}'")
        raise ConfigError(f"'{path}' has neither CIFAR-10 batches (test_batch, ...) nor folders train/<class>.")
    if not path.is_file():
        raise ConfigError(f"'{path}' does not exist. Wanted cifar-10-python.tar.gz, its folder, or the JPEG copy.")
    files = list(read_members(path))
    if any(name.name == "test_batch" for name, _ in files):
        return _from_batches(files, f"'{path}'")
    return _from_images(files, f"'{path}'")


def _walk_batches(folder: Path) -> Iterable[NamedFile]:
    for name in (*BATCHES["train"], *BATCHES["test"]):
        file = folder / name
        if file.is_file() and file.stat().st_size <= MAX_MEMBER_BYTES:
            yield PurePosixPath(name), file.read_bytes()


def _from_batches(files: Iterable[NamedFile], source: str) -> Dataset:
    found = {name.name: content for name, content in files}
    splits = []
    for part, names in BATCHES.items():
        missing = [name for name in names if name not in found]
        if missing:
            raise ConfigError(f"{source} lacks the CIFAR-10 batch '{missing[0]}'. Download it again.")
        read = [read_batch(found[name], f"{source}: '{name}'") for name in names]
        x, y = np.concatenate([x for x, _ in read]), np.concatenate([y for _, y in read])
        splits.append(checked_split(x, y, classes=len(CLASS_NAMES), source=f"{source}, {part}"))
    return assemble("CIFAR-10", splits[0], splits[1], class_names=CLASS_NAMES)


def _from_images(files: Iterable[NamedFile], source: str) -> Dataset:
    dataset = assemble_images("CIFAR-10 (JPEG copy)", files, source)
    if dataset.class_names != CLASS_NAMES or dataset.shape != (3, 32, 32):
        raise ConfigError(
            f"{source} is not CIFAR-10: {len(dataset.class_names)} classes, frames of shape {dataset.shape}. "
            f"For other images use imagefolder:PATH."
        )
    return dataset
