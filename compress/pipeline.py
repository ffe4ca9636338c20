"""Compression from a checkpoint to a smaller checkpoint: the one function behind ``svitkit compress``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from svitkit.compress.aq4svit import AQ4SViTConfig
from svitkit.compress.bit_pipeline import quantize, search_bits
from svitkit.compress.chain import PRUNING, TOKENS, method_chain, run_chain
from svitkit.compress.directory import prepare_directory
from svitkit.compress.evaluate import data_sha256, limited
from svitkit.compress.journal import JOURNAL_NAME, Journal, Subject
from svitkit.compress.layer_costs import PlanCosts
from svitkit.compress.lottery import LotteryConfig
from svitkit.compress.options import INTEGER_METHODS, LOTTERY, CompressOptions, WorkOptions, configure
from svitkit.compress.primesvt import PrimeSVTConfig
from svitkit.compress.prune_pipeline import prune
from svitkit.compress.report import (
    PruneReport,
)
from svitkit.compress.run import CompressionRun, CompressResult
from svitkit.compress.ticket_pipeline import draw_ticket
from svitkit.compress.token_pipeline import skip_tokens, train_selection
from svitkit.compress.token_select import TokenSelectConfig
from svitkit.compress.token_skip import TokenSkipConfig
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError
from svitkit.models.checkpoint import Checkpoint, checkpoint_sha256
from svitkit.models.spec import match_dataset

Progress = Callable[[str, int, int], None]

DEFAULT_DROP = AQ4SViTConfig().max_drop
"""Points that several methods may lose together."""


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
    run = CompressionRun(checkpoint, data, out, options, work or WorkOptions(), costs, progress or _silent)
    subject = Subject(
        checkpoint_sha256=checkpoint_sha256(checkpoint),
        data_sha256=data_sha256(data),
        settings_sha256=options.sha256(),
    )
    return _run(run, Journal(out / JOURNAL_NAME, subject, resume=resume))


def _run(run: CompressionRun, journal: Journal) -> CompressResult:
    """Runs the method of a run."""
    config = run.options.config
    if isinstance(config, AQ4SViTConfig):
        return search_bits(run, config, journal)
    if isinstance(config, LotteryConfig):
        return draw_ticket(run, config, journal)
    if isinstance(config, TokenSkipConfig):
        return skip_tokens(run, config, journal)
    if isinstance(config, TokenSelectConfig):
        return train_selection(run, config, journal)
    if run.options.method in INTEGER_METHODS:
        assert isinstance(config, PrimeSVTConfig)
        return quantize(run, config, journal)
    return prune(run, config, journal)


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
