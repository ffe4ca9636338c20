"""What the work of a kernel costs on a CPU, and the choice between methods that follows from it.

    cycles = sum over the kinds of work of count * cycles of one                  (:mod:`svitkit.runtime.work_counts`)

The cycles of one are fitted to measurements, or to the estimates of llvm-mca where a core is not here. They hold for
one thread; more divide the work of both methods alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from svitkit.boards.board import Board
from svitkit.errors import UnsupportedError
from svitkit.runtime.cost_tables import COSTS, CostTable
from svitkit.runtime.density import Density
from svitkit.runtime.host_clock import measure_clock_mhz
from svitkit.runtime.work_counts import Counts

Method = Literal["rows", "dense"]


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs on one board.

    Attributes:
        table: cycles of every kind of work.
        clock_mhz: the core's clock; None where it is not known, as under an emulator.
    """

    table: CostTable
    clock_mhz: float | None

    def cycles(self, counts: Counts) -> float:
        """Cycles of a piece of work."""
        return sum(self.table.cycles[name] * count for name, count in counts.items())

    def nanoseconds(self, cycles: float) -> float | None:
        """The time that cycles take; None where the clock is not known."""
        return None if self.clock_mhz is None else cycles / self.clock_mhz * 1e3

    def text(self, cycles: float) -> str:
        """Cycles for people: as a time where the clock is known."""
        nanoseconds = self.nanoseconds(cycles)
        return f"{cycles / 1e6:.3g} M cycles" if nanoseconds is None else f"{nanoseconds / 1e6:.3g} ms"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A method and the grounds for it."""

    method: Method
    reason: str


def cost_model(board: Board) -> CostModel:
    """Returns what work costs on a board.

    Raises:
        UnsupportedError: nothing is known about the CPU.
    """
    if board.mcpu not in COSTS:
        raise UnsupportedError(
            f"there are no costs for the CPU model '{board.mcpu}', only for {', '.join(COSTS)}. "
            "Fit some with benchmarks/fit_costs.py and add them to runtime/cost_tables.py."
        )
    clock = measure_clock_mhz() if board.transport == "local" and not board.emulated else board.facts.clock_mhz
    return CostModel(table=COSTS[board.mcpu], clock_mhz=clock)


def decide(
    costs: CostModel, cycles: Mapping[Method, float], density: Density | None, prefer: Method | None
) -> Decision:
    """Chooses the method with the least cycles.

    Args:
        costs: of the board.
        cycles: of every method that can compute the layer; ``dense`` always can.
        density: how often the layer's inputs have which value; None for real inputs.
        prefer: a method that is taken wherever it can be.
    """
    if "rows" not in cycles or density is None:
        return Decision(method="dense", reason=f"the input is dense: {costs.text(cycles['dense'])}")
    times = ", ".join(f"{method} {costs.text(cycles[method])}" for method in ("rows", "dense"))
    rate = f"{density.active:.0%} of inputs active{', assumed' if density.assumed else ''}: {times}"
    if prefer is not None:
        return Decision(method=prefer, reason=f"asked for; {rate}")
    return Decision(method="rows" if cycles["rows"] <= cycles["dense"] else "dense", reason=rate)
