"""The tokens that blocks compute, as the report lists them."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from rich.table import Table

from svitkit.compress.token_plan import TokenPlan
from svitkit.compress.token_skip import TokenOutcome
from svitkit.manifest import STRICT
from svitkit.models.spec import TokenReduction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenRate:
    """A block alone with fewer tokens.

    Attributes:
        block: its name.
        criterion: how it chose them.
        kept: how many it computed.
        divergence: from the whole network's answers, in nats.
        operations_saved: multiply-accumulates, dense, over all time steps.
    """

    block: str
    criterion: str
    kept: int
    divergence: float
    operations_saved: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokensReport:
    """Fewer tokens.

    Attributes:
        blocks: those that compute fewer, in the order of execution.
        operations_before, operations_after: multiply-accumulates of an inference, dense, over all time steps.
        full_evaluations: plans whose accuracy was measured on the validation split.
        rates: every block alone, as far as the method looked at that.
    """

    blocks: tuple[TokenReduction, ...]
    operations_before: float
    operations_after: float
    full_evaluations: int = 0
    rates: tuple[TokenRate, ...] = ()

    @property
    def saving(self) -> float:
        """Fraction of the operations that is saved."""
        return 1.0 - self.operations_after / self.operations_before


def describe_tokens(plan: TokenPlan, before: float, after: float, outcome: TokenOutcome | None = None) -> TokensReport:
    """Puts the report together.

    Args:
        plan: the tokens that are left.
        before: operations of the network before.
        after: operations of the result.
        outcome: of the search, if there was one.
    """
    rates = () if outcome is None else outcome.rates
    return TokensReport(
        blocks=plan.reductions,
        operations_before=before,
        operations_after=after,
        full_evaluations=0 if outcome is None else len(outcome.measured),
        rates=tuple(
            TokenRate(
                block=rate.block,
                criterion=rate.criterion,
                kept=rate.kept,
                divergence=rate.divergence,
                operations_saved=rate.saved,
            )
            for rate in rates
        ),
    )


def add_tokens(table: Table, report: TokensReport) -> None:
    """Adds a row for every block to a table without columns."""
    table.add_column("block")
    for name in ("tokens", "computed"):
        table.add_column(name, justify="right")
    table.add_column("chosen by")
    table.add_column("the others")
    table.add_column("divergence alone (tokens)")
    for block in report.blocks:
        rates = [rate for rate in report.rates if rate.block == block.block and rate.criterion == block.criterion]
        alone = " ".join(f"{rate.divergence:.3f} ({rate.kept})" for rate in rates)
        others = "skip the block" if block.rest == "skip" else "drop out"
        table.add_row(block.block, str(block.tokens), str(block.kept), block.criterion, others, alone)
