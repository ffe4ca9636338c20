"""Svitkit's own pruning: no training, one budget of accuracy for the whole network.

1. *Order.* In every group (MLP widths, stem widths, attention widths, residual streams) channels are ordered by what
   their readers lose without them (:mod:`svitkit.compress.eliminate`).
2. *Curves.* Every group is cut alone to a few widths, its readers mended in closed form, and the divergence of the
   class probabilities from the original's measured on part of the validation images (mean Kullback-Leibler divergence:
   finer than accuracy, which does not move before a label flips).
3. *Path.* All groups share one budget: cuts are taken in the order of cost saved per divergence
   (:mod:`svitkit.compress.allocate`); the cost is memory, multiply-accumulates or predicted latency.
4. *Search.* The farthest point of the path that keeps accuracy at ``baseline - max_drop`` is found by bisection; each
   candidate is mended layer by layer (:mod:`svitkit.compress.reconstruct`) and measured on the validation images.
5. *Again.* Damages do not quite add up. At the point found each group is restored alone, which tells what it costs
   among the others; the curves are scaled to that, and the path is walked again (``rounds`` times).
6. *Fill.* Single groups go one step farther while accuracy allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from math import lcm
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from svitkit.compress.allocate import Curve, Step, Widths, path, rising
from svitkit.compress.eliminate import Elimination
from svitkit.compress.executor import Evaluates
from svitkit.compress.goal import Goal
from svitkit.compress.groups import FoundGroup
from svitkit.compress.journal import Measurement
from svitkit.compress.layer_costs import PlanCosts, Spent
from svitkit.compress.margin import accuracy_floor
from svitkit.compress.primesvt import Candidate, Outcome, Progress, Swept, Trial
from svitkit.compress.settings import in_order
from svitkit.manifest import STRICT
from svitkit.models.plan import PrunedGroup, PrunePlan

Objective = Literal["memory", "macs", "latency"]
Rate = Annotated[float, Field(gt=0, lt=1)]
FACTORS = (0.25, 4.0)
GRID = 24
LEAST_DIVERGENCE = 1e-6


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BalanceConfig:
    """The constraints and settings of svitkit's own pruning.

    Attributes:
        max_drop: accuracy that may be lost, in points of percent.
        min_saving: fraction of the original parameter bytes that must go.
        objective: what is made as small as accuracy allows.
        rates: pruning ratios at which a group's curve is measured, ascending.
        residual_widths: whether the widths of residual streams are cut too.
        channel_multiple: kept channels of a group divide by it, where its blocks allow.
        calibration_images: training images for elimination and repair.
        probe_images: validation images for divergences.
        margin: standard errors of the measured loss by which a candidate must stay within ``max_drop``: of many
            candidates those are chosen that were lucky on the validation images, the more so the fewer these are. Where
            they are so few that nothing is left of ``max_drop``, no loss on them is allowed.
        rounds: how often the curves are measured again among the other cuts.
        fill_tries: single cuts that are tried at the end.
    """

    max_drop: float = Field(default=3.0, ge=0)
    min_saving: float = Field(default=0.25, ge=0, lt=1)
    objective: Objective = "memory"
    rates: tuple[Rate, ...] = Field(default=(0.15, 0.3, 0.45, 0.6, 0.75, 0.88), min_length=1)
    residual_widths: bool = True
    channel_multiple: int = Field(default=4, ge=1)
    calibration_images: int = Field(default=256, ge=1)
    probe_images: int = Field(default=512, ge=1)
    margin: float = Field(default=2.0, ge=0)
    rounds: int = Field(default=1, ge=0)
    fill_tries: int = Field(default=6, ge=0)

    @field_validator("rates")
    @classmethod
    def _check_order(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        return in_order(rates, "rates")

    @property
    def tolerance(self) -> float:
        """Points below which a curve counts as robust in reports; nothing is decided by it."""
        return self.max_drop


@plain_dataclass(frozen=True, kw_only=True)
class BalanceSearch(Goal):
    """One run of the method.

    Attributes:
        config: constraints and settings.
        evaluator: measures plans, mended layer by layer, on the validation split.
        probes: measures plans of one group, its readers mended alone, on the probe images; with divergence.
        contexts: measures plans, mended layer by layer, on the probe images; with divergence.
        costs: the objective.
        images: how many validation images there are.
        progress: told the stage, how much of it is done, and how much there is.
    """

    config: BalanceConfig
    evaluator: Evaluates[PrunePlan]
    probes: Evaluates[PrunePlan]
    contexts: Evaluates[PrunePlan]
    costs: PlanCosts
    images: int
    progress: Progress

    def run(self, groups: Sequence[tuple[FoundGroup, Elimination]]) -> Outcome:
        """Measures curves, walks the path, and returns the cheapest network that keeps accuracy.

        Args:
            groups: the prunable groups, with the order of their channels.
        """
        ordered = sorted(groups, key=lambda entry: entry[0].size_bytes, reverse=True)
        eliminations = {found.group.name: order for found, order in ordered}
        swept = self._sweep(ordered)
        grids = {name: _grid(order, self.config) for name, order in eliminations.items()}
        walk = _Walk(search=self, eliminations=eliminations, grids=grids)
        curves = [curve for _, curve in swept]
        best = walk.farthest(curves)
        for _ in range(self.config.rounds):
            curves = walk.again(curves, best)
            other = walk.farthest(curves)
            best = other if other.cost < best.cost else best
        best = walk.fill(best)
        return self._outcome(walk, best, tuple(group for group, _ in swept))

    @property
    def floor(self) -> float:
        """The accuracy that a candidate must have on the validation images, in percent."""
        config = self.config
        return accuracy_floor(self.baseline.accuracy, config.max_drop, margin=config.margin, images=self.images)

    def _sweep(self, groups: Sequence[tuple[FoundGroup, Elimination]]) -> list[tuple[Swept, Curve]]:
        """Cuts every group alone to every width; all candidates are asked for at once."""
        choices = [self._choices(order) for _, order in groups]
        plans = [PrunePlan(groups=(pruned,)) for row in choices for _, pruned in row]
        result = []
        with closing(self.probes.each([PrunePlan(), *plans])) as measured:
            whole = next(measured)
            for at, ((found, _), row) in enumerate(zip(groups, choices, strict=True)):
                self.progress("sweep", at, len(groups))
                trials = [self._trial(ratio, pruned, next(measured), whole) for ratio, pruned in row]
                result.append(_curve(found, trials))
        self.progress("sweep", len(groups), len(groups))
        return result

    def _choices(self, order: Elimination) -> list[tuple[float, PrunedGroup]]:
        """Returns the rates that leave different widths, and what they keep."""
        choices: list[tuple[float, PrunedGroup]] = []
        for ratio in self.config.rates:
            pruned = order.keep(_rounded(order.group.channels * (1 - ratio), order, self.config))
            if pruned is not None and all(len(pruned.kept) < len(other.kept) for _, other in choices):
                choices.append((ratio, pruned))
        return choices

    def _trial(self, ratio: float, pruned: PrunedGroup, measured: Measurement, whole: Measurement) -> Trial:
        gain = 1 - self.costs.of(PrunePlan(groups=(pruned,))) / self.costs.total
        assert measured.divergence is not None
        return Trial(
            ratio=ratio,
            pruned=pruned,
            accuracy=measured.accuracy,
            saving=1 - measured.parameter_bytes / whole.parameter_bytes,
            images=None,
            score=gain / max(measured.divergence, LEAST_DIVERGENCE),
            robust=measured.accuracy >= whole.accuracy - self.config.max_drop,
            divergence=measured.divergence,
        )

    def _outcome(self, walk: _Walk, best: Step, swept: tuple[Swept, ...]) -> Outcome:
        plan = walk.plan(best.widths)
        measurement = next(self.evaluator.each([plan]))
        satisfied = measurement.accuracy >= self.floor and self.saving(measurement) >= self.config.min_saving
        share = 100 * (1 - best.cost / self.costs.total)
        reasons = {
            name: f"{width} of {walk.grids[name][0]} channels in the cheapest network found of at least "
            f"{self.floor:.2f} %, which saves {share:.1f} % of the {self.costs.unit}"
            for name, width in best.widths.items()
        }
        chosen = Candidate(budget=1.0, plan=plan, measurement=measurement, satisfied=satisfied, reasons=reasons)
        return Outcome(
            plan=plan,
            measurement=measurement,
            satisfied=satisfied,
            swept=swept,
            reasons=reasons,
            candidates=(chosen,),
            objective=Spent(unit=self.costs.unit, before=self.costs.total, after=best.cost),
        )


@plain_dataclass(frozen=True, kw_only=True)
class _Walk:
    """The path through the widths of all groups, and candidates on it."""

    search: BalanceSearch
    eliminations: Mapping[str, Elimination]
    grids: Mapping[str, Sequence[int]]

    def plan(self, widths: Widths) -> PrunePlan:
        """Returns the plan that keeps these widths."""
        kept = (self.eliminations[name].keep(width) for name, width in widths.items())
        return PrunePlan(groups=tuple(pruned for pruned in kept if pruned is not None))

    def cost(self, widths: Widths) -> float:
        """Returns the objective of the network of these widths."""
        return self.search.costs.of(self.plan(widths))

    def keeps(self, widths: Widths) -> bool:
        """Whether the network of these widths is accurate enough."""
        plan = self.plan(widths)
        floor = self.search.floor
        return not plan.groups or next(self.search.evaluator.each([plan], floor=floor)).accuracy >= floor

    def farthest(self, curves: Sequence[Curve]) -> Step:
        """Returns the last point of the path that keeps accuracy, by bisection."""
        steps = path(curves, self.grids, self.cost)
        good, bad = 0, len(steps)
        while bad - good > 1:
            self.search.progress("search", len(steps) - (bad - good), len(steps))
            middle = (good + bad) // 2
            if self.keeps(steps[middle].widths):
                good = middle
            else:
                bad = middle
        return steps[good]

    def again(self, curves: Sequence[Curve], step: Step) -> list[Curve]:
        """Scales every curve to what its group costs in the network of a step."""
        cut = [curve for curve in curves if step.widths[curve.name] < curve.widths[0]]
        restored = [self.plan({**step.widths, curve.name: curve.widths[0]}) for curve in cut]
        self.search.progress("context", 0, 1)
        with closing(self.search.contexts.each([self.plan(step.widths), *restored])) as measured:
            together, *others = (measurement.divergence or 0.0 for measurement in measured)
        self.search.progress("context", 1, 1)
        factors: dict[str, float] = {}
        for curve, without in zip(cut, others, strict=True):
            alone = curve.at(step.widths[curve.name])
            if alone > 0:
                factors[curve.name] = min(max((together - without) / alone, FACTORS[0]), FACTORS[1])
        return [curve.scaled(factors.get(curve.name, 1.0)) for curve in curves]

    def fill(self, step: Step) -> Step:
        """Cuts single groups one width farther, the largest gain first, while accuracy allows."""
        refused: set[str] = set()
        for at in range(self.search.config.fill_tries):
            self.search.progress("fill", at, self.search.config.fill_tries)
            choices = []
            for name, grid in self.grids.items():
                narrower = next((width for width in grid if width < step.widths[name]), None)
                if narrower is not None and name not in refused:
                    widths = {**step.widths, name: narrower}
                    choices.append((self.cost(widths), name, widths))
            if not choices:
                break
            cost, name, widths = min(choices, key=lambda choice: choice[0])
            if self.keeps(widths):
                step = replace(step, widths=widths, cost=cost)
            else:
                refused.add(name)
        return step


def _curve(found: FoundGroup, trials: Sequence[Trial]) -> tuple[Swept, Curve]:
    best = max((trial.score for trial in trials), default=None)
    damage = [trial.divergence or 0.0 for trial in trials]
    curve = Curve(
        name=found.group.name,
        widths=(found.group.channels, *(len(trial.pruned.kept) for trial in trials)),
        damage=rising([0.0, *damage]),
    )
    return Swept(found=found, trials=tuple(trials), score=best, target=bool(trials)), curve


def _rounded(width: float, order: Elimination, config: BalanceConfig) -> int:
    """Returns the nearest width that divides by blocks and, where that leaves a choice, by ``channel_multiple``."""
    group = order.group
    step = lcm(group.blocks, config.channel_multiple)
    if step >= group.channels:
        step = group.blocks
    return max(step, round(width / step) * step)


def _grid(order: Elimination, config: BalanceConfig) -> tuple[int, ...]:
    """Returns the widths that a group may have, descending: at most ``GRID`` besides the whole."""
    channels = order.group.channels
    widths = {_rounded(channels * share / GRID, order, config) for share in range(1, GRID)}
    return (channels, *sorted((width for width in widths if width < channels), reverse=True))
