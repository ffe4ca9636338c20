"""What a network costs after a plan, so that a plan's saving is known without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Protocol

import torch
from pydantic.dataclasses import dataclass
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from svitkit.manifest import STRICT
from svitkit.models.plan import PrunePlan
from svitkit.models.run import forward_logits
from svitkit.models.size import trace_calls


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spent:
    """What the objective says of the network before and after; a prediction, where it is a time.

    Attributes:
        unit: what is counted, in words.
        before, after: how much of it.
    """

    unit: str
    before: float
    after: float


class PlanCosts(Protocol):
    """What the networks of a search cost, each known by its plan.

    Attributes:
        unit: what is counted, in words for a report: ``bytes``, ``cycles on host``.
        total: the cost of the network without a plan.
    """

    unit: str
    total: float

    def of(self, plan: PrunePlan) -> float:
        """Returns the cost of the network after a plan."""
        ...


@plain_dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer's cost.

    Attributes:
        weights: the part that shrinks with inputs and outputs (bytes of weights, multiply-accumulates, time).
        outputs: the part that shrinks with outputs alone (biases, neurons, attention).
    """

    weights: float
    outputs: float = 0.0


class LayerCosts:
    """The cost of plans, from the shares of every layer that they leave."""

    def __init__(self, model: nn.Module, costs: Mapping[str, LayerCost], *, unit: str) -> None:
        """Keeps sizes and costs.

        Args:
            model: the network before the search.
            unit: of the costs.
            costs: by layer; layers that are not named cost nothing, or the same whatever is pruned.
        """
        self.unit = unit
        self._costs = {f"{name}.weight": cost for name, cost in costs.items()}
        self._shapes = {
            f"{name}.weight": tuple(model.get_submodule(name).get_parameter("weight").shape) for name in costs
        }
        self.total = sum(cost.weights + cost.outputs for cost in costs.values())

    def of(self, plan: PrunePlan) -> float:
        """Returns what the network costs after a plan, in the unit of the layers' costs."""
        left = {name: [1.0] * len(shape) for name, shape in self._shapes.items()}
        for pruned in plan.groups:
            gone = pruned.group.channels - len(pruned.kept)
            for member in pruned.group.members:
                if member.tensor in left:
                    shape = self._shapes[member.tensor]
                    left[member.tensor][member.dim] -= gone * member.inner * len(member.offsets) / shape[member.dim]
        total = 0.0
        for name, cost in self._costs.items():
            outputs, *others = left[name]
            inputs = others[0] if others else 1.0
            total += cost.weights * outputs * inputs + cost.outputs * outputs
        return total


def memory_costs(model: nn.Module, counts: Mapping[str, int]) -> dict[str, LayerCost]:
    """Returns the bytes of every layer that has weights, float32, with the bias that a folded batch norm leaves.

    Args:
        model: the network.
        counts: deployed parameters by layer (``svitkit.models.size.layer_parameters``).
    """
    costs = {}
    for name, count in counts.items():
        weight = getattr(model.get_submodule(name), "weight", None)
        if weight is not None:
            costs[name] = LayerCost(weights=4 * weight.numel(), outputs=4 * (count - weight.numel()))
    return costs


def macs_costs(model: nn.Module, x: torch.Tensor) -> dict[str, LayerCost]:
    """Returns the dense multiply-accumulates of every layer with weights, over all time steps.

    Products of activations (attention) are counted with the first layer of the module that they run in, as a part that
    shrinks with its outputs.

    Args:
        model: the network, in evaluation mode.
        x: (T, 1, C, H, W) float32, any input of the right shape.
    """
    products: dict[str, float] = {}
    for name, module, _, got in trace_calls(model, x):
        weight = getattr(module, "weight", None)
        if weight is not None and weight.ndim >= 2:
            products[name] = products.get(name, 0.0) + got.numel() * weight[0].numel()
    counter = FlopCounterMode(mods=model, display=False)
    with torch.no_grad(), counter:
        forward_logits(model, x)
    attention = _own_products(counter, type(model).__name__)
    beside: dict[str, float] = {}
    for inside, count in attention.items():
        first = next((name for name in products if name.startswith(inside)), next(iter(products)))
        beside[first] = beside.get(first, 0.0) + count
    return {name: LayerCost(weights=count, outputs=beside.get(name, 0.0)) for name, count in products.items()}


def _own_products(counter: FlopCounterMode, root: str) -> dict[str, float]:
    """Returns the multiply-accumulates of batched matrix products by the innermost module that they run in."""
    counts = {
        name: sum(count for operator, count in found.items() if "bmm" in str(operator)) / 2
        for name, found in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
    own = dict(counts)
    for name, count in counts.items():
        around = [other for other in counts if name.startswith(f"{other}.")]
        if around:
            own[max(around, key=len)] -= count
    return {name.partition(".")[2]: count for name, count in own.items() if count > 0}
