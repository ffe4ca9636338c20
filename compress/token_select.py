"""Learned selection of tokens: before later blocks a small network chooses the tokens that go on.

Before block i of them a share r^i of the tokens is left; the others drop out for good, and the pooling at the end is
over those that are left. What the choice learns from: every token's score is noisy in training (Gumbel-softmax), the
best are kept, and the gradient of a kept token goes on to its score as if it had been multiplied by it. The loss is

    CE + w_ratio * mean_i (share_i - kept_i)^2 + distillation from the network before

Source: SparseSpikformer (arXiv 2311.08806), sections 3.1 and 3.3. Three things differ. There, dropped tokens are masked
in training but still counted in the pooling, and taken out in inference; here they are taken out in both. There, the
scores are made by a network of real numbers from rates averaged over time; here by spiking neurons from the spikes
themselves, and the scores are averaged, so that selection runs on events and stays exact where weights are integers.
And the number of kept tokens is exact in training, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from svitkit.compress.finetune import finetune_options
from svitkit.compress.goal import Goal
from svitkit.compress.token_blocks import Block
from svitkit.compress.token_candidates import build
from svitkit.compress.token_plan import TokenPlan
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.fitting import TrainingProgress, fit
from svitkit.manifest import STRICT
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import example_input, forward_logits
from svitkit.models.spec import TokenReduction
from svitkit.models.tokens import token_gates

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenSelectConfig:
    """Constraints and settings.

    Attributes:
        max_drop: accuracy that may be lost on the validation split, in points.
        min_saving: fraction of the operations that must be saved.
        ratio: r, the share of the tokens that is left before the first of the blocks, squared before the second, ...
        first: the first block, counted from 1, that tokens are selected for.
        criterion: ``learned``; ``activity`` and ``random`` are for comparison, the network trained equally long.
        epochs: passes over the training split.
        lr: highest learning rate.
        ratio_weight: w_ratio.
    """

    max_drop: float = Field(default=0.5, ge=0)
    min_saving: float = Field(default=0.0, ge=0, lt=1)
    ratio: float = Field(default=0.7, gt=0, lt=1)
    first: int = Field(default=2, ge=1)
    criterion: Literal["learned", "activity", "random"] = "learned"
    epochs: int = Field(default=3, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    ratio_weight: float = Field(default=2.0, ge=0)


@plain_dataclass(frozen=True, kw_only=True)
class Selection(Goal):
    """What is wanted of a selection, for the report."""

    config: TokenSelectConfig


def selection_plan(blocks: Sequence[Block], config: TokenSelectConfig, *, seed: int) -> TokenPlan:
    """Returns the tokens that are left before every block.

    Args:
        blocks: of the network, in the order of execution; tokens drop out in the last ones alone, between which the
            number of tokens stays the same.
        config: settings.
        seed: of a random choice.

    Raises:
        ConfigError: there is no block to select tokens for.
    """
    last = blocks[-1]
    chosen = [block for block in blocks[config.first - 1 :] if block.tokens == last.tokens]
    if not chosen:
        raise ConfigError(f"the network has {len(blocks)} blocks, none behind number {config.first - 1}: choose first.")
    reductions: list[TokenReduction] = []
    for power, block in enumerate(chosen, start=1):
        kept = max(1, int(last.tokens * config.ratio**power))
        given = replace(block, grid=(1, reductions[-1].kept)) if reductions else block
        reductions.append(given.reduced(kept, config.criterion, skip=False, seed=seed))
    return TokenPlan(reductions=tuple(reductions))


def select_tokens(
    checkpoint: Checkpoint,
    data: Dataset,
    plan: TokenPlan,
    config: TokenSelectConfig,
    *,
    seed: int,
    state: Path,
    progress: Progress,
) -> nn.Module:
    """Trains a network together with what selects its tokens.

    Args:
        checkpoint: the network, which is also the teacher; it is not changed.
        data: trained on its training split, judged on its validation split.
        plan: the tokens that are left.
        config: settings.
        seed: of the scores' weights and of the training.
        state: file from which a killed training goes on.
        progress: told the stage, steps done, and steps in all.

    Returns:
        The trained network in evaluation mode.

    Raises:
        UnsupportedError: the network does not run with fewer tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(checkpoint.model, plan)
    try:
        with torch.no_grad():
            forward_logits(model.eval(), example_input(checkpoint.spec))
    except Exception as error:
        raise UnsupportedError(
            f"the network does not run with fewer tokens behind '{plan.reductions[0].block}': "
            f"{type(error).__name__}: {error}. Tokens can skip its blocks: choose method 'token-skip'."
        ) from error
    options = finetune_options(config.epochs, spec=checkpoint.spec, seed=seed, samples=len(data.train))

    def report(now: TrainingProgress) -> None:
        progress("train the selection", now.step, now.steps)

    fit(
        model,
        data,
        replace(options, lr=config.lr),
        teacher=checkpoint.model,
        penalty=lambda network: ratio_penalty(network) * config.ratio_weight,
        report=report,
        state=state,
    )
    return model


def ratio_penalty(model: nn.Module) -> torch.Tensor:
    """Returns how far the shares of tokens that scores would keep are from those that are kept: a mean of squares."""
    apart = [
        (gate.share - gate.reduction.kept / gate.reduction.tokens) ** 2
        for gate in token_gates(model)
        if gate.share is not None
    ]
    return torch.stack(apart).mean() if apart else torch.zeros(())
