"""Dividing samples into parts that are always the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from svitkit.data.dataset import Split
from svitkit.manifest import Normalization

SEED = 20231


def stratified_indices(y: NDArray[np.int64], count: int, *, seed: int = SEED) -> NDArray[np.int64]:
    """Chooses samples so that every class has its share, within one sample.

    Args:
        y: (N,) int64, class indices.
        count: how many to choose, 0..N.
        seed: of the choice within a class.

    Returns:
        (count,) int64, ascending indices.
    """
    rng = np.random.default_rng(seed)
    position = np.empty(len(y), np.float64)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(position, kind="stable")[:count]).astype(np.int64)


def set_aside(samples: Split, count: int) -> tuple[Split, Split]:
    """Divides samples into a rest and a stratified part of ``count``, in the stored order.

    Returns:
        rest, part.
    """
    chosen = np.zeros(len(samples), bool)
    chosen[stratified_indices(samples.y, count)] = True
    return Split(x=samples.x[~chosen], y=samples.y[~chosen]), Split(x=samples.x[chosen], y=samples.y[chosen])


def measure_normalization(x: NDArray[np.uint8]) -> Normalization:
    """Returns mean and standard deviation per channel of images scaled to 0..1, rounded to four digits.

    Args:
        x: (N, C, H, W) uint8.
    """
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(x.shape[1]):
        weights = np.bincount(x[:, channel].ravel(), minlength=256) / x[:, channel].size
        mean = float(weights @ values)
        means.append(round(mean, 4))
        stds.append(max(round(float(weights @ (values - mean) ** 2) ** 0.5, 4), 1e-4))
    return Normalization(mean=tuple(means), std=tuple(stds))
