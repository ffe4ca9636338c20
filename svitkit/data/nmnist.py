"""N-MNIST: handwritten digits seen by an event camera that moves.

Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades", Frontiers in
Neuroscience 2015.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.data.arrays import read_arrays
from svitkit.data.assemble import assemble, checked_split
from svitkit.data.dataset import Dataset, Split
from svitkit.errors import ConfigError

SIDE = 34
POLARITIES = 2
FIELDS = ("x", "y_pix", "p", "t", "offsets", "label")
EVENT_BYTES = 5
MAX_DURATION_US = 1 << 32
"""Longer than an hour; a recording lasts a third of a second."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """One recording.

    Attributes:
        x, y: (E,) integers, pixel column and row.
        p: (E,) integers, 1 where it became brighter, else 0.
        t: (E,) integers, time in microseconds.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    p: NDArray[Any]
    t: NDArray[Any]


def cut_frames(events: Events, timesteps: int, source: str) -> NDArray[np.uint8]:
    """Counts events per pixel and polarity in equal slices of the time from the first event to the last.

    Args:
        events: a recording of 34x34 pixels.
        timesteps: number of slices.
        source: its name, for the error message.

    Returns:
        (T, 2, 34, 34) uint8; counts above 255 become 255.

    Raises:
        ConfigError: a pixel, polarity or time is out of range.
    """
    frames = np.zeros((timesteps, POLARITIES, SIDE, SIDE), np.uint8)
    if not len(events.t):
        return frames
    for name, values, limit in (("x", events.x, SIDE), ("y", events.y, SIDE), ("polarity", events.p, POLARITIES)):
        if int(values.min()) < 0 or int(values.max()) >= limit:
            raise ConfigError(f"{source}: an event has {name} {int(values.max())}, wanted 0..{limit - 1}.")
    first, duration = events.t.min(), int(events.t.max()) - int(events.t.min())
    if duration > MAX_DURATION_US:
        raise ConfigError(f"{source}: the events lie {duration} microseconds apart, wanted {MAX_DURATION_US} at most.")
    t = (events.t.astype(np.int64) - first.astype(np.int64)) * timesteps // (duration + 1)
    cell = ((t * POLARITIES + events.p) * SIDE + events.y) * SIDE + events.x
    counts = np.bincount(cell.astype(np.int64), minlength=frames.size)
    return np.minimum(counts, 255).astype(np.uint8).reshape(frames.shape)


def load_nmnist(path: Path, timesteps: int) -> Dataset:
    """Loads an ``.npz`` file of events, or the published directory ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``.

    The ``.npz`` file has for ``train`` and ``test`` the arrays ``_x``, ``_y_pix``, ``_p``, ``_t`` of all events,
    ``_label`` of every recording, and ``_offsets``: recording i is events ``offsets[i]:offsets[i + 1]``.

    Args:
        path: the file or directory.
        timesteps: frames per recording.

    Raises:
        ConfigError: something is missing, damaged or out of range.
    """
    if timesteps < 1:
        raise ConfigError(f"timesteps is {timesteps}, but must be 1 or more.")
    if path.is_dir():
        splits = [_read_folder(path, part, timesteps) for part in ("Train", "Test")]
    elif path.is_file():
        arrays = read_arrays(path, [f"{part}_{field}" for part in ("train", "test") for field in FIELDS])
        splits = [_read_part(arrays, part, timesteps, f"'{path}', {part}") for part in ("train", "test")]
    else:
        raise ConfigError(f"'{path}' does not exist. Wanted an .npz file of events or the directory of Train and Test.")
    return assemble("N-MNIST", splits[0], splits[1], class_names=tuple(str(digit) for digit in range(10)))


def _read_part(arrays: dict[str, NDArray[Any]], part: str, timesteps: int, source: str) -> Split:
    x, y, p, t, offsets, label = (arrays[f"{part}_{field}"] for field in FIELDS)
    for name, values in zip(FIELDS, (x, y, p, t, offsets, label), strict=True):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise ConfigError(
                f"{source}: '{name}' is {values.dtype} of shape {values.shape}, wanted a row of integers."
            )
    bounds = offsets.astype(np.int64)
    events = {len(values) for values in (x, y, p, t)}
    if (
        len(events) > 1
        or len(bounds) != len(label) + 1
        or bounds[0] != 0
        or bounds[-1] != len(x)
        or (np.diff(bounds) < 0).any()
    ):
        raise ConfigError(
            f"{source}: {len(x)} events, {len(label)} labels and {len(bounds)} offsets do not go together. "
            f"Offsets must rise from 0 to the number of events, one more than labels."
        )
    frames = [
        cut_frames(Events(x=x[a:b], y=y[a:b], p=p[a:b], t=t[a:b]), timesteps, f"{source}, recording {index}")
        for index, (a, b) in enumerate(itertools.pairwise(bounds))
    ]
    return checked_split(_stack(frames, timesteps), label, classes=10, source=source)


def _read_folder(path: Path, part: str, timesteps: int) -> Split:
    frames, labels = [], []
    for digit, file in _walk_recordings(path / part):
        frames.append(cut_frames(read_bin(file), timesteps, f"'{file}'"))
        labels.append(digit)
    if not frames:
        raise ConfigError(f"'{path}' has no recording {part}/<digit>/*.bin.")
    return checked_split(_stack(frames, timesteps), np.array(labels), classes=10, source=f"'{path}', {part}")


def _walk_recordings(folder: Path) -> Iterator[tuple[int, Path]]:
    for digit in range(10):
        for file in sorted((folder / str(digit)).glob("*.bin")):
            yield digit, file


def read_bin(path: Path) -> Events:
    """Reads one published recording: events of 40 bits, big-endian: x (8), y (8), polarity (1), microseconds (23).

    Raises:
        ConfigError: the file does not consist of whole events.
    """
    content = path.read_bytes()
    if not content or len(content) % EVENT_BYTES:
        raise ConfigError(f"'{path}' has {len(content)} bytes, wanted a multiple of {EVENT_BYTES}. Is it cut off?")
    raw = np.frombuffer(content, np.uint8).reshape(-1, EVENT_BYTES).astype(np.int64)
    t = (raw[:, 2] & 0x7F) << 16 | raw[:, 3] << 8 | raw[:, 4]
    return Events(x=raw[:, 0], y=raw[:, 1], p=raw[:, 2] >> 7, t=t)


def _stack(frames: list[NDArray[np.uint8]], timesteps: int) -> NDArray[np.uint8]:
    empty = np.zeros((0, timesteps, POLARITIES, SIDE, SIDE), np.uint8)
    return np.stack(frames) if frames else empty
