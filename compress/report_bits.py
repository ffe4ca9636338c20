"""What a search for bits looked at, and what its gate was worth."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.dataclasses import dataclass
from scipy.stats import spearmanr

from svitkit.compress.aq4svit import BitOutcome, BitSearch, Tried, full_evaluations
from svitkit.compress.bits import blocks
from svitkit.manifest import STRICT
from svitkit.models.quantized import QuantizedWeight

AUDIT = "audit"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BitCandidate:
    """A candidate.

    Attributes:
        level: what it was looked at for: ``network``, ``stage``, ``block``, ``beam``, ``audit`` or ``membrane``.
        bits: how many layers have how many, with a hash.
        drift: of the membrane potentials; None if the gate did not look.
        accuracy: percent, on validation; None if the gate turned it away, an estimate if the evaluation stopped early.
        parameter_bytes: deployed parameters.
        kept: whether it keeps accuracy, as far as is known.
    """

    level: str
    bits: str
    drift: float | None
    accuracy: float | None
    parameter_bytes: int
    kept: bool | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BitsReport:
    """The whole search.

    Attributes:
        full_evaluations: candidates whose accuracy was measured on the validation split, without the audit.
        gated: candidates whose drift was measured.
        rank_correlation: Spearman's, of drift and lost accuracy, over the candidates of which both are known; None for
            fewer than three.
        audited: candidates that the gate turned away and that were measured nevertheless.
        wrongly_rejected: how many of those keep accuracy.
        membranes: bits of the membrane potentials that were found; None for float32.
        candidates: every one, in the order in which the search came to it.
    """

    full_evaluations: int
    gated: int
    rank_correlation: float | None
    audited: int
    wrongly_rejected: int
    membranes: int | None = None
    candidates: tuple[BitCandidate, ...]


def describe_search(search: BitSearch, outcome: BitOutcome) -> BitsReport:
    """Says what a search did.

    Args:
        search: the search.
        outcome: what it found.
    """
    audit = [tried for tried in outcome.tried if tried.level == AUDIT and tried.measured is not None]
    return BitsReport(
        full_evaluations=full_evaluations(outcome.tried),
        gated=len({tried.plan for tried in outcome.tried if tried.drift is not None}),
        rank_correlation=_rank_correlation(outcome.tried),
        audited=len(audit),
        wrongly_rejected=sum(bool(tried.kept) for tried in audit),
        membranes=outcome.plan.membranes,
        candidates=tuple(
            BitCandidate(
                level=tried.level,
                bits=tried.plan.label(),
                drift=tried.drift,
                accuracy=_accuracy(tried),
                parameter_bytes=search.size(tried.plan),
                kept=tried.kept,
            )
            for tried in outcome.tried
        ),
    )


def reasons_of_search(search: BitSearch, weights: dict[str, QuantizedWeight]) -> dict[str, str]:
    """Says for every layer why it has its bits."""
    names = list(weights)
    protected, ends = search.config.protected_bits, (names[0], names[-1])
    parts = {name: part.name for part in blocks(names) for name in part.layers}
    fewest = min(search.config.widths)
    reasons = {}
    for name, weight in weights.items():
        if name in ends and weight.bits == protected > fewest:
            reasons[name] = "protected: the first or the last layer"
        elif weight.bits == fewest:
            reasons[name] = "the fewest bits that were allowed"
        else:
            reasons[name] = f"fewer bits in '{parts[name]}' lose more than {search.config.max_drop:g} points"
    return reasons


def _accuracy(tried: Tried) -> float | None:
    if tried.measured is None:
        return None
    return tried.measured.estimate


def _rank_correlation(tried: Sequence[Tried]) -> float | None:
    known = {each.plan: each for each in tried if each.drift is not None and each.measured is not None}
    pairs = [(each.drift, -(_accuracy(each) or 0.0)) for each in known.values()]
    if len(pairs) < 3 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
