"""Pruning of channels: PrimeSVT's search and our own, from the groups of a network to the smaller checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from svitkit.compress.balance import BalanceConfig, BalanceSearch
from svitkit.compress.calibrate import calibrate
from svitkit.compress.evaluate import Candidates, load_batches
from svitkit.compress.executor import Evaluator, Measures, open_executor
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.compress.importance import filter_norms
from svitkit.compress.journal import Journal, Measurement
from svitkit.compress.layer_costs import LayerCosts, PlanCosts, macs_costs, memory_costs
from svitkit.compress.primesvt import Outcome, PrimeSVTConfig, Search
from svitkit.compress.probes import Probes
from svitkit.compress.report import describe_groups
from svitkit.compress.run import CompressionRun, CompressResult
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.models.plan import PrunePlan
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters


def prune(run: CompressionRun, config: BalanceConfig | PrimeSVTConfig, journal: Journal) -> CompressResult:
    """Finds groups, searches, fine-tunes, measures and writes.

    Raises:
        UnsupportedError: the network cannot be traced, or nothing in it can be pruned.
    """
    run.progress("trace", 0, 1)
    found = find_groups(
        run.checkpoint.model,
        example_input(run.checkpoint.spec),
        residual_widths=config.residual_widths,
    )
    run.progress("trace", 1, 1)
    prunable = [group for group in found if group.prunable]
    if not prunable:
        raise UnsupportedError(_nothing_prunable(found))
    if isinstance(config, BalanceConfig):
        return _balance(run, config, prunable, found, journal)
    normed = [(group, filter_norms(run.checkpoint.model, group)) for group in prunable]
    baseline = run.baseline(journal)
    with open_executor(run.work, run.candidates) as executor:
        search = whole_search(run, config, run.evaluator(journal, executor), baseline)
        outcome = search.run(normed)
    return _finish(run, search, outcome, found, journal)


def _balance(
    run: CompressionRun,
    config: BalanceConfig,
    prunable: Sequence[FoundGroup],
    found: tuple[FoundGroup, ...],
    journal: Journal,
) -> CompressResult:
    """Svitkit's own pruning: calibrates, searches, and goes on as the other methods do."""
    model = run.checkpoint.model
    images = load_batches(run.data, "train", timesteps=run.timesteps, limit=config.calibration_images)
    calibration = calibrate(model, prunable, torch.cat([x for x, _ in images], 1), run.progress)
    run.candidates = Candidates(
        model,
        run.validation,
        calibration.reconstruction,
        reuse_bytes=run.reuse_bytes if run.work.sweep == "fast" else None,
    )
    few = load_batches(run.data, "validation", timesteps=run.timesteps, limit=config.probe_images)
    with ExitStack() as stack:

        def evaluator(candidates: Measures[PrunePlan], stage: str = "validation") -> Evaluator[PrunePlan]:
            executor = stack.enter_context(open_executor(run.work, candidates))
            return Evaluator(journal, executor, exact=run.work.sweep == "plain", stage=stage)

        baseline = run.baseline(journal)
        search = BalanceSearch(
            config=config,
            evaluator=evaluator(run.candidates),
            probes=evaluator(Probes(model, few, calibration.compensation, stage="probe"), "probe"),
            contexts=evaluator(Probes(model, few, calibration.reconstruction, stage="context"), "context"),
            costs=_costs(run, config),
            baseline=baseline,
            images=len(run.data.validation),
            original_bytes=run.checkpoint.spec.original_parameter_bytes or baseline.parameter_bytes,
            progress=run.progress,
        )
        outcome = search.run(calibration.orders)
    return _finish(run, search, outcome, found, journal)


def _costs(run: CompressionRun, config: BalanceConfig) -> PlanCosts:
    """Returns what the objective counts."""
    model, example = run.checkpoint.model, example_input(run.checkpoint.spec)
    if config.objective == "latency":
        if run.costs is None:
            raise ConfigError("objective 'latency' needs the costs of layers on a board. Name the board (--board).")
        return run.costs
    if config.objective == "macs":
        return LayerCosts(model, macs_costs(model, example), unit="multiply-accumulates")
    return LayerCosts(model, memory_costs(model, layer_parameters(model, example)), unit="bytes of weights")


def whole_search(
    run: CompressionRun, config: PrimeSVTConfig, evaluator: Evaluator[PrunePlan], baseline: Measurement
) -> Search:
    """Returns PrimeSVT's search for one network, or the goal of a method that searches for nothing."""
    return Search(
        config=config,
        evaluator=evaluator,
        baseline=baseline,
        original_bytes=run.checkpoint.spec.original_parameter_bytes or baseline.parameter_bytes,
        progress=run.progress,
    )


def _finish(
    run: CompressionRun,
    search: Search | BalanceSearch,
    outcome: Outcome,
    found: tuple[FoundGroup, ...],
    journal: Journal,
) -> CompressResult:
    model = run.candidates.build(outcome.plan)
    if run.options.finetune_epochs:
        run.fit(model)
    groups = describe_groups(found, outcome, run.options.config)
    return run.write(model, outcome.plan, run.describe(search, outcome, journal, model, groups=groups))


def _nothing_prunable(found: tuple[FoundGroup, ...]) -> str:
    reasons = "; ".join(f"'{group.group.name}': {group.reason}" for group in found[:5])
    return f"nothing in this network can be pruned: {reasons or 'no layer produces channels that another consumes'}."
