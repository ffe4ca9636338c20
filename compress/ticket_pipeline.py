"""Lottery tickets, from a network to the smaller checkpoint: the recipe, the folder of rounds, and the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from svitkit.compress.dead_channels import remove_dead_channels
from svitkit.compress.evaluate import load_batches
from svitkit.compress.journal import Journal
from svitkit.compress.lottery import LotteryConfig, Ticket, TicketSearch, rewinding, training_recipe
from svitkit.compress.report import REPORT_NAME, PruneReport
from svitkit.compress.report_tickets import DeadChannels
from svitkit.compress.rounds import ROUNDS_NAME, Rounds
from svitkit.compress.run import CompressionRun, CompressResult
from svitkit.data.dataset import Dataset
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint

PROOF_IMAGES = 64


def finished(out: Path) -> tuple[Checkpoint, PruneReport] | None:
    """Returns what a search that came to its end wrote; its rounds are gone, so that it cannot be repeated.

    Raises:
        ConfigError: the report or the checkpoint is damaged.
    """
    report = out / REPORT_NAME
    if not report.exists():
        return None
    return load_checkpoint(out), from_json(report.read_bytes(), PruneReport, source=str(report))


def cleared(ticket: Ticket, data: Dataset, *, timesteps: int) -> Ticket:
    """Returns a ticket without its dead channels (:mod:`svitkit.compress.dead_channels`).

    Args:
        ticket: what was found.
        data: images of its training split prove that spikes stay the same.
        timesteps: T.
    """
    images = load_batches(data, "train", timesteps=timesteps, limit=PROOF_IMAGES, batch_size=PROOF_IMAGES)[0][0]
    removal = remove_dead_channels(ticket.model, images)
    dead = tuple(
        DeadChannels(group=name, channels_before=before, channels_after=after)
        for name, (before, after) in removal.widths.items()
    )
    return Ticket(model=removal.model, report=replace(ticket.report, dead=dead), plan=removal.plan)


def draw_ticket(run: CompressionRun, config: LotteryConfig, journal: Journal) -> CompressResult:
    """Lottery: trains ever sparser networks, and takes the sparsest within the limits.

    Raises:
        ConfigError: how the network was trained is not known, or a setting does not fit it.
    """
    found = finished(run.out)
    if found is not None:
        return CompressResult(checkpoint=found[0], report=found[1], satisfied=found[1].satisfied)
    spec, baseline = run.checkpoint.spec, run.baseline(journal)
    options = training_recipe(spec, config)
    search = TicketSearch(
        config=config,
        baseline=baseline,
        original_bytes=spec.original_parameter_bytes or baseline.parameter_bytes,
        rounds=Rounds(
            spec,
            run.data,
            run.out / ROUNDS_NAME,
            options=options,
            rewind_epoch=rewinding(options, config),
            progress=run.progress,
        ),
        journal=journal,
        validation=run.validation,
        test=load_batches(run.data, "test", timesteps=run.timesteps),
        size=run.candidates.size,
    )
    ticket = cleared(search.run(), run.data, timesteps=run.timesteps)
    outcome = run.outcome(ticket.model, journal, plan=ticket.plan)
    report = run.describe(search, outcome, journal, ticket.model, tickets=ticket.report)
    return run.write(ticket.model, ticket.plan, report)
