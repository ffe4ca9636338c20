"""Training-free skipping of tokens: how many tokens every block computes, and how it chooses them.

The score of a token is TP-Spikformer's (arXiv 2603.00527), whose authors set the ratios by hand; here they are found.

1. Every block alone, half of its tokens kept, by every criterion: the one with the least divergence from the whole
   network's answers on a few images is the block's.
2. Every block alone, at every rate: its divergence over the operations that it saves.
3. The steps of all blocks, those of the least divergence per operation first, make a path; on it, the farthest point
   within the allowed loss is found by bisection.
4. From there, every block that may still lose a step loses it, until none may.

Divergence is measured on a few images of the validation split, accuracy on all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from itertools import pairwise

from pydantic import Field
from pydantic.dataclasses import dataclass

from svitkit.compress.executor import Evaluates
from svitkit.compress.goal import Goal
from svitkit.compress.journal import Measurement
from svitkit.compress.margin import accuracy_floor
from svitkit.compress.token_blocks import Block
from svitkit.compress.token_plan import TokenPlan
from svitkit.manifest import STRICT
from svitkit.models.spec import TokenCriterion

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenSkipConfig:
    """Constraints and settings.

    Attributes:
        max_drop: accuracy that may be lost on the validation split, in points.
        min_saving: fraction of the operations that must be saved.
        criteria: how a block may choose its tokens.
        steps: how many rates are tried, at equal distances from all tokens to one of them.
        probe_images: validation images for the divergence.
        margin: standard errors of the measured loss by which a candidate must stay within ``max_drop``.
    """

    max_drop: float = Field(default=1.0, ge=0)
    min_saving: float = Field(default=0.0, ge=0, lt=1)
    criteria: tuple[TokenCriterion, ...] = Field(default=("difference", "activity", "grid"), min_length=1)
    steps: int = Field(default=8, ge=2)
    probe_images: int = Field(default=256, ge=1)
    margin: float = Field(default=1.0, ge=0)


@plain_dataclass(frozen=True, kw_only=True)
class Rate:
    """A block alone with fewer tokens.

    Attributes:
        block: its name.
        criterion: how it chooses them.
        kept: how many it computes.
        divergence: from the whole network's answers, in nats.
        saved: multiply-accumulates.
    """

    block: str
    criterion: TokenCriterion
    kept: int
    divergence: float
    saved: float


@plain_dataclass(frozen=True, kw_only=True)
class TokenOutcome:
    """What the search found.

    Attributes:
        plan: the tokens that blocks compute.
        measurement: accuracy on validation, and bytes.
        rates: every block alone, in the order in which it was looked at.
        measured: every plan whose accuracy was measured, with its operations.
    """

    plan: TokenPlan
    measurement: Measurement
    rates: tuple[Rate, ...]
    measured: tuple[tuple[TokenPlan, Measurement], ...]


@plain_dataclass(frozen=True, kw_only=True)
class SkipSearch(Goal):
    """One run.

    Attributes:
        config: constraints and settings.
        blocks: of the network, in the order of execution.
        evaluator: measures accuracy on the validation split.
        probes: measures divergence on a few images.
        operations: multiply-accumulates of the network with a plan.
        images: how many validation images there are.
        progress: told the stage, how much of it is done, and how much there is.
    """

    config: TokenSkipConfig
    blocks: tuple[Block, ...]
    evaluator: Evaluates[TokenPlan]
    probes: Evaluates[TokenPlan]
    operations: Callable[[TokenPlan], float]
    images: int
    progress: Progress

    def run(self) -> TokenOutcome:
        """Searches; the plan is empty if no block may lose a token."""
        chosen, seen = self._criteria()
        curves = {block.name: self._curve(block, chosen[block.name]) for block in self.blocks}
        path = self._path(curves)
        measured: list[tuple[TokenPlan, Measurement]] = []
        plan, found = self._farthest(path, measured)
        plan, found = self._further(plan, found, chosen, measured)
        rates = (*seen, *(rate for curve in curves.values() for rate in curve))
        return TokenOutcome(plan=plan, measurement=found, rates=rates, measured=tuple(measured))

    @property
    def floor(self) -> float:
        """The accuracy that a candidate must have on the validation images, in percent."""
        config = self.config
        return accuracy_floor(self.baseline.accuracy, config.max_drop, margin=config.margin, images=self.images)

    def _counts(self, block: Block) -> list[int]:
        """How many tokens are kept at every rate, descending, less than all."""
        steps = self.config.steps
        counts = {max(1, round(block.tokens * step / steps)) for step in range(steps)}
        return sorted((count for count in counts if count < block.tokens), reverse=True)

    def _criteria(self) -> tuple[dict[str, TokenCriterion], list[Rate]]:
        """Chooses every block's criterion."""
        pairs = [(block, criterion) for block in self.blocks for criterion in self.config.criteria]
        rates = self._alone("criteria", [(block, criterion, max(1, block.tokens // 2)) for block, criterion in pairs])
        chosen = {
            block.name: min((rate for rate in rates if rate.block == block.name), key=lambda r: r.divergence).criterion
            for block in self.blocks
        }
        return chosen, rates

    def _curve(self, block: Block, criterion: TokenCriterion) -> list[Rate]:
        return self._alone(f"rates of {block.name}", [(block, criterion, kept) for kept in self._counts(block)])

    def _alone(self, stage: str, wanted: Sequence[tuple[Block, TokenCriterion, int]]) -> list[Rate]:
        plans = [TokenPlan(reductions=(block.reduced(kept, criterion),)) for block, criterion, kept in wanted]
        whole = self.operations(TokenPlan())
        rates = []
        for at, (plan, probed) in enumerate(zip(plans, self.probes.each(plans), strict=True)):
            self.progress(stage, at, len(plans))
            block, criterion, kept = wanted[at]
            assert probed.divergence is not None
            rates.append(
                Rate(
                    block=block.name,
                    criterion=criterion,
                    kept=kept,
                    divergence=max(0.0, probed.divergence),
                    saved=whole - self.operations(plan),
                )
            )
        self.progress(stage, len(plans), len(plans))
        return rates

    def _path(self, curves: dict[str, list[Rate]]) -> list[TokenPlan]:
        """Joins the steps of all blocks, those of the least divergence per operation first."""
        steps = [step for curve in curves.values() for step in _steps(curve)]
        steps.sort(key=lambda step: step[0])
        kept: dict[str, Rate] = {}
        path = []
        for _, rate in steps:
            kept[rate.block] = rate
            path.append(self._plan(kept))
        return path

    def _plan(self, kept: dict[str, Rate]) -> TokenPlan:
        return TokenPlan(
            reductions=tuple(
                block.reduced(kept[block.name].kept, kept[block.name].criterion)
                for block in self.blocks
                if block.name in kept
            )
        )

    def _farthest(
        self, path: Sequence[TokenPlan], measured: list[tuple[TokenPlan, Measurement]]
    ) -> tuple[TokenPlan, Measurement]:
        """Bisects the path for its farthest point within the allowed loss."""
        best: tuple[TokenPlan, Measurement] = (TokenPlan(), self.baseline)
        low, high = 0, len(path)  # path[:low] is within, path[high:] is not, as far as known
        while low < high:
            self.progress("path", len(path) - (high - low), len(path))
            middle = (low + high) // 2
            found = self._measured(path[middle], measured)
            if found.accuracy >= self.floor:
                best, low = (path[middle], found), middle + 1
            else:
                high = middle
        return best

    def _further(
        self,
        plan: TokenPlan,
        found: Measurement,
        chosen: dict[str, TokenCriterion],
        measured: list[tuple[TokenPlan, Measurement]],
    ) -> tuple[TokenPlan, Measurement]:
        """Takes steps of single blocks while accuracy allows them, those that save most first."""
        refused: set[str] = set()
        while True:
            steps = self._next_steps(plan, chosen, refused)
            if not steps:
                return plan, found
            name, candidate = min(steps, key=lambda step: self.operations(step[1]))
            self.progress("single steps", len(refused), len(self.blocks))
            tried = self._measured(candidate, measured)
            if tried.accuracy >= self.floor:
                plan, found = candidate, tried
            else:
                refused.add(name)

    def _next_steps(
        self, plan: TokenPlan, chosen: dict[str, TokenCriterion], refused: set[str]
    ) -> list[tuple[str, TokenPlan]]:
        kept = {reduction.block: reduction for reduction in plan.reductions}
        steps = []
        for block in self.blocks:
            now = kept[block.name].kept if block.name in kept else block.tokens
            lower = [count for count in self._counts(block) if count < now]
            if lower and block.name not in refused:
                changed = {**kept, block.name: block.reduced(lower[0], chosen[block.name])}
                ordered = tuple(changed[each.name] for each in self.blocks if each.name in changed)
                steps.append((block.name, TokenPlan(reductions=ordered)))
        return steps

    def _measured(self, plan: TokenPlan, measured: list[tuple[TokenPlan, Measurement]]) -> Measurement:
        (found,) = self.evaluator.each([plan], floor=self.floor)
        measured.append((plan, found))
        return found


def _steps(curve: Sequence[Rate]) -> list[tuple[float, Rate]]:
    """Divides a block's rates into steps of growing divergence per operation: the lower convex hull of its curve."""
    corners: list[tuple[float, float, Rate | None]] = [(0.0, 0.0, None)]
    for rate in curve:
        while len(corners) > 1 and _slope(corners[-1], rate) <= _between(corners[-2], corners[-1]):
            corners.pop()
        corners.append((rate.saved, rate.divergence, rate))
    return [(_between(before, after), after[2]) for before, after in pairwise(corners) if after[2] is not None]


def _slope(corner: tuple[float, float, Rate | None], rate: Rate) -> float:
    return _between(corner, (rate.saved, rate.divergence, rate))


def _between(before: tuple[float, float, Rate | None], after: tuple[float, float, Rate | None]) -> float:
    return (after[1] - before[1]) / max(after[0] - before[0], 1e-9)
