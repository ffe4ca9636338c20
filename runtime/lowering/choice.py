"""Which method computes a layer, and what is written down about it."""

from __future__ import annotations

from dataclasses import dataclass

from svitkit.runtime.cost_model import Method, decide
from svitkit.runtime.density import Density
from svitkit.runtime.kernels.dense import DenseSpec
from svitkit.runtime.kernels.lists import ListSpec
from svitkit.runtime.kernels.row_layout import RowsSpec
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.program import Chosen
from svitkit.runtime.view import Buffer
from svitkit.runtime.work_counts import Counts, dense_counts, list_counts, rows_counts


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A method, why, the work of the layer by it (its lists are not counted in), and its dense multiply-accumulates."""

    method: Method
    reason: str
    counts: Counts
    macs: int


def choose(state: Lowering, x: Buffer, rows: RowsSpec | None, dense: DenseSpec, density: Density | None) -> Choice:
    """Chooses between the methods that can compute a layer.

    Args:
        state: the lowering.
        x: the layer's input.
        rows: how it would be computed by rows, None if it cannot be.
        dense: how it would be computed densely.
        density: how often its inputs have which value, None for real ones.
    """
    memory = state.costs.table.memory
    counts: dict[Method, Counts] = {"dense": dense_counts(dense, memory)}
    cycles: dict[Method, float] = {"dense": state.costs.cycles(counts["dense"])}
    if rows is not None and density is not None:
        counts["rows"] = rows_counts(rows, density, memory)
        cycles["rows"] = state.costs.cycles(counts["rows"])
        if (x, rows.lists) not in state.lists:  # lists that another layer has asked for cost nothing more
            cycles["rows"] += state.costs.cycles(list_counts(rows.lists))
    decision = decide(state.costs, cycles, density, state.prefer)
    return Choice(method=decision.method, reason=decision.reason, counts=counts[decision.method], macs=dense.shape.macs)


def record(state: Lowering, choice: Choice, names: tuple[str, str, str], density: Density | None) -> None:
    """Writes down the last call: a layer by the method chosen; ``names`` are of layer, node with weights and kernel."""
    layer, weights, kernel = names
    _record(state, layer, kernel, choice.reason, choice.counts, density, weights=weights, macs=choice.macs)


def record_lists(state: Lowering, x: Buffer, spec: ListSpec) -> None:
    """Writes down the last call: lists of events."""
    _record(state, x.name, "list", "layers behind it add rows", list_counts(spec), x.density)


def _record(
    state: Lowering,
    layer: str,
    kernel: str,
    reason: str,
    counts: Counts,
    density: Density | None,
    *,
    weights: str | None = None,
    macs: int | None = None,
) -> None:
    state.program.kernels.append(
        Chosen(
            layer=layer,
            kernel=kernel,
            reason=reason,
            call=len(state.program.calls) - 1,
            weights=weights,
            macs=macs,
            input_density=density.active if density else None,
            counts=counts,
            predicted_ns=state.costs.nanoseconds(state.costs.cycles(counts)),
        )
    )
