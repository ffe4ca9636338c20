"""The candidates that a search compared, as the report lists them."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from svitkit.compress.goal import Goal
from svitkit.compress.primesvt import Outcome
from svitkit.manifest import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CandidateReport:
    """One descent through the targets, from the largest to the smallest.

    Attributes:
        budget: the share of the allowed loss that one group might spend.
        accuracy: percent, on validation.
        parameter_bytes: deployed parameters.
        saving: fraction of the original parameter bytes.
        satisfied: whether both constraints hold, before any fine-tuning.
        accepted: whether this one was taken.
        ratios: group -> fraction of channels removed, in the order in which they were pruned.
    """

    budget: float
    accuracy: float
    parameter_bytes: int
    saving: float
    satisfied: bool
    accepted: bool
    ratios: dict[str, float]


def describe_candidates(search: Goal, outcome: Outcome) -> tuple[CandidateReport, ...]:
    """Lists what every descent came to.

    Args:
        search: what was wanted.
        outcome: what the search found.
    """
    return tuple(
        CandidateReport(
            budget=candidate.budget,
            accuracy=candidate.measurement.accuracy,
            parameter_bytes=candidate.measurement.parameter_bytes,
            saving=search.saving(candidate.measurement),
            satisfied=candidate.satisfied,
            accepted=candidate.plan is outcome.plan,
            ratios={p.group.name: len(p.removed()) / p.group.channels for p in candidate.plan.groups},
        )
        for candidate in outcome.candidates
    )
