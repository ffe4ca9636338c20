"""How long a program takes by the cost model: every kernel call, none left out."""

from __future__ import annotations

from dataclasses import dataclass

from svitkit.runtime.call_counts import call_counts
from svitkit.runtime.cost_model import CostModel
from svitkit.runtime.program import Program
from svitkit.runtime.work_counts import Counts, Memory


@dataclass(frozen=True, kw_only=True)
class CallPrediction:
    """The cost of one kernel call.

    Attributes:
        layer: the call's layer; where weights take part, the layer of the trained network that they belong to.
        kernel: the kernel's name without its number.
        cycles: on one core.
    """

    layer: str
    kernel: str
    cycles: float


def predict_calls(program: Program, costs: CostModel) -> tuple[CallPrediction, ...]:
    """Predicts every call of a program on one thread.

    Args:
        program: lowered for a board.
        costs: of that board.

    Returns:
        In the order of execution.

    Raises:
        UnsupportedError: nothing is known about the work of a kernel.
    """
    weights = {chosen.call: chosen.weights for chosen in program.kernels}
    counts = count_calls(program, costs.table.memory)
    return tuple(
        CallPrediction(
            layer=weights.get(number) or call.layer,
            kernel=call.symbol.rpartition("_")[0],
            cycles=costs.cycles(counts[number]),
        )
        for number, call in enumerate(program.calls)
    )


def count_calls(program: Program, memory: Memory) -> list[Counts]:
    """Counts the work of every call of a program, in its order.

    The work of linear layers and lists follows from what their neurons fire and was counted when their kernels were
    chosen; that of the others follows from their shapes.
    """
    chosen = {each.call: each.counts for each in program.kernels if each.counts}
    return [
        chosen[number] if number in chosen else call_counts(program.specs[call.symbol], memory)
        for number, call in enumerate(program.calls)
    ]
