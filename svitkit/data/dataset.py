"""A labelled set of images or event recordings, and how it becomes a network's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError, unknown_name
from svitkit.manifest import Normalization

if TYPE_CHECKING:
    import torch

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples and labels.

    Attributes:
        x: (N, C, H, W) uint8 images, or (N, T, C, H, W) uint8 event counts per frame.
        y: (N,) int64 class indices.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits and what is common to them.

    Attributes:
        name: what the data are, for people and records.
        train: what weights are fitted on.
        validation: part of the training data, set aside for every decision.
        test: what is reported, measured once; nothing is decided on it.
        normalization: ``(x / 255 - mean) / std`` for images, ``(x - mean) / std`` for event counts.
        class_names: one name per class index.
        shape: (C, H, W) of one frame.
        static: whether a sample is one image, shown at every time step.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    normalization: Normalization
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    static: bool

    def split(self, name: str) -> Split:
        """Returns the split of that name.

        Raises:
            ConfigError: there is none.
        """
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
        chosen: Split = getattr(self, name)
        return chosen


def normalize(x: NDArray[np.uint8], dataset: Dataset) -> NDArray[np.float32]:
    """Turns samples into a network's numbers.

    Args:
        x: (..., C, H, W) uint8, images or event counts.
        dataset: gives the normalization and says which of the two they are.

    Returns:
        x: (..., C, H, W) float32.
    """
    mean = np.asarray(dataset.normalization.mean, np.float32)[:, None, None]
    std = np.asarray(dataset.normalization.std, np.float32)[:, None, None]
    scaled = x.astype(np.float32) / np.float32(255 if dataset.static else 1)
    return np.ascontiguousarray((scaled - mean) / std)


def sequence(x: NDArray[np.uint8], dataset: Dataset, *, timesteps: int) -> NDArray[np.float32]:
    """Turns samples into sequences; time comes first.

    An image is repeated at every step. The frames of a recording are summed in groups where fewer steps are asked for
    than were cut.

    Args:
        x: (B, C, H, W) or (B, T, C, H, W) uint8.
        dataset: where they are from.
        timesteps: T of the result.

    Returns:
        x: (T, B, C, H, W) float32.

    Raises:
        ConfigError: a recording's frames do not divide into that many steps.
    """
    if dataset.static:
        frame = normalize(x, dataset)
        return np.broadcast_to(frame, (timesteps, *frame.shape))
    if x.shape[1] % timesteps:
        raise ConfigError(
            f"data '{dataset.name}' was cut into {x.shape[1]} frames, which do not divide into {timesteps} time steps. "
            f"Load it with timesteps={timesteps}."
        )
    summed = x.reshape(x.shape[0], timesteps, -1, *x.shape[2:]).sum(axis=2, dtype=np.uint32)
    counts = np.minimum(summed, 255).astype(np.uint8)
    return np.ascontiguousarray(normalize(counts, dataset).swapaxes(0, 1))


def sample_order(dataset: Dataset, split: str, *, seed: int | None, limit: int | None) -> NDArray[np.int64]:
    """Returns which samples are visited, in which order.

    Args:
        dataset: the data.
        split: ``train``, ``validation`` or ``test``.
        seed: shuffles; None keeps the stored order.
        limit: at most that many. Without a seed they are spread evenly over the split, so that data sorted by class
            still give every class.

    Raises:
        ConfigError: the split is unknown or the limit is not positive.
    """
    count = len(dataset.split(split))
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} samples leaves nothing to look at. Give 1 or more, or none.")
    wanted = count if limit is None else min(limit, count)
    if seed is not None:
        return np.random.default_rng(seed).permutation(count)[:wanted]
    return np.arange(wanted, dtype=np.int64) * count // max(wanted, 1)


def batches(
    dataset: Dataset,
    split: str,
    *,
    batch_size: int,
    timesteps: int,
    seed: int | None = None,
    limit: int | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Walks over a split.

    Args:
        dataset: the data.
        split: ``train``, ``validation`` or ``test``.
        batch_size: samples per batch; the last one may be smaller.
        timesteps: T.
        seed: shuffles; None keeps the stored order.
        limit: at most that many samples, see :func:`sample_order`.

    Yields:
        x: (T, B, C, H, W) float32, normalized.
        y: (B,) int64, class indices.

    Raises:
        ConfigError: an argument does not fit the data.
    """
    import torch

    chosen = dataset.split(split)
    order = sample_order(dataset, split, seed=seed, limit=limit)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but must be 1 or more.")
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        samples = chosen.x[index]
        if dataset.static:
            frame = torch.from_numpy(normalize(samples, dataset))
            x = frame.expand(timesteps, *frame.shape)
        else:
            x = torch.from_numpy(sequence(samples, dataset, timesteps=timesteps))
        yield x, torch.from_numpy(chosen.y[index])
