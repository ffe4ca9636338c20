"""Fewer bits, from a network to the smaller checkpoint: rounded all alike, or searched for with all that this needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from svitkit.compress.aq4svit import AQ4SViTConfig, BitOutcome, BitSearch
from svitkit.compress.bit_candidates import GATE, BitCandidates, DriftProbes, build, with_plan_membranes
from svitkit.compress.evaluate import Batch, load_batches
from svitkit.compress.executor import Evaluator, LocalExecutor, open_executor
from svitkit.compress.journal import Journal, Measurement
from svitkit.compress.options import INTEGER_METHODS, WorkOptions
from svitkit.compress.primesvt import PrimeSVTConfig, Search
from svitkit.compress.prune_pipeline import whole_search
from svitkit.compress.qat import train_integers
from svitkit.compress.quantize import CalibratedRounding, QuantizedNetwork, quantize_network, uniform_bits
from svitkit.compress.report_bits import BitsReport, describe_search, reasons_of_search
from svitkit.compress.report_layers import describe_layers, reasons_of_uniform
from svitkit.compress.run import CompressionRun, CompressResult
from svitkit.compress.zeros import zeros_of
from svitkit.data.dataset import Dataset
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunePlan
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters, quantized_bytes


@dataclass(frozen=True, kw_only=True)
class FoundBits:
    """What a search for bits ended with.

    Attributes:
        search: the search.
        outcome: what it found.
        rounding: what made its candidates.
        network: the network that it found.
    """

    search: BitSearch
    outcome: BitOutcome
    rounding: CalibratedRounding
    network: QuantizedNetwork

    def with_membranes(self, network: QuantizedNetwork) -> QuantizedNetwork:
        """Returns a network, trained for example, with the membranes that the search found."""
        return with_plan_membranes(network, self.rounding, self.outcome.plan)


@dataclass(frozen=True, kw_only=True)
class PreparedSearch:
    """A search that can begin.

    Attributes:
        search: with all that measures candidates.
        layers: those that can be quantized, in the order of execution.
        rounding: makes the candidates.
    """

    search: BitSearch
    layers: tuple[str, ...]
    rounding: CalibratedRounding

    def found(self, outcome: BitOutcome) -> FoundBits:
        """Builds the network that a search found."""
        network = build(self.rounding, outcome.plan)
        return FoundBits(search=self.search, outcome=outcome, rounding=self.rounding, network=network)


@contextmanager
def prepare_search(
    checkpoint: Checkpoint,
    data: Dataset,
    validation: list[Batch],
    config: AQ4SViTConfig,
    *,
    journal: Journal,
    baseline: Measurement,
    work: WorkOptions,
    progress: Callable[[str, int, int], None],
) -> Iterator[PreparedSearch]:
    """Calibrates, and yields a search for how many bits every layer gets (:mod:`svitkit.compress.aq4svit`).

    Its executors are closed in the end.

    Args:
        checkpoint: the network; it is not changed.
        data: its training split calibrates the rounding.
        validation: batches on which decisions are made, in random order.
        config: constraints and settings.
        journal: what was measured before, and is now.
        baseline: the network as it is.
        work: how the search is done.
        progress: told the stage, how much of it is done, and how much there is.
    """
    model, spec = checkpoint.model, checkpoint.spec
    example = example_input(spec)
    layers, counts = tuple(uniform_bits(model, example, max(config.widths))), layer_parameters(model, example)
    progress("calibrate", 0, 1)
    images = load_batches(data, "train", timesteps=spec.timesteps, limit=config.calibration_images)
    calibration = torch.cat([x for x, _ in images], 1)
    rounding = CalibratedRounding(model, calibration, spec.normalization, static=spec.static_input)
    progress("calibrate", 1, 1)
    few = config.gate_images
    gate = load_batches(data, "validation", timesteps=spec.timesteps, limit=few, batch_size=few)[0]
    sparse = bool(spec.sparse)
    candidates = BitCandidates(model, rounding, validation, stops=work.sweep == "fast", sparse=sparse)
    with (
        open_executor(work, candidates) as evaluating,
        open_executor(work, DriftProbes(model, rounding, gate, sparse=sparse)) as gauging,
    ):
        search = BitSearch(
            config=config,
            evaluator=Evaluator(journal, evaluating, exact=work.sweep == "plain"),
            gauge=Evaluator(journal, gauging, stage=GATE),
            size=lambda plan: quantized_bytes(model, counts, plan.bits(), sparse=sparse),
            baseline=baseline,
            images=len(data.validation),
            original_bytes=spec.original_parameter_bytes or baseline.parameter_bytes,
            progress=progress,
        )
        yield PreparedSearch(search=search, layers=layers, rounding=rounding)


def quantize(run: CompressionRun, config: PrimeSVTConfig, journal: Journal) -> CompressResult:
    """Rounds every layer; nothing is searched for."""
    run.progress("quantize", 0, 1)
    spec, bits = run.checkpoint.spec, INTEGER_METHODS[run.options.method]
    layers = uniform_bits(run.checkpoint.model, example_input(spec), bits)
    small = quantize_network(run.checkpoint.model, layers, spec.normalization, static=spec.static_input)
    small = run.candidates.repaired(small)
    run.progress("quantize", 1, 1)
    search = whole_search(run, config, run.evaluator(journal, LocalExecutor(run.candidates)), run.baseline(journal))
    return _finish_integers(run, search, small, journal, reasons_of_uniform(small.weights, bits))


def search_bits(run: CompressionRun, config: AQ4SViTConfig, journal: Journal) -> CompressResult:
    """AQ4SViT: searches how many bits every layer gets, and trains the network if that is asked for."""
    with prepare_search(
        run.checkpoint,
        run.data,
        run.validation,
        config,
        journal=journal,
        baseline=run.baseline(journal),
        work=run.work,
        progress=run.progress,
    ) as prepared:
        outcome = prepared.search.run(prepared.layers)
    found = prepared.found(outcome)
    small = found.network
    if run.options.finetune_epochs:
        small = found.with_membranes(train_integers(small, run.fit, zeros_of(run.checkpoint.model)))
    reasons, bits = reasons_of_search(found.search, small.weights), describe_search(found.search, found.outcome)
    return _finish_integers(run, found.search, small, journal, reasons, bits)


def _finish_integers(
    run: CompressionRun,
    search: Search | BitSearch,
    small: QuantizedNetwork,
    journal: Journal,
    reasons: Mapping[str, str],
    bits: BitsReport | None = None,
) -> CompressResult:
    outcome = run.outcome(small.model, journal, quantization=small.spec)
    layers = describe_layers(small.weights, reasons)
    report = run.describe(search, outcome, journal, small.model, layers=layers, quantization=small.spec, bits=bits)
    return run.write(small.model, PrunePlan(), report, small)
