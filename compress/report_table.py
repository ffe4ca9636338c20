"""A report as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from svitkit.compress.report import GroupReport, PruneReport
from svitkit.compress.report_layers import add_layers
from svitkit.compress.report_tickets import add_tickets, dead_channels_text
from svitkit.compress.report_tokens import add_tokens


def report_table(report: PruneReport) -> Table:
    """Returns a report's groups, layers, rounds or blocks as a table for the terminal; totals stand in the caption."""
    table = Table(title=f"{report.method}: {'constraints met' if report.satisfied else 'constraints NOT met'}")
    if report.layers:
        add_layers(table, report.layers)
    elif report.tokens is not None:
        add_tokens(table, report.tokens)
    elif report.tickets is not None:
        add_tickets(table, report.tickets)
    else:
        _add_groups(table, report.groups)
    table.caption = (
        f"{report.why}\naccuracy % (test): {report.before.test:.2f} -> {report.after.test:.2f}, "
        f"(validation): {report.before.validation:.2f} -> {report.after.validation:.2f}; "
        f"parameters: {report.parameter_bytes_before} -> {report.parameter_bytes_after} bytes; "
        f"saving {100 * report.memory_saving:.1f} % of the original"
    )
    if report.tokens is not None:
        before, after = (count / 1e6 for count in (report.tokens.operations_before, report.tokens.operations_after))
        table.caption += (
            f"\nmultiply-accumulates: {before:.1f} -> {after:.1f} M, {100 * report.tokens.saving:.1f} % less"
        )
    if report.bits is not None and report.bits.membranes is not None:
        table.caption += f"\nmembrane potentials: {report.bits.membranes} bits, neurons compute in integers"
    if report.tickets is not None and report.tickets.dead:
        table.caption += f"\nremoved, as they had no effect: {dead_channels_text(report.tickets)}"
    spent = report.objective
    if spent is not None:
        table.caption += f"\n{spent.unit}: {spent.before:.4g} -> {spent.after:.4g}, 1/{spent.before / spent.after:.2f}"
    return table


def _add_groups(table: Table, groups: tuple[GroupReport, ...]) -> None:
    table.add_column("group", overflow="fold")
    for name in ("KiB", "channels", "rate", "B score"):
        table.add_column(name, justify="right")
    table.add_column("validation % alone (rate)")
    table.add_column("decision", overflow="fold")
    for group in groups:
        sweep = " ".join(f"{'~' * bool(point.images)}{point.accuracy:.1f} ({point.ratio:g})" for point in group.sweep)
        table.add_row(
            group.name,
            f"{group.size_bytes / 1024:.1f}" if group.size_bytes else "",
            f"{group.channels_before} -> {group.channels_after}",
            f"{group.ratio:.2f}" if group.ratio else "",
            "" if group.score is None else f"{group.score:.2f}",
            sweep,
            f"{group.decision}: {group.why}",
        )
