"""Fewer tokens, from a network to the smaller checkpoint: blocks, candidates, and the images they are measured on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from svitkit.compress.directory import TRAINING_NAME
from svitkit.compress.evaluate import load_batches
from svitkit.compress.executor import Evaluator, open_executor
from svitkit.compress.journal import Journal
from svitkit.compress.report_tokens import describe_tokens
from svitkit.compress.run import CompressionRun, CompressResult
from svitkit.compress.token_blocks import Block, find_blocks
from svitkit.compress.token_candidates import PROBE, TokenCandidates, TokenProbes, build, operations
from svitkit.compress.token_plan import TokenPlan
from svitkit.compress.token_select import Selection, TokenSelectConfig, select_tokens, selection_plan
from svitkit.compress.token_skip import SkipSearch, TokenOutcome, TokenSkipConfig
from svitkit.data.dataset import Dataset
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunePlan
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


def skip_tokens(run: CompressionRun, config: TokenSkipConfig, journal: Journal) -> CompressResult:
    """Lets blocks skip tokens, and trains the network if that is asked for."""
    network, spec, baseline = run.checkpoint.model, run.checkpoint.spec, run.baseline(journal)
    size, exact = baseline.parameter_bytes, run.work.sweep == "plain"
    few = load_batches(run.data, "validation", timesteps=spec.timesteps, limit=config.probe_images)
    candidates = TokenCandidates(network, run.validation, size=size, stops=not exact)
    with (
        open_executor(run.work, candidates) as evaluating,
        open_executor(run.work, TokenProbes(network, few, size=size)) as probing,
    ):
        search = SkipSearch(
            config=config,
            blocks=blocks_of(run.checkpoint, run.data),
            evaluator=Evaluator(journal, evaluating, exact=exact),
            probes=Evaluator(journal, probing, stage=PROBE),
            operations=operations_of(network, example_input(spec)),
            baseline=baseline,
            images=len(run.data.validation),
            original_bytes=spec.original_parameter_bytes or size,
            progress=run.progress,
        )
        outcome = search.run()
    model = build(run.checkpoint.model, outcome.plan)
    if run.options.finetune_epochs:
        run.fit(model)
    return _finish_tokens(run, search, model, outcome.plan, journal, outcome)


def train_selection(run: CompressionRun, config: TokenSelectConfig, journal: Journal) -> CompressResult:
    """Trains the network together with what selects its tokens."""
    plan = selection_plan(blocks_of(run.checkpoint, run.data), config, seed=run.options.seed)
    baseline, original = run.baseline(journal), run.checkpoint.spec.original_parameter_bytes
    model = select_tokens(
        run.checkpoint,
        run.data,
        plan,
        config,
        seed=run.options.seed,
        state=run.out / TRAINING_NAME,
        progress=run.progress,
    )
    goal = Selection(config=config, baseline=baseline, original_bytes=original or baseline.parameter_bytes)
    return _finish_tokens(run, goal, model, plan, journal)


def _finish_tokens(
    run: CompressionRun,
    search: SkipSearch | Selection,
    model: torch.nn.Module,
    plan: TokenPlan,
    journal: Journal,
    outcome: TokenOutcome | None = None,
) -> CompressResult:
    example = example_input(run.checkpoint.spec)
    before = operations(run.checkpoint.model, example)
    tokens = describe_tokens(plan, before, operations(model, example), outcome)
    report = run.describe(search, run.outcome(model, journal), journal, model, tokens=tokens)
    return run.write(model, PrunePlan(), report, tokens=plan)
