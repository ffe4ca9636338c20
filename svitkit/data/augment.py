"""Random small changes of training samples that leave their class alone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from svitkit.presets import FitOptions


def augment(x: NDArray[np.uint8], options: FitOptions, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Moves, turns, scales and mirrors each sample by its own random amount; what comes in from outside is 0.

    Args:
        x: (B, C, H, W) or (B, T, C, H, W) uint8; all frames of a recording change alike.
        options: how much of each.
        rng: source of the amounts.

    Returns:
        x of the same shape, interpolated bilinearly.
    """
    if not (options.shift_pixels or options.rotate_degrees or options.scale_percent or options.flip):
        return x
    height, width = x.shape[-2:]
    theta = torch.from_numpy(_random_maps(len(x), height, width, options, rng))
    flat = torch.from_numpy(x.reshape(len(x), -1, height, width).astype(np.float32))
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.round_().clamp_(0, 255).numpy().astype(np.uint8).reshape(x.shape)


def _random_maps(
    count: int, height: int, width: int, options: FitOptions, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Returns (count, 2, 3) float32 maps from places in the result to places in the sample, in units of half a side."""
    angle = np.radians(rng.uniform(-1, 1, count) * options.rotate_degrees)
    scale = 1 + rng.uniform(-1, 1, count) * options.scale_percent / 100
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0) if options.flip else np.ones(count)
    shift = rng.integers(-options.shift_pixels, options.shift_pixels + 1, (2, count)).astype(np.float64)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    maps = np.empty((count, 2, 3), np.float32)
    maps[:, 0] = np.stack([cos * mirror, -sin * height / width, shift[0] * 2 / width], axis=1)
    maps[:, 1] = np.stack([sin * mirror * width / height, cos, shift[1] * 2 / height], axis=1)
    return maps
