"""Weights as integers whose rounding errors are made good by the weights that are rounded after them.

Rounding to the nearest minimizes the error of every weight; what counts is the error of the layer's output,

    E = tr (q s - w) H (q s - w)^T          H = second moments of the layer's inputs over calibration images

so weights are rounded one input after the other, the inputs of the largest moments first, and what an input's rounding
does wrong is subtracted from the weights of the inputs that correlate with it and are not rounded yet. Weights that are
0, which were pruned, stay 0, and hand on what was to be subtracted from them. Scales clip: of a grid below the largest
weight each channel takes the best, and afterwards the one that fits its integers best.

Source: Frantar et al., "GPTQ", ICLR 2023, algorithm 1; the closed form of the scale is the minimum of E over s.
"""

from __future__ import annotations

import numpy as np
import torch

from svitkit.models.quantized import QuantizedWeight, qmax

DAMPING = 0.01
BLOCK = 64
CLIPS = 24
LEAST_CLIP = 0.2
REFITS = 2


def round_weight(weight: torch.Tensor, second: torch.Tensor, bits: int) -> QuantizedWeight:
    """Rounds a layer's weight for the inputs that it reads.

    Args:
        weight: (outputs, ...), a convolution's or linear layer's.
        second: (features, features) float64, second moments of its inputs, in the order of the weights.
        bits: 2 to 8.

    Returns:
        Integers and scales; a channel of zeros has scale 1.
    """
    rows, largest = weight.detach().double().flatten(1), qmax(bits)
    damping = DAMPING * second.diagonal().mean().clamp_min(1e-12)
    damped = second + damping * torch.eye(len(second), dtype=torch.float64)
    scale = _clipped_scales(rows, damped.diagonal(), largest)
    order, factor = _elimination(damped)
    integers = _round_in_order(rows, scale, order, factor, largest)
    for _ in range(REFITS):
        scale = _fitting_scales(rows, integers, damped, scale)
        integers = _round_in_order(rows, scale, order, factor, largest)
    return QuantizedWeight(
        bits=bits,
        integers=integers.reshape(weight.shape).numpy().astype(np.int8),
        scale=scale.numpy().astype(np.float32),
    )


def _clipped_scales(rows: torch.Tensor, energy: torch.Tensor, largest: int) -> torch.Tensor:
    """Returns for every row the scale of the grid with the least error if all inputs were independent."""
    top = rows.abs().amax(1) / largest
    top[top == 0] = 1.0
    best, least = top, torch.full_like(top, float("inf"))
    for clip in torch.linspace(1.0, LEAST_CLIP, CLIPS, dtype=torch.float64):
        scale = (clip * top).float().double()
        rounded = (rows / scale[:, None]).round().clamp(-largest, largest) * scale[:, None]
        error = ((rounded - rows) ** 2 * energy).sum(1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _fitting_scales(
    rows: torch.Tensor, integers: torch.Tensor, second: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Returns the scales with the least error for given integers."""
    weighted = integers @ second
    fitted = ((weighted * rows).sum(1) / (weighted * integers).sum(1).clamp_min(1e-12)).float().double()
    return torch.where(fitted > 0, fitted, scale)


def _elimination(second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the order of the inputs and the upper Cholesky factor of the inverse moments in that order."""
    order = second.diagonal().argsort(descending=True, stable=True)
    lower = torch.linalg.cholesky(second[order][:, order])
    return order, torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def _round_in_order(
    rows: torch.Tensor, scale: torch.Tensor, order: torch.Tensor, factor: torch.Tensor, largest: int
) -> torch.Tensor:
    """Rounds column by column; blocks of columns hand their errors on together."""
    left = rows[:, order].clone()
    integers = torch.zeros_like(left)
    pruned = left == 0
    for start in range(0, left.shape[1], BLOCK):
        stop = min(start + BLOCK, left.shape[1])
        errors = torch.zeros(len(left), stop - start, dtype=left.dtype)
        for at in range(start, stop):
            rounded = (left[:, at] / scale).round().clamp(-largest, largest)
            integers[:, at] = rounded.masked_fill(pruned[:, at], 0.0)
            errors[:, at - start] = (left[:, at] - integers[:, at] * scale) / factor[at, at]
            left[:, at:stop] -= torch.outer(errors[:, at - start], factor[at, at:stop])
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    back = torch.empty_like(integers)
    back[:, order] = integers
    return back
