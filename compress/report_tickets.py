"""The rounds of a search for a lottery ticket, as the report lists them."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from rich.table import Table

from svitkit.manifest import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TicketRound:
    """One training with the weights that are left.

    Attributes:
        number: how often weights were removed before; 0 is the whole network.
        sparsity: fraction of the prunable weights that are 0.
        weights: how many are left.
        validation: accuracy, in percent.
        parameter_bytes: deployed, stored without zeros where that is smaller.
        drop: points of accuracy below the given network.
        accepted: whether this one was taken.
    """

    number: int
    sparsity: float
    weights: int
    validation: float
    parameter_bytes: int
    drop: float
    accepted: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ControlReport:
    """What else was trained, with as many weights and as long as the ticket.

    Attributes:
        name: ``reinit`` (the ticket's places with newly drawn weights) or ``oneshot`` (the smallest weights of round 0
            removed at once).
        sparsity: fraction of the prunable weights that are 0.
        validation, test: accuracies, in percent.
    """

    name: str
    sparsity: float
    validation: float
    test: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeadChannels:
    """A group of which channels were removed because nothing reads them or they never fire.

    Attributes:
        group: its name.
        channels_before, channels_after: width.
    """

    group: str
    channels_before: int
    channels_after: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TicketsReport:
    """How a lottery ticket was found.

    Attributes:
        epochs: length of a whole training.
        rewind_epoch: epochs after which the weights were taken that every round starts from.
        seed: of the weights and of the training.
        rounds: all of them.
        controls: what the ticket is compared with.
        dead: groups that lost channels in the end.
    """

    epochs: int
    rewind_epoch: int
    seed: int
    rounds: tuple[TicketRound, ...]
    controls: tuple[ControlReport, ...] = ()
    dead: tuple[DeadChannels, ...] = ()


def dead_channels_text(report: TicketsReport) -> str:
    """Says how many channels every group lost, in a line."""
    lost = [
        f"{each.channels_before - each.channels_after} of {each.channels_before} ({each.group})" for each in report.dead
    ]
    return f"channels {', '.join(lost)}"


def add_tickets(table: Table, report: TicketsReport) -> None:
    """Adds a row for every round and every control to a table without columns."""
    for name in ("round", "sparsity %", "weights", "KiB", "validation %", "test %"):
        table.add_column(name, justify="right")
    table.add_column("decision")
    for each in report.rounds:
        table.add_row(
            str(each.number),
            f"{100 * each.sparsity:.1f}",
            f"{each.weights:,}",
            f"{each.parameter_bytes / 1024:,.1f}",
            f"{each.validation:.2f}",
            "",
            "taken" if each.accepted else f"{'loses' if each.drop >= 0 else 'gains'} {abs(each.drop):.2f} points",
        )
    for control in report.controls:
        share, validation, test = (
            f"{value:.2f}" for value in (100 * control.sparsity, control.validation, control.test)
        )
        table.add_row(control.name, share, "", "", validation, test, "for comparison")
