"""AQ4SViT: which block gets how many bits, searched under a constraint on accuracy.

Source: Putra et al., "AQ4SViT" (arXiv 2606.15523): quantization after training; candidates from the network as a whole
over its stages to its blocks; a greedy search and a beam search; and a gate that lets only promising candidates have
their accuracy measured on all images, by the drift of membrane potentials on a few. What the paper leaves open is
settled here, and settable:

- the bits (``widths``), rounding (:mod:`svitkit.compress.rounding`), and that the first and the last layer have at
  least ``protected_bits``;
- membrane potentials are quantized too (``membranes``): every candidate has the first of these widths, which is as
  good as float32, and at the end the others are tried on the network that was found;
- the drift (:mod:`svitkit.compress.drift`), on ``gate_images`` of the validation split;
- the gate: on each level the cuts are ordered by bytes saved for drift added, and taken one after the other. Along that
  path drift rises, and so, if the gate is right, accuracy falls: the farthest point that keeps accuracy is looked for
  where a straight line of loss over drift, through what was measured, meets the allowed loss, and where that does not
  help by bisection; all other points are never measured, nor those that would save less than ``least_gain`` more.
  ``audit`` of them are measured nevertheless, to see whether the gate was wrong; one that turns out better is taken;
- without the gate (``gate=false``) the greedy search measures every single cut on all images, takes the one that saves
  most of those that keep accuracy, and begins again;
- the beam search begins with the greedy search's network and the last ``beam_width`` - 1 points of its path, lowers
  single blocks of each, measures the ``beam_width`` children of the least drift for their bytes, and goes on from those
  that keep accuracy until none does; where the greedy search left nothing to lower, it ends at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from svitkit.compress.allocate import Curve, path, rising
from svitkit.compress.bits import WIDTHS, BitPlan, Part, blocks, set_bits, stages
from svitkit.compress.executor import Evaluates
from svitkit.compress.goal import Goal
from svitkit.compress.journal import Measurement
from svitkit.compress.margin import accuracy_floor
from svitkit.compress.settings import in_order
from svitkit.lif_integer import MEMBRANE_BITS, MembraneBits
from svitkit.manifest import STRICT

Progress = Callable[[str, int, int], None]
Bits = Annotated[int, Field(ge=2, le=8)]
HALVING = 4
"""Of so many looks along a path the last is in the middle of what is left."""
CAUTION = 0.9
"""How far a look goes towards the point where the allowed loss is expected."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AQ4SViTConfig:
    """The constraints and settings of the search.

    Attributes:
        max_drop: accuracy that may be lost, in points of percent.
        min_saving: fraction of the original parameter bytes that must go.
        beam_width: networks that the beam search follows; 0 for the greedy search.
        widths: bits of a weight, descending.
        membranes: bits of a membrane potential, descending; with any of them neurons compute in integers. Empty for
            float32.
        protected_bits: bits that the first and the last layer have at least.
        gate: whether drift decides what is measured.
        gate_images: validation images for the drift.
        calibration_images: training images for the rounding.
        least_gain: share of the original bytes for which it is worth to measure one more candidate behind the gate.
        audit: candidates that the gate turned away and that are measured nevertheless.
        margin: standard errors of the measured loss by which a candidate must stay within ``max_drop``.
    """

    max_drop: float = Field(default=1.5, ge=0)
    min_saving: float = Field(default=0.0, ge=0, lt=1)
    beam_width: int = Field(default=0, ge=0)
    widths: tuple[Bits, ...] = Field(default=WIDTHS, min_length=1)
    membranes: tuple[MembraneBits, ...] = MEMBRANE_BITS
    protected_bits: Bits = 8
    gate: bool = True
    gate_images: int = Field(default=64, ge=1)
    calibration_images: int = Field(default=256, ge=1)
    least_gain: float = Field(default=0.001, ge=0, lt=1)
    audit: int = Field(default=3, ge=0)
    margin: float = Field(default=1.0, ge=0)

    @field_validator("widths", "membranes")
    @classmethod
    def _check_order(cls, widths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        return in_order(widths, info.field_name or "bits", falling=True)


@plain_dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate that was looked at.

    Attributes:
        level: ``network``, ``stage``, ``block``, ``beam``, ``audit`` or ``membrane``: what it was looked at for.
        plan: its bits.
        drift: of its membrane potentials, if the gate saw it.
        measured: its accuracy and bytes, if that was measured.
        kept: whether it keeps accuracy; None if it was not measured.
    """

    level: str
    plan: BitPlan
    drift: float | None
    measured: Measurement | None
    kept: bool | None


@plain_dataclass(frozen=True, kw_only=True)
class BitOutcome:
    """What the search found.

    Attributes:
        plan: the bits.
        measurement: accuracy on validation, and bytes.
        satisfied: whether both constraints hold.
        tried: every candidate, in the order in which it was looked at.
    """

    plan: BitPlan
    measurement: Measurement
    satisfied: bool
    tried: tuple[Tried, ...]


@plain_dataclass(frozen=True, kw_only=True)
class BitSearch(Goal):
    """One run.

    Attributes:
        config: constraints and settings.
        evaluator: measures accuracy on the validation split.
        gauge: measures drift on a few images.
        size: bytes of the deployed parameters.
        images: how many validation images there are.
        progress: told the stage, how much of it is done, and how much there is.
    """

    config: AQ4SViTConfig
    evaluator: Evaluates[BitPlan]
    gauge: Evaluates[BitPlan]
    size: Callable[[BitPlan], int]
    images: int
    progress: Progress
    _tried: list[Tried] = field(default_factory=list)
    _floors: dict[str, int] = field(default_factory=dict)

    def run(self, layers: Sequence[str]) -> BitOutcome:
        """Searches.

        Args:
            layers: those that can be quantized, in the order of execution.
        """
        self._floors.update(dict.fromkeys((layers[0], layers[-1]), self.config.protected_bits))
        start = BitPlan(
            layers=tuple((name, self.config.widths[0]) for name in layers),
            membranes=next(iter(self.config.membranes), None),
        )
        uniform = [set_bits(start, layers, width, self._floors) for width in self.config.widths]
        noise = [4.0**-width for width in self.config.widths]  # its power: a bit less is four times as much
        best, reached = self._farthest("network", uniform, noise), [uniform[0]]
        if best is not None:
            for level, parts in (("stage", stages(layers)), ("block", blocks(layers))):
                best, reached = self._level(level, best, parts, reached)
            if self.config.beam_width:
                best = self._beam(best, reached, blocks(layers))
            best = self._audited(best)
            others = [replace(best, membranes=bits) for bits in self.config.membranes[1:]]
            best = self._farthest("membrane", others, [2.0**-bits for bits in self.config.membranes[1:]]) or best
        plan = best or uniform[0]
        measurement = self._measure([plan], floor=None)[0]
        small = self.saving(measurement) >= self.config.min_saving
        return BitOutcome(
            plan=plan,
            measurement=measurement,
            satisfied=measurement.accuracy >= self.floor and small,
            tried=tuple(self._tried),
        )

    @property
    def floor(self) -> float:
        """The accuracy that a candidate must have on the validation images, in percent."""
        config = self.config
        return accuracy_floor(self.baseline.accuracy, config.max_drop, margin=config.margin, images=self.images)

    def _level(
        self, level: str, plan: BitPlan, parts: Sequence[Part], reached: list[BitPlan]
    ) -> tuple[BitPlan, list[BitPlan]]:
        """Lowers parts of the network; returns the result, and the points of the path up to it."""
        if not self.config.gate:
            return self._one_by_one(level, plan, parts), reached
        walked = self._path(level, plan, parts)
        if not walked:
            return plan, reached
        steps = [step for step, _ in walked]
        found = self._farthest(level, steps, [harm for _, harm in walked], plan)
        if found is None:
            return plan, [*reached, plan]
        return found, [plan, *steps[: steps.index(found) + 1]]

    def _one_by_one(self, level: str, plan: BitPlan, parts: Sequence[Part]) -> BitPlan:
        while True:
            children = self._children(plan, parts)
            kept = [child for child in children if self._keeps(level, child)]
            if not kept:
                return plan
            plan = min(kept, key=self.size)

    def _path(self, level: str, plan: BitPlan, parts: Sequence[Part]) -> list[tuple[BitPlan, float]]:
        """Orders the cuts of all parts by bytes for drift.

        Returns:
            The plans that result one after the other, and how much drift the cuts of each have added alone.
        """
        now = plan.bits()
        grids = {part.name: self._grid(part, now) for part in parts}
        members = {part.name: part.layers for part in parts}
        open_parts = [name for name, grid in grids.items() if len(grid) > 1]
        singles = {
            (name, bits): set_bits(plan, members[name], bits, self._floors)
            for name in open_parts
            for bits in grids[name][1:]
        }
        base, *found = self._drifts(level, [plan, *singles.values()])
        drifts = dict(zip(singles, found, strict=True))
        curves = [
            Curve(
                name=name,
                widths=grids[name],
                damage=rising([0.0, *(drifts[name, bits] - base for bits in grids[name][1:])]),
            )
            for name in open_parts
        ]

        def result(widths: Mapping[str, int]) -> BitPlan:
            changed = plan
            for name, bits in widths.items():
                if bits < grids[name][0]:
                    changed = set_bits(changed, members[name], bits, self._floors)
            return changed

        walked = path(curves, {name: grids[name] for name in open_parts}, lambda widths: self.size(result(widths)))
        return [(result(step.widths), step.damage) for step in walked[1:]]

    def _grid(self, part: Part, now: Mapping[str, int]) -> tuple[int, ...]:
        """Returns the bits that a part may have, from those of its widest layer that is not protected."""
        free = [now[name] for name in part.layers if now[name] > self._floors.get(name, 0)]
        top = max(free, default=0)
        return (top, *(width for width in self.config.widths if width < top)) if free else (top,)

    def _children(self, plan: BitPlan, parts: Sequence[Part]) -> list[BitPlan]:
        """Returns the plans with one part one step lower."""
        grids = [(part, self._grid(part, plan.bits())) for part in parts]
        return [set_bits(plan, part.layers, grid[1], self._floors) for part, grid in grids if len(grid) > 1]

    def _farthest(
        self, level: str, plans: Sequence[BitPlan], harms: Sequence[float], before: BitPlan | None = None
    ) -> BitPlan | None:
        """Returns the last plan that keeps accuracy, as far as looking for it pays; the first look is at the last plan.

        Args:
            level: what is looked for.
            plans: of falling size, and most likely of falling accuracy.
            harms: how far each is expected to be from the network before.
            before: what was found so far, if that is smaller than the network.
        """
        losses = {-1: 0.0 if before is None else self._loss(before)}
        good, bad, at = -1, len(plans), len(plans) - 1
        while bad - good > 1 and (len(losses) == 1 or self._pays(plans, good, bad, before)):
            self.progress(level, len(plans) - (bad - good) + 1, len(plans))
            good, bad = (at, bad) if self._keeps(level, plans[at]) else (good, at)
            losses[at] = self._loss(plans[at])
            halve = not self.config.gate or len(losses) % HALVING == 0 or bad not in losses
            at = (good + bad) // 2 if halve else self._crossing(harms, losses, good, bad)
        self.progress(level, len(plans), len(plans))
        return plans[good] if good >= 0 else None

    def _pays(self, plans: Sequence[BitPlan], good: int, bad: int, before: BitPlan | None) -> bool:
        """Whether the smallest plan that may still keep accuracy is worth a look."""
        known = plans[good] if good >= 0 else before
        if known is None or not self.config.gate:
            return True
        return self.size(known) - self.size(plans[bad - 1]) >= self.config.least_gain * self.original_bytes

    def _crossing(self, harms: Sequence[float], losses: Mapping[int, float], good: int, bad: int) -> int:
        """Where a straight line of loss over harm, from the last good plan to the first bad one, meets the limit."""
        start = harms[good] if good >= 0 else 0.0
        rise = losses[bad] - losses[good]
        allowed = self.baseline.accuracy - self.floor - losses[good]
        if rise <= 0 or allowed <= 0:
            return (good + bad) // 2
        wanted = start + CAUTION * allowed / rise * (harms[bad] - start)
        return max((at for at in range(good + 1, bad) if harms[at] <= wanted), default=good + 1)

    def _loss(self, plan: BitPlan) -> float:
        """Returns the points that a measured plan has lost, an estimate where its evaluation stopped early."""
        measured = next(tried.measured for tried in self._tried if tried.plan == plan and tried.measured is not None)
        return self.baseline.accuracy - measured.estimate

    def _beam(self, best: BitPlan, reached: Sequence[BitPlan], parts: Sequence[Part]) -> BitPlan:
        if not self._children(best, parts):
            return best
        width = self.config.beam_width
        front = list(dict.fromkeys([best, *reversed(reached)]))[:width]
        seen = set(front)
        depth = 0
        while front:
            self.progress("beam", depth, depth + 1)
            born = [child for plan in front for child in self._children(plan, parts)]
            children = [child for child in dict.fromkeys(born) if child not in seen]
            seen.update(children)
            drifts = self._drifts("beam", children)
            ranked = sorted(zip(children, drifts, strict=True), key=lambda pair: pair[1] * self.size(pair[0]))
            front = [child for child, _ in ranked[:width] if self._keeps("beam", child)]
            best = min([best, *front], key=self.size)
            depth += 1
        return best

    def _audited(self, best: BitPlan) -> BitPlan:
        """Measures some candidates that the gate turned away; returns the smallest network that keeps accuracy."""
        measured = {tried.plan for tried in self._tried if tried.measured is not None}
        turned = [tried.plan for tried in self._tried if tried.plan not in measured]
        away = [plan for plan in dict.fromkeys(turned) if self.size(plan) < self.size(best)]
        step = max(1, len(away) // self.config.audit) if self.config.audit else 1
        for plan in away[::step][: self.config.audit]:
            if self._keeps("audit", plan):
                best = min(best, plan, key=self.size)
        return best

    def _keeps(self, level: str, plan: BitPlan) -> bool:
        drift = self._drifts(level, [plan])[0] if self.config.gate else None
        measured = self._measure([plan], floor=self.floor)[0]
        kept = measured.accuracy >= self.floor
        self._tried[:] = [tried for tried in self._tried if tried.plan != plan or tried.measured is not None]
        self._tried.append(Tried(level=level, plan=plan, drift=drift, measured=measured, kept=kept))
        return kept

    def _measure(self, plans: Sequence[BitPlan], *, floor: float | None) -> list[Measurement]:
        return list(self.evaluator.each(plans, floor=floor))

    def _drifts(self, level: str, plans: Sequence[BitPlan]) -> list[float]:
        found = []
        known = {tried.plan for tried in self._tried}
        for at, (plan, gauged) in enumerate(zip(plans, self.gauge.each(plans), strict=True)):
            self.progress(f"{level} drift", at, len(plans))
            assert gauged.drift is not None
            found.append(gauged.drift)
            if plan not in known:
                self._tried.append(Tried(level=level, plan=plan, drift=gauged.drift, measured=None, kept=None))
        return found


def full_evaluations(tried: Iterable[Tried]) -> int:
    """Counts the candidates whose accuracy was measured, but for those of the audit."""
    return len({each.plan for each in tried if each.measured is not None and each.level != "audit"})
