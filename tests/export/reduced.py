"""Networks whose blocks compute some of their tokens only, which the tests of models, export and runtime share."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from svitkit.compress.token_blocks import Block, find_blocks
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.models.spec import TokenCriterion, TokenReduction
from svitkit.models.tokens import reduce_tokens
from tests.export.conftest import FAMILIES, build, describe, liven

DEEP: dict[str, dict[str, Any]] = {
    "spikformer": {"depths": 2},
    "spike-driven-transformer": {"depths": 2},
    "qkformer": {"img_size_h": 32, "img_size_w": 32, "depths": (1, 1, 2)},
}
"""What makes the families' small networks deep enough for tokens to drop out in blocks that follow one another."""


@functools.cache
def deep(family: str) -> Checkpoint:
    """Builds a small network whose last two blocks have the same number of tokens."""
    told = {**FAMILIES[family], **DEEP[family]}
    shape = (told["in_channels"], told["img_size_h"], told["img_size_w"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_family(family, told)
    checkpoint = describe(model, family=family, shape=shape)
    _liven(checkpoint)
    return replace(checkpoint, spec=replace(checkpoint.spec, arguments=told))


@functools.cache
def shallow(family: str) -> Checkpoint:
    """Builds a small network with one block a stage, and says of what arguments."""
    checkpoint = build(family)
    return replace(checkpoint, spec=replace(checkpoint.spec, arguments=FAMILIES[family]))


def images(checkpoint: Checkpoint, count: int = 16) -> torch.Tensor:
    """Random frames (T, count, C, H, W), the same at every step."""
    x = torch.randn(count, *checkpoint.spec.input_shape, generator=torch.Generator().manual_seed(1))
    return x.expand(checkpoint.spec.timesteps, *x.shape).contiguous()


@functools.cache
def blocks(family: str, *, stacked: bool = False) -> tuple[Block, ...]:
    """The blocks of a family's small network, or of its deep one."""
    checkpoint = deep(family) if stacked else shallow(family)
    return find_blocks(checkpoint.model, images(checkpoint))


def skipping(blocks: Sequence[Block], criterion: TokenCriterion, share: float = 0.5) -> tuple[TokenReduction, ...]:
    """Lets every block compute a share of its tokens."""
    return tuple(block.reduced(max(1, int(share * block.tokens)), criterion) for block in blocks)


def dropping(blocks: Sequence[Block], criterion: TokenCriterion, share: float = 0.7) -> tuple[TokenReduction, ...]:
    """Lets tokens drop out before every one of the last blocks."""
    reductions: list[TokenReduction] = []
    for block in (block for block in blocks if block.tokens == blocks[-1].tokens):
        given = replace(block, grid=(1, reductions[-1].kept)) if reductions else block
        reductions.append(given.reduced(max(1, int(share * given.tokens)), criterion, skip=False))
    return tuple(reductions)


@functools.cache
def reduced(
    family: str, criterion: TokenCriterion, rest: Literal["skip", "drop"] = "skip", share: float = 0.5
) -> Checkpoint:
    """Builds a living network whose blocks compute a share of their tokens; a deep one if tokens drop out."""
    whole = deep(family) if rest == "drop" else shallow(family)
    found = blocks(family, stacked=rest == "drop")
    return with_tokens(whole, (skipping if rest == "skip" else dropping)(found, criterion, share))


def with_tokens(whole: Checkpoint, reductions: tuple[TokenReduction, ...]) -> Checkpoint:
    """Reduces the tokens of a copy of a network, and makes all of its layers fire again."""
    model = copy.deepcopy(whole.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reduce_tokens(model, reductions)
    checkpoint = Checkpoint(model=model, spec=replace(whole.spec, tokens=reductions))
    _liven(checkpoint)
    return checkpoint


def _liven(checkpoint: Checkpoint) -> None:
    with torch.random.fork_rng(devices=[]):
        liven(checkpoint.model, images(checkpoint))
