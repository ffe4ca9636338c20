"""The truth that a search for bits is held against: the smallest of all networks whose blocks have bits each.

All combinations of widths over the blocks of the network are measured in ascending order of bytes, so the first one
that keeps accuracy is the smallest there is, and those behind it need no look. The order comes out of a heap: a
combination is followed by those with one block one step wider, each reached on one way alone. Membranes have the first
width meanwhile; on the network that was found the fewest bits that keep accuracy are taken.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod

from benchmarks.peers import UnavailableError
from svitkit.compress.aq4svit import AQ4SViTConfig, BitOutcome, BitSearch, Tried
from svitkit.compress.bits import BitPlan, Part, blocks, set_bits

MOST_MEASURED = 400
"""Combinations that are measured at most, where there are more."""
Size = Callable[[BitPlan], int]


class Combinations:
    """Every combination of widths over the blocks of a network, the smallest first."""

    def __init__(self, layers: Sequence[str], config: AQ4SViTConfig, size: Size) -> None:
        """Finds the widths that every block can have.

        Args:
            layers: those that can be quantized, in the order of execution.
            config: the widths, and how many bits the first and the last layer have at least.
            size: bytes of a network; those of its layers add up.
        """
        self._floors = dict.fromkeys((layers[0], layers[-1]), config.protected_bits)
        self._size, self._parts = size, blocks(layers)
        plain = BitPlan(
            layers=tuple((name, config.widths[0]) for name in layers),
            membranes=next(iter(config.membranes), None),
        )
        self._start = set_bits(plain, layers, config.widths[0], self._floors)
        self._grids = [self._grid(part, config.widths) for part in self._parts]

    def __len__(self) -> int:
        """Returns how many there are."""
        return prod(len(grid) for grid in self._grids)

    def __iter__(self) -> Iterator[BitPlan]:
        """Yields all of them, by bytes."""
        first = (0,) * len(self._grids)
        waiting = [(self._size(self._plan(first)), first)]
        while waiting:
            _, at = heapq.heappop(waiting)
            yield self._plan(at)
            changed = max((place for place, step in enumerate(at) if step), default=0)
            for place in range(changed, len(at)):  # from the last block that is wider: one way to each combination
                if at[place] + 1 < len(self._grids[place]):
                    wider = (*at[:place], at[place] + 1, *at[place + 1 :])
                    heapq.heappush(waiting, (self._size(self._plan(wider)), wider))

    def _grid(self, part: Part, widths: Sequence[int]) -> list[int]:
        """Returns the widths that differ in this block, the smallest first."""
        different = {set_bits(self._start, part.layers, bits, self._floors): bits for bits in widths}
        return sorted(different.values(), key=lambda bits: self._size(self._set(self._start, part, bits)))

    def _plan(self, at: Sequence[int]) -> BitPlan:
        plan = self._start
        for part, grid, step in zip(self._parts, self._grids, at, strict=True):
            plan = self._set(plan, part, grid[step])
        return plan

    def _set(self, plan: BitPlan, part: Part, bits: int) -> BitPlan:
        return set_bits(plan, part.layers, bits, self._floors)


def search_exhaustively(search: BitSearch, layers: Sequence[str], *, most: int = MOST_MEASURED) -> BitOutcome:
    """Finds the smallest network whose blocks have bits each and that keeps accuracy.

    Args:
        search: measures candidates, and says which accuracy they must have.
        layers: those that can be quantized, in the order of execution.
        most: combinations that are measured at most.

    Raises:
        UnavailableError: there are more combinations, and the smallest lose too much.
    """
    tried: list[Tried] = []

    def keeps(level: str, plan: BitPlan) -> bool:
        [measured] = search.evaluator.each([plan], floor=search.floor)
        kept = measured.accuracy >= search.floor
        tried.append(Tried(level=level, plan=plan, drift=None, measured=measured, kept=kept))
        return kept

    plan, found = _smallest(search, Combinations(layers, search.config, search.size), keeps, most)
    if found:
        fewer = (replace(plan, membranes=bits) for bits in reversed(search.config.membranes[1:]))
        plan = next((other for other in fewer if keeps("membrane", other)), plan)
    [measurement] = search.evaluator.each([plan], floor=None)
    small = search.saving(measurement) >= search.config.min_saving
    return BitOutcome(plan=plan, measurement=measurement, satisfied=found and small, tried=tuple(tried))


def _smallest(
    search: BitSearch, combinations: Combinations, keeps: Callable[[str, BitPlan], bool], most: int
) -> tuple[BitPlan, bool]:
    """Returns the first combination that keeps accuracy, or the widest of all; and whether it does."""
    total = len(combinations)
    for done, plan in enumerate(combinations):
        if done == most:
            raise UnavailableError(f"none of the smallest {most} of {total} combinations keeps accuracy.")
        search.progress("exhaustive", done, min(total, most))
        if keeps("exhaustive", plan):
            search.progress("exhaustive", 1, 1)
            return plan, True
    return plan, False
