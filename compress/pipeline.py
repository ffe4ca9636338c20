"""Compression from a checkpoint to a smaller checkpoint: the one function behind ``svitkit compress``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from svitkit.compress.aq4svit import AQ4SViTConfig, BitSearch
from svitkit.compress.balance import BalanceConfig, BalanceSearch
from svitkit.compress.bit_pipeline import prepare_search
from svitkit.compress.calibrate import calibrate
from svitkit.compress.chain import PRUNING, TOKENS, method_chain, run_chain
from svitkit.compress.compose import compose
from svitkit.compress.directory import TRAINING_NAME, prepare_directory
from svitkit.compress.evaluate import Candidates, Repair, accuracy, data_sha256, limited, load_batches
from svitkit.compress.executor import Evaluator, Executor, LocalExecutor, Measures, open_executor
from svitkit.compress.finetune import finetune, finetune_options
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.compress.importance import filter_norms
from svitkit.compress.journal import JOURNAL_NAME, Journal, Measurement, Subject
from svitkit.compress.layer_costs import LayerCosts, PlanCosts, macs_costs, memory_costs
from svitkit.compress.lottery import LotteryConfig
from svitkit.compress.options import INTEGER_METHODS, LOTTERY, CompressOptions, WorkOptions, configure
from svitkit.compress.plot import PLOT_NAME, draw_sweep
from svitkit.compress.prefix import spare_bytes
from svitkit.compress.primesvt import Outcome, PrimeSVTConfig, Search
from svitkit.compress.probes import Probes
from svitkit.compress.qat import train_integers
from svitkit.compress.quantize import QuantizedNetwork, quantize_network, uniform_bits
from svitkit.compress.recalibrate import Recalibration
from svitkit.compress.report import (
    REPORT_NAME,
    Accuracy,
    AnySearch,
    GroupReport,
    PruneReport,
    describe_groups,
    describe_outcome,
)
from svitkit.compress.report_bits import BitsReport, describe_search, reasons_of_search
from svitkit.compress.report_layers import LayerReport, describe_layers, reasons_of_uniform
from svitkit.compress.report_tickets import TicketsReport
from svitkit.compress.report_tokens import TokensReport, describe_tokens
from svitkit.compress.ticket_pipeline import cleared, finished, prepare_tickets
from svitkit.compress.token_candidates import build, operations
from svitkit.compress.token_pipeline import blocks_of, prepare_skipping
from svitkit.compress.token_plan import TokenPlan
from svitkit.compress.token_select import Selection, TokenSelectConfig, select_tokens, selection_plan
from svitkit.compress.token_skip import SkipSearch, TokenOutcome, TokenSkipConfig
from svitkit.compress.zeros import zeros_of
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.files import staged_directory
from svitkit.manifest import to_json
from svitkit.models.checkpoint import Checkpoint, checkpoint_sha256, save_checkpoint
from svitkit.models.plan import PrunePlan
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters, sparse_layers
from svitkit.models.spec import QuantizationSpec, match_dataset

Progress = Callable[[str, int, int], None]

DEFAULT_DROP = AQ4SViTConfig().max_drop
"""Points that several methods may lose together."""
ORDER_SEED = 0
"""Of the order of the validation images, in which the first part stands for all."""
VALIDATION_BATCH = 32
"""Images after which an evaluation may stop; larger batches are not faster on a CPU."""


@dataclass(frozen=True, kw_only=True)
class CompressResult:
    """A smaller network.

    Attributes:
        checkpoint: the network and its description, as written to disk.
        report: what was done and why.
        satisfied: whether accuracy and saving are both within the constraints; if not, this is the best that was found.
    """

    checkpoint: Checkpoint
    report: PruneReport
    satisfied: bool


def compress_model(
    checkpoint: Checkpoint,
    dataset: Dataset,
    out: Path,
    *,
    method: str = "svitkit",
    max_drop: float | None = None,
    min_saving: float | None = None,
    finetune_epochs: int = 0,
    resume: bool = False,
    bn_recalibration: int = 0,
    seed: int = 0,
    limit: int | None = None,
    settings: Mapping[str, object] | None = None,
    work: WorkOptions | None = None,
    objective: str | None = None,
    costs: PlanCosts | None = None,
    progress: Progress | None = None,
) -> CompressResult:
    """Makes a network smaller within limits on accuracy, and writes it as a checkpoint directory.

    ``svitkit`` (:mod:`svitkit.compress.balance`) and ``primesvt`` prune; ``int8`` and ``int4`` round weights
    (:mod:`svitkit.compress.quantize`), also pruned ones; ``aq4svit-greedy`` and ``aq4svit-beam`` search how many bits
    every block gets (:mod:`svitkit.compress.aq4svit`); ``lottery`` makes single weights 0 and trains the others
    (:mod:`svitkit.compress.lottery`);
    ``token-skip`` and ``token-select`` let blocks compute fewer tokens (:mod:`svitkit.compress.token_skip`,
    :mod:`svitkit.compress.token_select`).

    Beside the checkpoint the directory holds ``report.json``, its picture ``sweep.svg``, and ``search.jsonl``, the
    journal of every measurement. Every decision is taken on the validation split; the test split is measured once
    before and once after.

    Args:
        checkpoint: the network; it is not changed.
        dataset: data like those it was trained on.
        out: the directory to write.
        method: a name of ``METHODS``; or several, divided by commas, under one budget of accuracy
            (:mod:`svitkit.compress.chain`).
        max_drop: accuracy that may be lost on the validation split, in points; 3, or 1.5 for ``aq4svit`` or several
            methods, or 0.5 for ``lottery``, if not given.
        min_saving: fraction of the original network's parameter bytes that must be saved; 0.25, or 0 for ``aq4svit``
            and ``lottery``, if not given.
        finetune_epochs: passes over the training split after pruning, 0 for none.
        resume: go on with the journal that ``out`` holds.
        bn_recalibration: training images on which every candidate's batch norms are calibrated again, 0 for none.
        seed: of the fine-tuning.
        limit: at most that many images of every split.
        settings: what the method assumes, by name, where it shall not be the default
            (:class:`svitkit.compress.balance.BalanceConfig`, :class:`svitkit.compress.primesvt.PrimeSVTConfig`,
            :class:`svitkit.compress.lottery.LotteryConfig`).
        work: how the search is done; the fast way in this process if not given.
        objective: what method ``svitkit`` makes as small as accuracy allows: ``memory``, ``macs`` or ``latency``.
        costs: of plans, for the objective ``latency`` (:func:`svitkit.predict.latency_costs`).
        progress: told the stage, how much of it is done, and how much there is.

    Raises:
        ConfigError: an option, the data or the directory do not fit, the journal is another search's, or the network is
            quantized already.
        UnsupportedError: the network cannot be traced, or nothing in it can be pruned.
    """
    methods = method_chain(method)
    if len(methods) > 1:
        pruning = {"finetune_epochs": finetune_epochs, "bn_recalibration": bn_recalibration, "objective": objective}

        def one(network: Checkpoint, folder: Path, name: str, **told: Any) -> tuple[Checkpoint, PruneReport]:
            told |= {**pruning, "costs": costs} if name in PRUNING else {}
            told |= {"resume": resume and folder.exists(), "seed": seed, "limit": limit, "work": work}
            result = compress_model(network, dataset, folder, method=name, progress=progress, **told)
            return result.checkpoint, result.report

        drop = DEFAULT_DROP if max_drop is None else max_drop
        small, report = run_chain(
            checkpoint,
            out,
            methods,
            one,
            max_drop=drop,
            min_saving=min_saving or 0.0,
            settings=settings or {},
            resume=resume,
        )
        return CompressResult(checkpoint=small, report=report, satisfied=report.satisfied)
    options = CompressOptions(
        method=method,
        config=configure(method, max_drop, min_saving, settings or {}, objective=objective),
        bn_recalibration=bn_recalibration,
        finetune_epochs=finetune_epochs,
        seed=seed,
        limit=limit,
        costs=costs.unit if costs else None,
    )
    _refuse_quantized(checkpoint, method)
    _refuse_reduced(checkpoint, method)
    data = limited(match_dataset(dataset, checkpoint.spec), limit)
    prepare_directory(out, resume=resume)
    run = _Compression(checkpoint, data, out, options, work or WorkOptions(), costs, progress or _silent)
    subject = Subject(
        checkpoint_sha256=checkpoint_sha256(checkpoint),
        data_sha256=data_sha256(data),
        settings_sha256=options.sha256(),
    )
    return run.run(Journal(out / JOURNAL_NAME, subject, resume=resume))


class _Compression:
    """One run: what all its steps share."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: Dataset,
        out: Path,
        options: CompressOptions,
        work: WorkOptions,
        costs: PlanCosts | None,
        progress: Progress,
    ) -> None:
        self.checkpoint, self.data, self.out, self.options, self.progress = checkpoint, data, out, options, progress
        self.costs = costs
        self.work = work
        self.sparse = bool(checkpoint.spec.sparse) or options.method == LOTTERY
        self.timesteps = checkpoint.spec.timesteps
        self.validation = load_batches(
            data, "validation", timesteps=self.timesteps, seed=ORDER_SEED, batch_size=VALIDATION_BATCH
        )
        self.reuse_bytes = reuse_bytes = spare_bytes(1 if work.executor == "local" else os.cpu_count() or 1)
        share = options.bn_recalibration / (options.bn_recalibration + len(data.validation))
        self.candidates = Candidates(
            checkpoint.model,
            self.validation,
            self._repair(int(share * reuse_bytes)),
            reuse_bytes=int((1 - share) * reuse_bytes) if work.sweep == "fast" else None,
            sparse=self.sparse,
        )

    def _repair(self, reuse_bytes: int) -> Repair | None:
        if not self.options.bn_recalibration:
            return None
        images = load_batches(self.data, "train", timesteps=self.timesteps, limit=self.options.bn_recalibration)
        return Recalibration([x for x, _ in images], reuse_bytes=reuse_bytes if self.work.sweep == "fast" else None)

    def run(self, journal: Journal) -> CompressResult:
        """Finds groups, searches, fine-tunes, measures and writes; or quantizes, measures and writes."""
        if self.options.method in INTEGER_METHODS:
            return self._quantize(journal)
        if isinstance(self.options.config, AQ4SViTConfig):
            return self._search_bits(self.options.config, journal)
        if isinstance(self.options.config, LotteryConfig):
            return self._draw_ticket(self.options.config, journal)
        if isinstance(self.options.config, TokenSkipConfig):
            return self._skip_tokens(self.options.config, journal)
        if isinstance(self.options.config, TokenSelectConfig):
            return self._select_tokens(self.options.config, journal)
        self.progress("trace", 0, 1)
        found = find_groups(
            self.checkpoint.model,
            example_input(self.checkpoint.spec),
            residual_widths=self.options.config.residual_widths,
        )
        self.progress("trace", 1, 1)
        prunable = [group for group in found if group.prunable]
        if not prunable:
            raise UnsupportedError(_nothing_prunable(found))
        if isinstance(self.options.config, BalanceConfig):
            return self._balance(self.options.config, prunable, found, journal)
        normed = [(group, filter_norms(self.checkpoint.model, group)) for group in prunable]
        baseline = self._baseline(journal)
        with open_executor(self.work, self.candidates) as executor:
            search = self._search(self._evaluator(journal, executor), baseline)
            outcome = search.run(normed)
        return self._finish(search, outcome, found, journal)

    def _balance(
        self,
        config: BalanceConfig,
        prunable: Sequence[FoundGroup],
        found: tuple[FoundGroup, ...],
        journal: Journal,
    ) -> CompressResult:
        """Svitkit's own pruning: calibrates, searches, and goes on as the other methods do."""
        model = self.checkpoint.model
        images = load_batches(self.data, "train", timesteps=self.timesteps, limit=config.calibration_images)
        calibration = calibrate(model, prunable, torch.cat([x for x, _ in images], 1), self.progress)
        self.candidates = Candidates(
            model,
            self.validation,
            calibration.reconstruction,
            reuse_bytes=self.reuse_bytes if self.work.sweep == "fast" else None,
        )
        few = load_batches(self.data, "validation", timesteps=self.timesteps, limit=config.probe_images)
        with ExitStack() as stack:

            def evaluator(candidates: Measures[PrunePlan], stage: str = "validation") -> Evaluator[PrunePlan]:
                executor = stack.enter_context(open_executor(self.work, candidates))
                return Evaluator(journal, executor, exact=self.work.sweep == "plain", stage=stage)

            baseline = self._baseline(journal)
            search = BalanceSearch(
                config=config,
                evaluator=evaluator(self.candidates),
                probes=evaluator(Probes(model, few, calibration.compensation, stage="probe"), "probe"),
                contexts=evaluator(Probes(model, few, calibration.reconstruction, stage="context"), "context"),
                costs=self._costs(config),
                baseline=baseline,
                images=len(self.data.validation),
                original_bytes=self.checkpoint.spec.original_parameter_bytes or baseline.parameter_bytes,
                progress=self.progress,
            )
            outcome = search.run(calibration.orders)
        return self._finish(search, outcome, found, journal)

    def _costs(self, config: BalanceConfig) -> PlanCosts:
        """Returns what the objective counts."""
        model, example = self.checkpoint.model, example_input(self.checkpoint.spec)
        if config.objective == "latency":
            if self.costs is None:
                raise ConfigError("objective 'latency' needs the costs of layers on a board. Name the board (--board).")
            return self.costs
        if config.objective == "macs":
            return LayerCosts(model, macs_costs(model, example), unit="multiply-accumulates")
        return LayerCosts(model, memory_costs(model, layer_parameters(model, example)), unit="bytes of weights")

    def _evaluator(self, journal: Journal, executor: Executor[PrunePlan]) -> Evaluator[PrunePlan]:
        return Evaluator(journal, executor, exact=self.work.sweep == "plain")

    def _search(self, evaluator: Evaluator[PrunePlan], baseline: Measurement) -> Search:
        assert isinstance(self.options.config, PrimeSVTConfig)
        return Search(
            config=self.options.config,
            evaluator=evaluator,
            baseline=baseline,
            original_bytes=self.checkpoint.spec.original_parameter_bytes or baseline.parameter_bytes,
            progress=self.progress,
        )

    def _quantize(self, journal: Journal) -> CompressResult:
        """Rounds every layer; nothing is searched for."""
        self.progress("quantize", 0, 1)
        spec, bits = self.checkpoint.spec, INTEGER_METHODS[self.options.method]
        layers = uniform_bits(self.checkpoint.model, example_input(spec), bits)
        small = quantize_network(self.checkpoint.model, layers, spec.normalization, static=spec.static_input)
        small = self.candidates.repaired(small)
        self.progress("quantize", 1, 1)
        search = self._search(self._evaluator(journal, LocalExecutor(self.candidates)), self._baseline(journal))
        return self._finish_integers(search, small, journal, reasons_of_uniform(small.weights, bits))

    def _search_bits(self, config: AQ4SViTConfig, journal: Journal) -> CompressResult:
        """AQ4SViT: searches how many bits every layer gets, and trains the network if that is asked for."""
        with prepare_search(
            self.checkpoint,
            self.data,
            self.validation,
            config,
            journal=journal,
            baseline=self._baseline(journal),
            work=self.work,
            progress=self.progress,
        ) as prepared:
            outcome = prepared.search.run(prepared.layers)
        found = prepared.found(outcome)
        small = found.network
        if self.options.finetune_epochs:
            small = found.with_membranes(train_integers(small, self._fit, zeros_of(self.checkpoint.model)))
        reasons, bits = reasons_of_search(found.search, small.weights), describe_search(found.search, found.outcome)
        return self._finish_integers(found.search, small, journal, reasons, bits)

    def _draw_ticket(self, config: LotteryConfig, journal: Journal) -> CompressResult:
        """Lottery: trains ever sparser networks, and takes the sparsest within the limits."""
        found = finished(self.out)
        if found is not None:
            return CompressResult(checkpoint=found[0], report=found[1], satisfied=found[1].satisfied)
        search = prepare_tickets(
            self.checkpoint,
            self.data,
            self.validation,
            config,
            folder=self.out,
            journal=journal,
            baseline=self._baseline(journal),
            size=self.candidates.size,
            progress=self.progress,
        )
        ticket = cleared(search.run(), self.data, timesteps=self.timesteps)
        size = self.candidates.size(ticket.model)
        after = journal.measure("validation, final", lambda: (accuracy(ticket.model, self.validation), size))
        outcome = Outcome(plan=ticket.plan, measurement=after, satisfied=True, swept=(), reasons={})
        report = self._describe(search, outcome, journal, ticket.model, tickets=ticket.report)
        return self._write(ticket.model, ticket.plan, report)

    def _skip_tokens(self, config: TokenSkipConfig, journal: Journal) -> CompressResult:
        """Lets blocks skip tokens, and trains the network if that is asked for."""
        with prepare_skipping(
            self.checkpoint,
            self.data,
            self.validation,
            config,
            journal=journal,
            baseline=self._baseline(journal),
            work=self.work,
            progress=self.progress,
        ) as search:
            outcome = search.run()
        model = build(self.checkpoint.model, outcome.plan)
        if self.options.finetune_epochs:
            self._fit(model)
        return self._finish_tokens(search, model, outcome.plan, journal, outcome)

    def _select_tokens(self, config: TokenSelectConfig, journal: Journal) -> CompressResult:
        """Trains the network together with what selects its tokens."""
        plan = selection_plan(blocks_of(self.checkpoint, self.data), config, seed=self.options.seed)
        baseline, original = self._baseline(journal), self.checkpoint.spec.original_parameter_bytes
        model = select_tokens(
            self.checkpoint,
            self.data,
            plan,
            config,
            seed=self.options.seed,
            state=self.out / TRAINING_NAME,
            progress=self.progress,
        )
        goal = Selection(config=config, baseline=baseline, original_bytes=original or baseline.parameter_bytes)
        return self._finish_tokens(goal, model, plan, journal)

    def _finish_tokens(
        self,
        search: SkipSearch | Selection,
        model: torch.nn.Module,
        plan: TokenPlan,
        journal: Journal,
        outcome: TokenOutcome | None = None,
    ) -> CompressResult:
        size, example = self.candidates.size(model), example_input(self.checkpoint.spec)
        after = journal.measure("validation, final", lambda: (accuracy(model, self.validation), size))
        found = Outcome(plan=PrunePlan(), measurement=after, satisfied=True, swept=(), reasons={})
        before = operations(self.checkpoint.model, example)
        tokens = describe_tokens(plan, before, operations(model, example), outcome)
        report = self._describe(search, found, journal, model, tokens=tokens)
        return self._write(model, PrunePlan(), report, tokens=plan)

    def _finish_integers(
        self,
        search: Search | BitSearch,
        small: QuantizedNetwork,
        journal: Journal,
        reasons: Mapping[str, str],
        bits: BitsReport | None = None,
    ) -> CompressResult:
        size = self.candidates.size(small.model, small.spec)
        after = journal.measure("validation, final", lambda: (accuracy(small.model, self.validation), size))
        outcome = Outcome(plan=PrunePlan(), measurement=after, satisfied=True, swept=(), reasons={})
        layers = describe_layers(small.weights, reasons)
        report = self._describe(
            search, outcome, journal, small.model, layers=layers, quantization=small.spec, bits=bits
        )
        return self._write(small.model, PrunePlan(), report, small)

    def _baseline(self, journal: Journal) -> Measurement:
        return self._evaluator(journal, LocalExecutor(self.candidates)).evaluate(PrunePlan())

    def _fit(self, model: torch.nn.Module) -> None:
        """Fine-tunes a network in place."""
        finetune(
            model,
            self.data,
            self.validation,
            teacher=self.checkpoint.model,
            options=finetune_options(
                self.options.finetune_epochs,
                spec=self.checkpoint.spec,
                seed=self.options.seed,
                samples=len(self.data.train),
            ),
            state=self.out / TRAINING_NAME,
            progress=self.progress,
        )

    def _finish(
        self, search: Search | BalanceSearch, outcome: Outcome, found: tuple[FoundGroup, ...], journal: Journal
    ) -> CompressResult:
        model = self.candidates.build(outcome.plan)
        if self.options.finetune_epochs:
            self._fit(model)
        size = self.candidates.size(model)
        journal.measure("validation, final", lambda: (accuracy(model, self.validation), size))
        groups = describe_groups(found, outcome, self.options.config)
        return self._write(model, outcome.plan, self._describe(search, outcome, journal, model, groups=groups))

    def _describe(
        self,
        search: AnySearch,
        outcome: Outcome,
        journal: Journal,
        model: torch.nn.Module,
        *,
        groups: tuple[GroupReport, ...] = (),
        layers: tuple[LayerReport, ...] = (),
        quantization: QuantizationSpec | None = None,
        bits: BitsReport | None = None,
        tickets: TicketsReport | None = None,
        tokens: TokensReport | None = None,
    ) -> PruneReport:
        size = self.candidates.size(model, quantization)
        after = journal.measure("validation, final", lambda: (accuracy(model, self.validation), size))
        before_test = self._test(journal, "before", self.checkpoint.model, None)
        after_test = self._test(journal, "after", model, quantization)
        return describe_outcome(
            search,
            outcome,
            method=self.options.method,
            bn_recalibration=self.options.bn_recalibration,
            finetune_epochs=self.options.finetune_epochs,
            seed=self.options.seed,
            limit=self.options.limit,
            before=Accuracy(validation=search.baseline.accuracy, test=before_test.accuracy),
            after=Accuracy(validation=after.accuracy, test=after_test.accuracy),
            groups=groups,
            layers=layers,
            bits=bits,
            tickets=tickets,
            tokens=tokens,
        )

    def _test(
        self, journal: Journal, when: str, model: torch.nn.Module, quantization: QuantizationSpec | None
    ) -> Measurement:
        """Measures the test split, once a search."""

        def compute() -> tuple[float, int]:
            prepared = load_batches(self.data, "test", timesteps=self.timesteps)
            return accuracy(model, prepared), self.candidates.size(model, quantization)

        return journal.measure(f"test, {when}", compute)

    def _write(
        self,
        model: torch.nn.Module,
        plan: PrunePlan,
        report: PruneReport,
        small: QuantizedNetwork | None = None,
        *,
        tokens: TokenPlan | None = None,
    ) -> CompressResult:
        weights = small.weights if small else {}
        spec = self.checkpoint.spec
        spec = replace(
            spec,
            plan=compose(spec.plan, plan) if plan.groups else spec.plan,
            quantization=small.spec if small else None,
            tokens=tokens.reductions if tokens else spec.tokens,
            sparse=tuple(sparse_layers(model, small.spec if small else None)) if self.sparse else (),
            original_parameter_bytes=report.original_parameter_bytes,
            provenance={
                **spec.provenance,
                "compressed": {
                    "method": report.method,
                    "from": checkpoint_sha256(self.checkpoint),
                    "data": self.data.name,
                    "memory_saving": report.memory_saving,
                    "test_accuracy_before": report.before.test,
                    "test_accuracy": report.after.test,
                },
            },
        )
        with staged_directory(self.out) as staged:
            save_checkpoint(staged, model, spec, quantized=weights)
            (staged / JOURNAL_NAME).write_bytes((self.out / JOURNAL_NAME).read_bytes())
            (staged / REPORT_NAME).write_text(to_json(report, PruneReport), encoding="utf-8")
            if report.groups:
                draw_sweep(staged / PLOT_NAME, report)
        made = Checkpoint(model=model, spec=spec, quantized=weights)
        return CompressResult(checkpoint=made, report=report, satisfied=report.satisfied)


def _nothing_prunable(found: tuple[FoundGroup, ...]) -> str:
    reasons = "; ".join(f"'{group.group.name}': {group.reason}" for group in found[:5])
    return f"nothing in this network can be pruned: {reasons or 'no layer produces channels that another consumes'}."


def _refuse_quantized(checkpoint: Checkpoint, method: str) -> None:
    if checkpoint.spec.quantization is not None:
        raise ConfigError(
            f"the weights of this network are integers already, and method '{method}' starts from float32. "
            f"Compress the network it was made from: prune first, quantize last."
        )


def _refuse_reduced(checkpoint: Checkpoint, method: str) -> None:
    if checkpoint.spec.tokens and method in (*PRUNING, LOTTERY, *TOKENS):
        raise ConfigError(
            f"blocks of this network compute some of their tokens only, and method '{method}' starts from all of them. "
            f"Compress the network it was made from: prune first, then reduce tokens, quantize last."
        )


def _silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
