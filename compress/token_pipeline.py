"""The search for tokens with everything that it needs: blocks, candidates, and the images they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from svitkit.compress.evaluate import Batch, load_batches
from svitkit.compress.executor import Evaluator, open_executor
from svitkit.compress.journal import Journal, Measurement
from svitkit.compress.options import WorkOptions
from svitkit.compress.token_blocks import Block, find_blocks
from svitkit.compress.token_candidates import PROBE, TokenCandidates, TokenProbes, build, operations
from svitkit.compress.token_plan import TokenPlan
from svitkit.compress.token_skip import SkipSearch, TokenSkipConfig
from svitkit.data.dataset import Dataset
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import example_input

LOOK_IMAGES = 8


def blocks_of(checkpoint: Checkpoint, data: Dataset) -> tuple[Block, ...]:
    """Finds the blocks of a network (:func:`svitkit.compress.token_blocks.find_blocks`)."""
    timesteps = checkpoint.spec.timesteps
    images = load_batches(data, "train", timesteps=timesteps, limit=LOOK_IMAGES, batch_size=LOOK_IMAGES)
    return find_blocks(checkpoint.model, images[0][0])


def operations_of(model: nn.Module, example: torch.Tensor) -> Callable[[TokenPlan], float]:
    """Returns what counts the operations of a network with a plan, each plan once."""

    @cache
    def count(plan: TokenPlan) -> float:
        return operations(build(model, plan), example)

    return count


@contextmanager
def prepare_skipping(
    checkpoint: Checkpoint,
    data: Dataset,
    validation: list[Batch],
    config: TokenSkipConfig,
    *,
    journal: Journal,
    baseline: Measurement,
    work: WorkOptions,
    progress: Callable[[str, int, int], None],
) -> Iterator[SkipSearch]:
    """Yields a search for the tokens that blocks may skip; its executors are closed in the end.

    Args:
        checkpoint: the network; it is not changed.
        data: what it was trained on.
        validation: batches on which decisions are made, in random order.
        config: constraints and settings.
        journal: what was measured before, and is now.
        baseline: the network as it is.
        work: how the search is done.
        progress: told the stage, how much of it is done, and how much there is.
    """
    model, spec, size = checkpoint.model, checkpoint.spec, baseline.parameter_bytes
    few = load_batches(data, "validation", timesteps=spec.timesteps, limit=config.probe_images)
    candidates = TokenCandidates(model, validation, size=size, stops=work.sweep == "fast")
    with (
        open_executor(work, candidates) as evaluating,
        open_executor(work, TokenProbes(model, few, size=size)) as probing,
    ):
        yield SkipSearch(
            config=config,
            blocks=blocks_of(checkpoint, data),
            evaluator=Evaluator(journal, evaluating, exact=work.sweep == "plain"),
            probes=Evaluator(journal, probing, stage=PROBE),
            operations=operations_of(model, example_input(spec)),
            baseline=baseline,
            images=len(data.validation),
            original_bytes=spec.original_parameter_bytes or baseline.parameter_bytes,
            progress=progress,
        )
