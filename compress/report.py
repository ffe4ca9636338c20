"""What a compression run did and why, as ``report.json``."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from svitkit.compress.aq4svit import AQ4SViTConfig, BitSearch
from svitkit.compress.balance import BalanceConfig, BalanceSearch
from svitkit.compress.groups import FoundGroup
from svitkit.compress.layer_costs import Spent
from svitkit.compress.lottery import LotteryConfig, TicketSearch
from svitkit.compress.options import Config
from svitkit.compress.primesvt import Outcome, Search, Swept
from svitkit.compress.report_bits import BitsReport
from svitkit.compress.report_candidates import CandidateReport, describe_candidates
from svitkit.compress.report_layers import LayerReport
from svitkit.compress.report_tickets import TicketsReport
from svitkit.compress.report_tokens import TokensReport
from svitkit.compress.token_select import Selection, TokenSelectConfig
from svitkit.compress.token_skip import SkipSearch, TokenSkipConfig
from svitkit.manifest import STRICT

REPORT_NAME = "report.json"
AnySearch = Search | BalanceSearch | BitSearch | TicketSearch | SkipSearch | Selection


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepPoint:
    """One group pruned alone.

    Attributes:
        ratio: fraction of channels asked to be removed.
        channels: channels left after rounding.
        accuracy: percent, on validation; an estimate where ``images`` is given.
        saving: fraction of the network's parameter bytes that this removal alone saves.
        images: how many were looked at, if that was enough to know that the loss is too large; None for all.
        score: B score at this rate.
        robust: whether the loss of accuracy is one that the method takes for robust.
        divergence: mean Kullback-Leibler divergence from the whole network's answers, in nats, where it was measured;
            accuracy is that of the same images then.
    """

    ratio: float
    channels: int
    accuracy: float
    saving: float
    images: int | None = None
    score: float
    robust: bool
    divergence: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroupReport:
    """What happened to one group.

    Attributes:
        name: the layer that produces its channels.
        channels_before, channels_after: width.
        blocks: attention heads that share the width equally.
        size_bytes: bytes of all its channels in the deployed float32 parameters; 0 if it is not prunable.
        filter_bytes: the part of it in the weights that produce the channels.
        order: place in the table of groups by size, from 1 for the largest; None if it is not prunable.
        target: whether the method chose it for pruning.
        ratio: fraction of channels removed in the end.
        score: the B score; None if the group was not swept, or no rate was robust.
        sweep: accuracy at every rate, the group pruned alone.
        decision: ``pruned``; ``kept`` if it could have been pruned; ``not prunable``.
        why: the reason, in words.
    """

    name: str
    channels_before: int
    channels_after: int
    blocks: int
    size_bytes: int
    filter_bytes: int
    order: int | None
    target: bool
    ratio: float
    score: float | None
    sweep: tuple[SweepPoint, ...]
    decision: Literal["pruned", "kept", "not prunable"]
    why: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Accuracy:
    """Percent of images classified correctly; ``test`` was not looked at before the end."""

    validation: float
    test: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StepReport:
    """One method of several.

    Attributes:
        method: its name.
        validation: accuracy after it, in percent.
        parameter_bytes: deployed parameters after it.
        share: what it adds to the memory saving, a fraction of the original's bytes.
    """

    method: str
    validation: float
    parameter_bytes: int
    share: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PruneReport:
    """The whole run.

    Attributes:
        satisfied: whether accuracy (on validation) and saving are both within the user's constraints.
        why: the outcome in one sentence.
        settings: what the method was told.
        finetune_epochs: epochs of training after the removal.
        seed: of the fine-tuning.
        bn_recalibration: training images on which batch norms were calibrated again.
        limit: images per split at most; None for all.
        before, after: accuracies.
        original_parameter_bytes: the network before any compression, this run's and earlier ones'.
        parameter_bytes_before, parameter_bytes_after: deployed parameters, integer weights at their width.
        memory_saving: 1 - after / original, a fraction.
        groups: in the order of execution; empty if the method prunes nothing.
        layers: layers with integer weights in the order of execution; empty if the method quantizes nothing.
        candidates: every descent that was tried; empty if the method does not descend.
        objective: what the search made as small as it could, if it was not the bytes alone.
        bits: the search for bits, if there was one.
        tickets: the search for a lottery ticket, if there was one.
        tokens: the tokens that blocks compute, if the method reduces them.
        steps: the methods one after the other, if there were several; ``settings`` are those of the last one then.
    """

    format_version: Literal[1] = 1
    method: str
    satisfied: bool
    why: str
    settings: Config
    bn_recalibration: int
    finetune_epochs: int
    seed: int
    limit: int | None
    before: Accuracy
    after: Accuracy
    original_parameter_bytes: int
    parameter_bytes_before: int
    parameter_bytes_after: int
    memory_saving: float
    groups: tuple[GroupReport, ...]
    layers: tuple[LayerReport, ...] = ()
    candidates: tuple[CandidateReport, ...] = ()
    objective: Spent | None = None
    bits: BitsReport | None = None
    tickets: TicketsReport | None = None
    tokens: TokensReport | None = None
    steps: tuple[StepReport, ...] = ()


def describe_groups(found: tuple[FoundGroup, ...], outcome: Outcome, config: Config) -> tuple[GroupReport, ...]:
    """Says for every group what was decided and why.

    Args:
        found: all groups, in the order of execution.
        outcome: what the search found.
        config: what it was told.
    """
    swept = {group.found.group.name: group for group in outcome.swept}
    order = {name: place for place, name in enumerate(swept, start=1)}
    kept = {pruned.group.name: len(pruned.kept) for pruned in outcome.plan.groups}
    reports = []
    for entry in found:
        name, channels = entry.group.name, entry.group.channels
        left = kept.get(name, channels)
        robustness = swept.get(name)
        reports.append(
            GroupReport(
                name=name,
                channels_before=channels,
                channels_after=left,
                blocks=entry.group.blocks,
                size_bytes=entry.size_bytes,
                filter_bytes=entry.filter_bytes,
                order=order.get(name),
                target=robustness is not None and robustness.target,
                ratio=1.0 - left / channels,
                score=robustness.score if robustness else None,
                sweep=_points(robustness) if robustness else (),
                decision="pruned" if left < channels else "kept" if entry.prunable else "not prunable",
                why=entry.reason or outcome.reasons.get(name) or _passed_over(robustness, config),
            )
        )
    return tuple(reports)


def _points(robustness: Swept) -> tuple[SweepPoint, ...]:
    return tuple(
        SweepPoint(
            ratio=t.ratio,
            channels=len(t.pruned.kept),
            accuracy=t.accuracy,
            saving=t.saving,
            images=t.images,
            score=t.score,
            robust=t.robust,
            divergence=t.divergence,
        )
        for t in robustness.trials
    )


def _passed_over(robustness: Swept | None, config: Config) -> str:
    assert not isinstance(config, AQ4SViTConfig | LotteryConfig | TokenSkipConfig | TokenSelectConfig)
    if robustness is None or not robustness.trials or isinstance(config, BalanceConfig):
        return f"too narrow: no rate leaves fewer channels, in multiples of {config.channel_multiple}"
    if robustness.score is None:
        return f"no target: every rate loses more than {config.tolerance:g} points, pruned alone"
    if robustness.score < config.min_score:
        return f"no target: its B score is below {config.min_score:g}"
    if not robustness.target:
        return f"no target: {config.max_targets} groups have a higher B score"
    return "not needed: larger groups gave the wanted saving"


def describe_outcome(
    search: AnySearch,
    outcome: Outcome,
    *,
    method: str,
    bn_recalibration: int,
    finetune_epochs: int,
    seed: int,
    limit: int | None,
    before: Accuracy,
    after: Accuracy,
    groups: tuple[GroupReport, ...] = (),
    layers: tuple[LayerReport, ...] = (),
    bits: BitsReport | None = None,
    tickets: TicketsReport | None = None,
    tokens: TokensReport | None = None,
) -> PruneReport:
    """Puts a report together; the constraints are judged on the network as it is in the end.

    Args:
        search: what was wanted.
        outcome: what the search found.
        method: its name.
        bn_recalibration: images on which batch norms were calibrated.
        finetune_epochs: epochs of training after the removal.
        seed: of the fine-tuning.
        limit: images per split at most.
        before: accuracies of the given network.
        after: accuracies of the pruned and perhaps fine-tuned network.
        groups: what happened to every group, if the method prunes.
        layers: what happened to every layer, if the method quantizes.
        bits: the search for bits, if there was one.
        tickets: the search for a lottery ticket, if there was one.
        tokens: the tokens that blocks compute, if the method reduces them.
    """
    config, saving = search.config, search.saving(outcome.measurement)
    drop = before.validation - after.validation
    saved, of = (saving, "") if tokens is None else (tokens.saving, " of the operations")
    accurate, small = drop <= config.max_drop, saved >= config.min_saving
    why = outcome_text(saved, drop, min_saving=config.min_saving, max_drop=config.max_drop, of=of)
    if not small and (groups or bits):
        why += "; of the candidates tried none within the allowed loss saves more"
    return PruneReport(
        method=method,
        satisfied=accurate and small,
        why=why,
        settings=config,
        bn_recalibration=bn_recalibration,
        finetune_epochs=finetune_epochs,
        seed=seed,
        limit=limit,
        before=before,
        after=after,
        original_parameter_bytes=search.original_bytes,
        parameter_bytes_before=search.baseline.parameter_bytes,
        parameter_bytes_after=outcome.measurement.parameter_bytes,
        memory_saving=saving,
        groups=groups,
        layers=layers,
        candidates=describe_candidates(search, outcome),
        objective=outcome.objective,
        bits=bits,
        tickets=tickets,
        tokens=tokens,
    )


def outcome_text(saving: float, drop: float, *, min_saving: float, max_drop: float, of: str = "") -> str:
    """Says in a sentence what was reached and what was wanted; savings are fractions (of bytes), losses points."""
    change = f"loses {drop:.2f}" if drop >= 0 else f"gains {-drop:.2f}"
    return (
        f"saves {100 * saving:.1f} %{of} (at least {100 * min_saving:g} wanted) and {change} points on "
        f"validation (a loss of {max_drop:g} allowed)"
    )
