"""One run of compression: what all methods share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from svitkit.compress.compose import compose
from svitkit.compress.directory import TRAINING_NAME
from svitkit.compress.evaluate import Candidates, Repair, accuracy, load_batches
from svitkit.compress.executor import Evaluator, Executor, LocalExecutor
from svitkit.compress.finetune import finetune, finetune_options
from svitkit.compress.journal import JOURNAL_NAME, Journal, Measurement
from svitkit.compress.layer_costs import PlanCosts
from svitkit.compress.options import LOTTERY, CompressOptions, WorkOptions
from svitkit.compress.plot import PLOT_NAME, draw_sweep
from svitkit.compress.prefix import spare_bytes
from svitkit.compress.primesvt import Outcome
from svitkit.compress.quantize import QuantizedNetwork
from svitkit.compress.recalibrate import Recalibration
from svitkit.compress.report import REPORT_NAME, Accuracy, AnySearch, GroupReport, PruneReport, describe_outcome
from svitkit.compress.report_bits import BitsReport
from svitkit.compress.report_layers import LayerReport
from svitkit.compress.report_tickets import TicketsReport
from svitkit.compress.report_tokens import TokensReport
from svitkit.compress.token_plan import TokenPlan
from svitkit.data.dataset import Dataset
from svitkit.files import staged_directory
from svitkit.manifest import to_json
from svitkit.models.checkpoint import Checkpoint, checkpoint_sha256, save_checkpoint
from svitkit.models.plan import PrunePlan
from svitkit.models.size import sparse_layers
from svitkit.models.spec import QuantizationSpec

Progress = Callable[[str, int, int], None]

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


class CompressionRun:
    """What all methods share: the network, its data, the folder, and how results are measured and written."""

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

    def evaluator(self, journal: Journal, executor: Executor[PrunePlan]) -> Evaluator[PrunePlan]:
        """Returns what measures plans, each at most once."""
        return Evaluator(journal, executor, exact=self.work.sweep == "plain")

    def baseline(self, journal: Journal) -> Measurement:
        """Measures the network as it is on the validation split."""
        return self.evaluator(journal, LocalExecutor(self.candidates)).evaluate(PrunePlan())

    def fit(self, model: torch.nn.Module) -> None:
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

    def final(
        self, model: torch.nn.Module, journal: Journal, quantization: QuantizationSpec | None = None
    ) -> Measurement:
        """Measures what came out on the validation split, once a search."""

        def compute() -> tuple[float, int]:
            return accuracy(model, self.validation), self.candidates.size(model, quantization)

        return journal.measure("validation, final", compute)

    def outcome(
        self,
        model: torch.nn.Module,
        journal: Journal,
        *,
        plan: PrunePlan | None = None,
        quantization: QuantizationSpec | None = None,
    ) -> Outcome:
        """Returns the outcome of a method that has none of its own: the network as it is in the end."""
        after = self.final(model, journal, quantization)
        return Outcome(plan=plan or PrunePlan(), measurement=after, satisfied=True, swept=(), reasons={})

    def describe(
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
        """Measures what came out, and puts the report together (:func:`svitkit.compress.report.describe_outcome`)."""
        after = self.final(model, journal, quantization)
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

    def write(
        self,
        model: torch.nn.Module,
        plan: PrunePlan,
        report: PruneReport,
        small: QuantizedNetwork | None = None,
        *,
        tokens: TokenPlan | None = None,
    ) -> CompressResult:
        """Writes the checkpoint directory.

        Args:
            model: the network.
            plan: the channels that were removed.
            report: what was done and why.
            small: integers and scales, if the weights are integers.
            tokens: the tokens that blocks compute, if the method reduced them.
        """
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
