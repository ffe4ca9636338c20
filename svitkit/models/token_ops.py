"""Operators that choose, take out and put back tokens, opaque to ``torch.export``: each stays one node up to ONNX.

Tokens are the last axis. Among tokens of equal score those of a lower number come first, as ONNX's ``TopK`` says.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F

Criterion = Literal["difference", "activity"]
NEIGHBOURHOOD = 9
"""Tokens in the neighbourhood that a token is compared with: itself and those around it."""


def score_tokens(x: torch.Tensor, criterion: str) -> torch.Tensor:
    """Scores tokens by their spikes; the more a token has to say, the higher.

    ``difference`` is how far a token is from the mean of its neighbourhood of 3 x 3, and from itself a time step
    before, in absolute values summed over channels and time: the two terms of TP-Spikformer (arXiv 2603.00527), which
    takes the cosine for the first one. Beyond the border the outermost tokens repeat. ``activity`` is the number of
    spikes. Both are integers where spikes are.

        difference = sum_tc |9 x[t] - sum of the neighbourhood| + 9 sum_tc |x[t] - x[t-1]|

    Args:
        x: (T, B, C, H, W) float32, spikes or their counts.
        criterion: ``difference`` or ``activity``.

    Returns:
        (B, H W) float32.
    """
    if criterion == "activity":
        return x.sum((0, 2)).flatten(1)
    padded = F.pad(x.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    padded = padded.reshape(*x.shape[:3], *padded.shape[-2:])
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    apart = (NEIGHBOURHOOD * x - around).abs().sum((0, 2))
    changed = (x[1:] - x[:-1]).abs().sum((0, 2))
    score: torch.Tensor = (apart + NEIGHBOURHOOD * changed).flatten(1)
    return score


@torch.library.custom_op("svitkit::choose_tokens", mutates_args=())
def choose_tokens(x: torch.Tensor, kept: int, criterion: str) -> torch.Tensor:
    """Returns the numbers of the tokens with the highest scores (:func:`score_tokens`), the highest first.

    Args:
        x: (T, B, C, H, W) float32.
        kept: k, how many.
        criterion: of the score.

    Returns:
        (B, k) int64.
    """
    return _highest(score_tokens(x, criterion), kept)


@choose_tokens.register_fake
def _chosen(x: torch.Tensor, kept: int, criterion: str) -> torch.Tensor:
    return x.new_empty((x.shape[1], kept), dtype=torch.int64)


@torch.library.custom_op("svitkit::top_tokens", mutates_args=())
def top_tokens(score: torch.Tensor, kept: int) -> torch.Tensor:
    """Returns the numbers of the tokens with the highest scores, the highest first.

    Args:
        score: (B, N) float32.
        kept: k, how many.

    Returns:
        (B, k) int64.
    """
    return _highest(score, kept)


@top_tokens.register_fake
def _top(score: torch.Tensor, kept: int) -> torch.Tensor:
    return score.new_empty((score.shape[0], kept), dtype=torch.int64)


def _highest(score: torch.Tensor, kept: int) -> torch.Tensor:
    return score.sort(dim=-1, descending=True, stable=True).indices[..., :kept].contiguous()


@torch.library.custom_op("svitkit::take_tokens", mutates_args=())
def take_tokens(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Returns the tokens of these numbers.

    Args:
        x: (T, B, C, N) float32.
        index: (B, k) int64.

    Returns:
        (T, B, C, k) float32.
    """
    return x.gather(3, _spread(x, index))


@take_tokens.register_fake
def _taken(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return x.new_empty((*x.shape[:3], index.shape[-1]))


@torch.library.custom_op("svitkit::put_tokens", mutates_args=())
def put_tokens(x: torch.Tensor, index: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Returns x with other tokens at these numbers.

    Args:
        x: (T, B, C, N) float32.
        index: (B, k) int64, no number twice.
        tokens: (T, B, C, k) float32.

    Returns:
        (T, B, C, N) float32.
    """
    return x.scatter(3, _spread(x, index), tokens)


@put_tokens.register_fake
def _put(x: torch.Tensor, index: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _spread(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return index[None, :, None, :].expand(x.shape[0], index.shape[0], x.shape[2], index.shape[1])


def _keep_taken(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.shape = inputs[0].shape


def _gradient_of_taken(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
    (index,) = ctx.saved_tensors
    return put_tokens(gradient.new_zeros(ctx.shape), index, gradient), None


def _keep_put(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _gradient_of_put(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
    (index,) = ctx.saved_tensors
    tokens = take_tokens(gradient, index)
    return put_tokens(gradient, index, torch.zeros_like(tokens)), None, tokens


take_tokens.register_autograd(_gradient_of_taken, setup_context=_keep_taken)
put_tokens.register_autograd(_gradient_of_put, setup_context=_keep_put)
