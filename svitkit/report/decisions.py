"""The decisions of one compression with their reasons, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from svitkit.manifest import Manifest, SparseWeights
from svitkit.report.blocks import Cell, Row, Table
from svitkit.report.words import figure, kibibytes, percent

if TYPE_CHECKING:
    from svitkit.compress.report import GroupReport, PruneReport, StepReport
    from svitkit.compress.report_layers import LayerReport
    from svitkit.compress.report_tickets import TicketsReport
    from svitkit.compress.report_tokens import TokensReport


def decision_tables(report: PruneReport | None, manifest: Manifest) -> list[Table]:
    """Returns a table for each kind of decision that was made; none if nothing is known.

    Args:
        report: of the compression; None if there is none.
        manifest: of the bundle that was built from its network.
    """
    tables = (
        []
        if report is None
        else [
            *([_steps(report.steps)] if report.steps else []),
            *([_groups(report.groups)] if report.groups else []),
            *([_layers(report.layers)] if report.layers else []),
            *([_tokens(report.tokens)] if report.tokens else []),
            *([_tickets(report.tickets)] if report.tickets else []),
        ]
    )
    return [*tables, *([_sparse(manifest.sparse)] if manifest.sparse else [])]


def _steps(steps: Sequence[StepReport]) -> Table:
    rows = [
        Row(cells=(step.method, f"{step.validation:.2f}", kibibytes(step.parameter_bytes), percent(step.share)))
        for step in steps
    ]
    columns = ("method", "validation %", "parameters KiB", "adds to the saving")
    return Table(caption="Methods one after the other", columns=columns, rows=rows, numeric=frozenset({1, 2, 3}))


def _groups(groups: Sequence[GroupReport]) -> Table:
    rows = [
        Row(
            cells=(
                group.name,
                f"{group.channels_before} -> {group.channels_after}",
                Cell(text=percent(group.ratio), bar=group.ratio),
                kibibytes(group.size_bytes) if group.size_bytes else "",
                f"{group.decision}: {group.why}",
            )
        )
        for group in groups
    ]
    columns = ("group", "channels", "removed", "KiB before", "decision")
    return Table(caption="Prune groups", columns=columns, rows=rows, numeric=frozenset({1, 2, 3}))


def _layers(layers: Sequence[LayerReport]) -> Table:
    rows = [
        Row(cells=(layer.name, str(layer.bits), f"{layer.weights:,}", kibibytes(layer.size_bytes), layer.why))
        for layer in layers
    ]
    columns = ("layer", "bits", "weights", "KiB", "why")
    return Table(caption="Layers with integer weights", columns=columns, rows=rows, numeric=frozenset({1, 2, 3}))


def _tokens(report: TokensReport) -> Table:
    rows = [
        Row(
            cells=(
                block.block,
                f"{block.kept} of {block.tokens}",
                block.criterion,
                "skip the block" if block.rest == "skip" else "drop out",
            )
        )
        for block in report.blocks
    ]
    saved = f"; {percent(report.saving)} of the dense multiply-accumulates saved"
    columns = ("block", "tokens computed", "chosen by", "the others")
    return Table(caption=f"Tokens{saved}", columns=columns, rows=rows, numeric=frozenset({1}))


def _tickets(report: TicketsReport) -> Table:
    rows = [
        Row(
            cells=(
                str(each.number),
                Cell(text=percent(each.sparsity), bar=each.sparsity),
                f"{each.weights:,}",
                kibibytes(each.parameter_bytes),
                f"{each.validation:.2f}",
                "taken" if each.accepted else f"{figure(each.drop)} points lost",
            )
        )
        for each in report.rounds
    ]
    columns = ("round", "zeros", "weights left", "parameters KiB", "validation %", "decision")
    return Table(caption="Rounds of the lottery ticket", columns=columns, rows=rows, numeric=frozenset(range(1, 5)))


def _sparse(parts: Sequence[SparseWeights]) -> Table:
    rows = [Row(cells=(part.layer, kibibytes(part.stored_bytes), kibibytes(part.expanded_bytes))) for part in parts]
    columns = ("layer", "stored KiB", "expanded KiB")
    return Table(caption="Weights stored without zeros", columns=columns, rows=rows, numeric=frozenset({1, 2}))
