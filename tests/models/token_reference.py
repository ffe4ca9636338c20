"""Scores of tokens as their definition reads, one token and one neighbour after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def score(x: NDArray[np.float32], criterion: str) -> NDArray[np.int64]:
    """Scores the tokens of (T, C, H, W) spikes or counts; returns (H W,)."""
    whole = x.astype(np.int64)
    _, _, height, width = whole.shape
    found = np.zeros((height, width), np.int64)
    for row in range(height):
        for column in range(width):
            token = whole[:, :, row, column]
            if criterion == "activity":
                found[row, column] = token.sum()
                continue
            around = [
                whole[:, :, min(max(row + i, 0), height - 1), min(max(column + j, 0), width - 1)]
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ]
            changes = sum(abs(after - before).sum() for before, after in pairwise(token))
            found[row, column] = abs(9 * token - sum(around)).sum() + 9 * changes
    return found.ravel()


def top(scores: NDArray[np.int64], kept: int) -> list[int]:
    """The numbers of the highest scores, the highest first; of equals the lower number first."""
    return sorted(range(scores.size), key=lambda token: (-scores[token], token))[:kept]
