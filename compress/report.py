"""What a compression run did and why, as ``report.json`` and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from svitkit.compress.groups import FoundGroup
from svitkit.compress.primesvt import Outcome, PrimeSVTConfig, Search, Swept
from svitkit.compress.report_layers import LayerReport, add_layers
from svitkit.manifest import STRICT

if TYPE_CHECKING:
    from rich.table import Table

REPORT_NAME = "report.json"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepPoint:
    """One group pruned alone.

    Attributes:
        ratio: fraction of channels asked to be removed.
        channels: channels left after rounding.
        accuracy: percent, on validation.
        saving: fraction of the network's parameter bytes that this removal alone saves.
    """

    ratio: float
    channels: int
    accuracy: float
    saving: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroupReport:
    """What happened to one group.

    Attributes:
        name: the layer that produces its channels.
        channels_before, channels_after: width.
        blocks: attention heads that share the width equally.
        size_bytes: bytes of all its channels in the deployed float32 parameters; 0 if it is not prunable.
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
    """

    format_version: Literal[1] = 1
    method: str
    satisfied: bool
    why: str
    settings: PrimeSVTConfig
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


def describe_groups(found: tuple[FoundGroup, ...], outcome: Outcome, config: PrimeSVTConfig) -> tuple[GroupReport, ...]:
    """Says for every group what was decided and why.

    Args:
        found: all groups, in the order of execution.
        outcome: what the search found.
        config: what it was told.
    """
    swept = {group.found.group.name: group for group in outcome.swept}
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
        SweepPoint(ratio=t.ratio, channels=len(t.pruned.kept), accuracy=t.accuracy, saving=t.saving)
        for t in robustness.trials
    )


def _passed_over(robustness: Swept | None, config: PrimeSVTConfig) -> str:
    if robustness is None or not robustness.trials:
        return f"too narrow: no rate leaves fewer channels, in multiples of {config.channel_multiple}"
    if robustness.score is None:
        return f"no target: every rate loses more than {config.tolerance:g} points, pruned alone"
    if robustness.score < config.min_score:
        return f"no target: its B score is below {config.min_score:g}"
    return "not needed: larger groups gave the wanted saving"


def describe_outcome(
    search: Search,
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
    """
    config, saving = search.config, search.saving(outcome.measurement)
    drop = before.validation - after.validation
    accurate, small = drop <= config.max_drop, saving >= config.min_saving
    change = f"loses {drop:.2f}" if drop >= 0 else f"gains {-drop:.2f}"
    why = (
        f"saves {100 * saving:.1f} % (at least {100 * config.min_saving:g} wanted) and {change} points on "
        f"validation (a loss of {config.max_drop:g} allowed)"
    )
    if not small and groups:
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
    )


def report_table(report: PruneReport) -> Table:
    """Returns the report's groups or layers as a table for the terminal; totals stand in the caption."""
    from rich.table import Table

    table = Table(title=f"{report.method}: {'constraints met' if report.satisfied else 'constraints NOT met'}")
    if report.layers:
        add_layers(table, report.layers)
    else:
        _add_groups(table, report.groups)
    table.caption = (
        f"{report.why}\naccuracy % (test): {report.before.test:.2f} -> {report.after.test:.2f}, "
        f"(validation): {report.before.validation:.2f} -> {report.after.validation:.2f}; "
        f"parameters: {report.parameter_bytes_before} -> {report.parameter_bytes_after} bytes; "
        f"saving {100 * report.memory_saving:.1f} % of the original"
    )
    return table


def _add_groups(table: Table, groups: tuple[GroupReport, ...]) -> None:
    table.add_column("group", overflow="fold")
    for name in ("KiB", "channels", "rate", "B score"):
        table.add_column(name, justify="right")
    table.add_column("validation % alone (rate)")
    table.add_column("decision", overflow="fold")
    for group in groups:
        sweep = " ".join(f"{point.accuracy:.1f} ({point.ratio:g})" for point in group.sweep)
        table.add_row(
            group.name,
            f"{group.size_bytes / 1024:.1f}" if group.size_bytes else "",
            f"{group.channels_before} -> {group.channels_after}",
            f"{group.ratio:.2f}" if group.ratio else "",
            "" if group.score is None else f"{group.score:.2f}",
            sweep,
            f"{group.decision}: {group.why}",
        )
