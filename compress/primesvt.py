"""PrimeSVT: memory-aware structured pruning of a trained Spiking Vision Transformer.

Source: PrimeSVT, arXiv 2606.03428 (2026), of which the abstract is public. It says: sort layers by number of
parameters; choose target layers by their robustness under different pruning rates; go layer by layer, largest to
smallest, under the user's acceptable accuracy and memory saving; within a layer remove the filters of lowest L2 norm;
one shot, fine-tuning optional. In this module:

    size(g)  = bytes of group g's channels in the deployed float32 parameters                     [a]
    acc(g,r) = accuracy with a fraction r of g removed and nothing else, r in ``rates``           [b]
    R(g)     = the rates at which accuracy falls by no more than ``epsilon`` points               [c]
    B(g,r)   = acc(g,r) * memory gain(g,r), both as fractions; B(g) = max of it over R(g)         [d]
    targets  = groups with B(g) >= ``min_score``, at most ``max_targets``, largest size first      [e]
    for g in targets: remove the largest rate that keeps accuracy at A_min = baseline - ``max_drop``;
                      end once the saving reaches ``min_saving``                                  [f]

The abstract leaves open, and this module assumes, each settable in :class:`PrimeSVTConfig`:

- [a] ``order_by``: "number of parameters" counts every tensor slice that goes with a channel (``slices``), batch norm
  folded, or the producing filters alone (``filters``). Groups, not layers, are the unit, because a layer cannot be cut
  without those coupled to it. ``residual_widths``: whether the widths of residual streams are groups too.
- [b] ``rates``: which rates are swept. [c] ``epsilon``: what is robust. [d] the form of the B score, which third
  parties mention as "accuracy x memory gain": ``gain_of``, whether the gain is a share of the network or of the group,
  and ``min_score``. [e] ``max_targets``: a cap on the number of targets, those of the highest scores; none by default.
- [f] ``stop_at_saving``: whether the descent ends at the wanted saving or takes all that accuracy allows.
- ``channel_multiple``: kept counts are rounded to what vector units like.
- ``budgets``: if the plain descent (the first group may spend all of ``max_drop``) misses the saving, further descents
  let every group spend only that share of it; the first that meets both constraints is accepted, else the one that
  saves most. The paper is said to accept one of several candidates, by the constraints.
- all accuracies are those of the validation split; batch norm statistics are estimated again for every candidate or not
  at all, as the caller's evaluator does (``bn_recalibration`` of :func:`svitkit.compress.pipeline.compress_model`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from svitkit.compress.executor import Evaluates
from svitkit.compress.goal import Goal
from svitkit.compress.groups import FoundGroup
from svitkit.compress.importance import keep_strongest
from svitkit.compress.journal import Measurement
from svitkit.compress.layer_costs import Spent
from svitkit.compress.settings import in_order
from svitkit.manifest import STRICT
from svitkit.models.plan import PrunedGroup, PrunePlan

Progress = Callable[[str, int, int], None]
Rate = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrimeSVTConfig:
    """The constraints, and what the paper leaves open.

    Attributes:
        max_drop: accuracy that may be lost, in points of percent.
        min_saving: fraction of the original parameter bytes that must go.
        rates: pruning ratios that are tried, ascending.
        epsilon: a group is robust at a rate if pruning it alone loses at most that many points; None for ``max_drop``.
        min_score: B score from which a robust group is a target.
        gain_of: what the memory gain in the B score is a share of: the whole ``network``, or the ``group`` alone.
        max_targets: at most that many targets, those of the highest B scores; None for no cap.
        order_by: what makes a group large: all ``slices`` of tensors that go with its channels, or its ``filters``.
        residual_widths: whether the widths of residual streams can be pruned; they couple every layer of their stage.
        channel_multiple: kept channels of a group divide by it.
        budgets: shares of ``max_drop`` that one group may spend, one descent each; 1 and more means all.
        stop_at_saving: end a descent once ``min_saving`` is reached.
    """

    max_drop: float = Field(default=3.0, ge=0)
    min_saving: float = Field(default=0.25, ge=0, lt=1)
    rates: tuple[Rate, ...] = Field(default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), min_length=1)
    epsilon: float | None = Field(default=None, ge=0)
    min_score: float = Field(default=0.0, ge=0)
    gain_of: Literal["network", "group"] = "network"
    max_targets: int | None = Field(default=None, ge=1)
    order_by: Literal["slices", "filters"] = "slices"
    residual_widths: bool = False
    channel_multiple: int = Field(default=4, ge=1)
    budgets: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0, 0.5, 0.25), min_length=1)
    stop_at_saving: bool = True

    @field_validator("rates")
    @classmethod
    def _check_order(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        return in_order(rates, "rates")

    @property
    def tolerance(self) -> float:
        """Points that a group may lose alone and still count as robust."""
        return self.max_drop if self.epsilon is None else self.epsilon


@plain_dataclass(frozen=True, kw_only=True)
class Trial:
    """One group pruned alone at one rate: the choice of channels and what it costs.

    Attributes:
        ratio: fraction of channels asked to be removed.
        pruned: the choice.
        accuracy: percent, on validation; an estimate where the evaluation stopped early.
        saving: fraction of the network's parameter bytes.
        images: how many were looked at, if the evaluation stopped early since the rate is surely not robust.
        score: accuracy as a fraction times the memory gain, B(g,r).
        robust: whether accuracy fell by no more than ``epsilon``.
        divergence: from the whole network's answers, where it was measured.
    """

    ratio: float
    pruned: PrunedGroup
    accuracy: float
    saving: float
    images: int | None
    score: float
    robust: bool
    divergence: float | None = None


@plain_dataclass(frozen=True, kw_only=True)
class Swept:
    """One group's robustness.

    Attributes:
        found: the group.
        trials: one a rate, except rates that rounding makes ineffective.
        score: B score; None if no rate is robust.
        target: whether a descent may prune it.
    """

    found: FoundGroup
    trials: tuple[Trial, ...]
    score: float | None
    target: bool = False


@plain_dataclass(frozen=True, kw_only=True)
class Candidate:
    """What one descent came to.

    Attributes:
        budget: the share of ``max_drop`` that one group might spend.
        plan: the channels to keep.
        measurement: accuracy on validation and size of the network pruned so.
        satisfied: whether both constraints hold.
        reasons: for groups that it looked at, what it decided and why, by name.
    """

    budget: float
    plan: PrunePlan
    measurement: Measurement
    satisfied: bool
    reasons: dict[str, str]


@plain_dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the search found.

    Attributes:
        plan: the channels to keep.
        measurement: accuracy on validation and size of the network pruned so.
        satisfied: whether both constraints hold.
        swept: every prunable group, largest first.
        reasons: for groups that the accepted descent looked at, what it decided and why, by name.
        candidates: every descent, the accepted one among them.
        objective: what the search made as small as it could, if it was not the bytes alone.
    """

    plan: PrunePlan
    measurement: Measurement
    satisfied: bool
    swept: tuple[Swept, ...]
    reasons: dict[str, str]
    candidates: tuple[Candidate, ...] = ()
    objective: Spent | None = None


@plain_dataclass(frozen=True, kw_only=True)
class Search(Goal):
    """One run of the method.

    Attributes:
        config: constraints and assumptions.
        evaluator: measures plans.
        progress: told the stage, how much of it is done, and how much there is.
    """

    config: PrimeSVTConfig
    evaluator: Evaluates[PrunePlan]
    progress: Progress

    def run(self, groups: Sequence[tuple[FoundGroup, torch.Tensor]]) -> Outcome:
        """Sweeps, chooses targets, and prunes them from the largest to the smallest.

        Args:
            groups: the prunable groups, with the norms of their channels.
        """
        ordered = sorted(groups, key=lambda entry: self._size(entry[0]), reverse=True)
        swept = self._choose_targets(tuple(self._sweep(ordered)))
        candidates: list[Candidate] = []
        for budget in self.config.budgets:
            candidates.append(self._descend([group for group in swept if group.target], budget))
            if candidates[-1].satisfied:
                break
        best = candidates[-1]
        if not best.satisfied:
            best = min(candidates, key=lambda candidate: candidate.measurement.parameter_bytes)
        return Outcome(
            plan=best.plan,
            measurement=best.measurement,
            satisfied=best.satisfied,
            swept=swept,
            reasons=best.reasons,
            candidates=tuple(candidates),
        )

    def _size(self, found: FoundGroup) -> int:
        return found.size_bytes if self.config.order_by == "slices" else found.filter_bytes

    def _choose_targets(self, swept: tuple[Swept, ...]) -> tuple[Swept, ...]:
        robust = [group for group in swept if group.score is not None and group.score >= self.config.min_score]
        best = sorted(robust, key=lambda group: -(group.score or 0.0))[: self.config.max_targets]
        names = {group.found.group.name for group in best}
        return tuple(replace(group, target=group.found.group.name in names) for group in swept)

    def _sweep(self, groups: Sequence[tuple[FoundGroup, torch.Tensor]]) -> Iterator[Swept]:
        """Prunes every group alone at every rate; all candidates are asked for at once."""
        rates = self.config.rates
        choices = [
            [keep_strongest(found.group, norms, ratio, multiple=self.config.channel_multiple) for ratio in rates]
            for found, norms in groups
        ]
        plans = [PrunePlan(groups=(pruned,)) for row in choices for pruned in row if pruned is not None]
        with closing(self.evaluator.each(plans, floor=self._robust_from())) as measured:
            for at, ((found, _), row) in enumerate(zip(groups, choices, strict=True)):
                trials = []
                for index, (ratio, pruned) in enumerate(zip(rates, row, strict=True)):
                    self.progress("sweep", at * len(rates) + index, len(groups) * len(rates))
                    if pruned is not None:
                        trials.append(self._trial(found, ratio, pruned, next(measured)))
                score = max((trial.score for trial in trials if trial.robust), default=None)
                yield Swept(found=found, trials=tuple(trials), score=score)
        self.progress("sweep", len(groups) * len(rates), len(groups) * len(rates))

    def _robust_from(self) -> float:
        return self.baseline.accuracy - self.config.tolerance

    def _trial(self, found: FoundGroup, ratio: float, pruned: PrunedGroup, measured: Measurement) -> Trial:
        saved = self.baseline.parameter_bytes - measured.parameter_bytes
        whole = self.baseline.parameter_bytes if self.config.gain_of == "network" else found.size_bytes
        accuracy = measured.estimate
        return Trial(
            ratio=ratio,
            pruned=pruned,
            accuracy=accuracy,
            saving=saved / self.baseline.parameter_bytes,
            images=measured.stopped.images if measured.stopped else None,
            score=accuracy / 100 * saved / whole,
            robust=measured.accuracy >= self._robust_from(),
        )

    def _descend(self, targets: Sequence[Swept], budget: float) -> Candidate:
        """Prunes the targets one after the other, each as far as accuracy allows."""
        plan, now = PrunePlan(), self.baseline
        reasons: dict[str, str] = {}
        for at, target in enumerate(targets):
            if self.config.stop_at_saving and self.saving(now) >= self.config.min_saving:
                break
            self.progress(f"prune (budget {budget:g})", at, len(targets))
            floor = self._floor(now, budget)
            plan, now, reasons[target.found.group.name] = self._prune(target, plan, now, floor)
        self.progress(f"prune (budget {budget:g})", len(targets), len(targets))
        satisfied = self.saving(now) >= self.config.min_saving
        return Candidate(budget=budget, plan=plan, measurement=now, satisfied=satisfied, reasons=reasons)

    def _floor(self, now: Measurement, budget: float) -> float:
        """Returns the accuracy that the next step must keep, in percent."""
        least = self.baseline.accuracy - self.config.max_drop
        return least if budget >= 1 else max(least, now.accuracy - budget * self.config.max_drop)

    def _prune(
        self, target: Swept, plan: PrunePlan, now: Measurement, floor: float
    ) -> tuple[PrunePlan, Measurement, str]:
        """Adds the largest rate of a group that keeps accuracy at ``floor``."""
        trials = target.trials[::-1]
        plans = [PrunePlan(groups=(*plan.groups, trial.pruned)) for trial in trials]
        with closing(self.evaluator.each(plans, floor=floor)) as measurements:
            for trial, extended, measured in zip(trials, plans, measurements, strict=True):
                if measured.accuracy >= floor:
                    return (
                        extended,
                        measured,
                        f"rate {trial.ratio:g} leaves {measured.accuracy:.2f} %, at least {floor:.2f} % wanted; "
                        f"saving so far {100 * self.saving(measured):.1f} %",
                    )
        return plan, now, f"every rate falls below {floor:.2f} % after the larger groups were pruned"
