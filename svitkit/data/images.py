"""Data as folders of images, one folder a class."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.data.assemble import assemble, checked_split
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError

ENDINGS = (".png", ".jpg", ".jpeg")
PARTS = ("train", "test")
MAX_PIXELS = 1 << 24
NamedFile = tuple[PurePosixPath, bytes]


def decode_image(content: bytes, source: str) -> NDArray[np.uint8]:
    """Decodes a PNG or JPEG file.

    Args:
        content: the file.
        source: its name, for the error message.

    Returns:
        (H, W) uint8 for a grey image, else (H, W, 3) uint8.

    Raises:
        ConfigError: the image is damaged, too large or of another format.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ConfigError(f"{source} has {image.width}x{image.height} pixels, more than {MAX_PIXELS} in all.")
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{source} is no whole PNG or JPEG image ({error}).") from None


def stack_images(files: Iterable[NamedFile], source: str) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...]]:
    """Decodes files named ``train/<class>/<name>`` and ``test/<class>/<name>``.

    Returns:
        For ``train`` and ``test`` (N, C, H, W) uint8 images and (N,) int64 labels; and the class names, sorted.

    Raises:
        ConfigError: a part or class is missing, an image is damaged, or sizes differ.
    """
    found: dict[str, list[tuple[str, NDArray[np.uint8]]]] = {part: [] for part in PARTS}
    for name, content in files:
        if name.suffix.lower() in ENDINGS and len(name.parts) >= 3 and name.parts[-3] in PARTS:
            found[name.parts[-3]].append((name.parts[-2], decode_image(content, f"{source}: '{name}'")))
    for part in PARTS:
        if not found[part]:
            raise ConfigError(f"{source} has no image {part}/<class>/*.png or .jpg.")
    names = tuple(sorted({label for label, _ in found["train"]}))
    strange = sorted({label for label, _ in found["test"]} - set(names))
    if strange or len(names) < 2:
        problem = f"test class '{strange[0]}' has no training images" if strange else f"only class '{names[0]}'"
        raise ConfigError(f"{source}: {problem}. Wanted two or more classes, each with training images.")
    sizes = sorted({image.shape[:2] for images in found.values() for _, image in images})
    if len(sizes) > 1:
        raise ConfigError(
            f"{source}: images differ in size, {sizes[0]} and {sizes[-1]} (height, width). Scale them first."
        )
    grey = all(image.ndim == 2 for images in found.values() for _, image in images)
    return {part: _stack(images, names, grey) for part, images in found.items()}, names


def _stack(images: list[tuple[str, NDArray[np.uint8]]], names: tuple[str, ...], grey: bool) -> tuple[Any, Any]:
    height, width = images[0][1].shape[:2]
    x = np.empty((len(images), 1 if grey else 3, height, width), np.uint8)
    for index, (_, image) in enumerate(images):
        x[index] = image if image.ndim == 2 else image.transpose(2, 0, 1)
    return x, np.array([names.index(label) for label, _ in images], np.int64)


def walk_images(path: Path) -> Iterable[NamedFile]:
    """Yields ``<part>/<class>/<file>`` and content of every image below ``train`` and ``test``, sorted."""
    for part in PARTS:
        for file in sorted(path.glob(f"{part}/*/*")):
            if file.suffix.lower() in ENDINGS and file.is_file():
                yield PurePosixPath(file.relative_to(path).as_posix()), file.read_bytes()


def load_imagefolder(path: Path) -> Dataset:
    """Loads ``train/<class>/*`` and ``test/<class>/*`` (PNG or JPEG, all of one size).

    Raises:
        ConfigError: the folder is missing, or what :func:`stack_images` says.
    """
    if not path.is_dir():
        raise ConfigError(f"'{path}' is no directory. Wanted one with train/<class>/* and test/<class>/*.")
    return assemble_images(path.name, walk_images(path), f"'{path}'")


def assemble_images(name: str, files: Iterable[NamedFile], source: str) -> Dataset:
    """Makes a data set of image files, see :func:`stack_images`."""
    parts, names = stack_images(files, source)
    splits = [checked_split(*parts[part], classes=len(names), source=f"{source}, {part}") for part in PARTS]
    return assemble(name, splits[0], splits[1], class_names=names)
