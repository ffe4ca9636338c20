"""How much of which group: damage that adds up, against cost that multiplies.

Every group has a curve, the damage that the network takes when the group alone is cut to a width. Where damages of
several groups add up, the cheapest network for a given damage is reached by always taking the cut that saves most per
damage, and the cuts taken one after the other make a *path* from the whole network to the smallest. The search then
looks for the farthest point of that path that keeps accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LEAST_DAMAGE = 1e-9
Widths = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A group's damage at some widths.

    Attributes:
        name: the group.
        widths: channels kept, descending from all of them.
        damage: 0 at first, never falling.
    """

    name: str
    widths: tuple[int, ...]
    damage: tuple[float, ...]

    def at(self, width: int) -> float:
        """Returns the damage at a width between the measured ones, in a straight line."""
        for (wide, before), (narrow, after) in zip(self._points(), self._points()[1:], strict=False):
            if width >= narrow:
                return before + (after - before) * (wide - width) / (wide - narrow)
        return self.damage[-1]

    def _points(self) -> list[tuple[int, float]]:
        return list(zip(self.widths, self.damage, strict=True))

    def scaled(self, factor: float) -> Curve:
        """Returns the curve with all damages multiplied."""
        return Curve(name=self.name, widths=self.widths, damage=tuple(damage * factor for damage in self.damage))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One point of the path.

    Attributes:
        widths: channels kept of every group.
        damage: sum over the groups' curves.
        cost: of the network so cut.
    """

    widths: Widths
    damage: float
    cost: float


def rising(damages: Sequence[float]) -> tuple[float, ...]:
    """Returns damages without their noise: each at least as large as those before it, and none negative."""
    result: list[float] = []
    for damage in damages:
        result.append(max(0.0, damage, *result[-1:]))
    return tuple(result)


def path(
    curves: Sequence[Curve], grids: Mapping[str, Sequence[int]], cost: Callable[[Widths], float]
) -> tuple[Step, ...]:
    """Walks from the whole network to the smallest, always by the cut that saves most per damage.

    A cut may skip widths, so that a flat stretch behind a steep one is not overlooked.

    Args:
        curves: one a group.
        grids: the widths that a group may have, descending from all channels.
        cost: of a network of these widths.

    Returns:
        Points of falling cost, the whole network first.
    """
    by_name = {curve.name: curve for curve in curves}
    now: Widths = {name: grid[0] for name, grid in grids.items()}
    steps = [Step(widths=dict(now), damage=0.0, cost=cost(now))]
    while True:
        best: tuple[float, str, int, float] | None = None
        for name, grid in grids.items():
            here = by_name[name].at(now[name])
            for width in grid:
                if width >= now[name]:
                    continue
                saved = steps[-1].cost - cost({**now, name: width})
                worth = saved / (by_name[name].at(width) - here + LEAST_DAMAGE)
                if saved > 0 and (best is None or worth > best[0]):
                    best = (worth, name, width, saved)
        if best is None:
            return tuple(steps)
        _, name, width, saved = best
        added = by_name[name].at(width) - by_name[name].at(now[name])
        now[name] = width
        steps.append(Step(widths=dict(now), damage=steps[-1].damage + added, cost=steps[-1].cost - saved))
