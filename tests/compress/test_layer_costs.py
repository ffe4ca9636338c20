from __future__ import annotations

import copy

import pytest

from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.layer_costs import LayerCost, LayerCosts, macs_costs, memory_costs
from svitkit.macs import count_macs
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters, parameter_bytes
from tests.compress.networks import FAMILIES, firing_checkpoint


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_the_memory_of_a_plan_is_that_of_the_network_built_from_it(family: str, ratio: float) -> None:
    checkpoint = firing_checkpoint(family)
    x = example_input(checkpoint.spec)
    groups = [found for found in find_groups(checkpoint.model, x, residual_widths=True) if found.prunable]
    choices = [keep_strongest(g.group, filter_norms(checkpoint.model, g), ratio, multiple=2) for g in groups]
    plan = PrunePlan(groups=tuple(choice for choice in choices if choice is not None))
    assert len(plan.groups) > 3
    counts = layer_parameters(checkpoint.model, x)
    costs = LayerCosts(checkpoint.model, memory_costs(checkpoint.model, counts), unit="bytes")
    smaller = copy.deepcopy(checkpoint.model)
    apply_plan(smaller, plan)
    assert costs.of(PrunePlan()) == costs.total == parameter_bytes(checkpoint.model, x)
    assert costs.of(plan) == pytest.approx(parameter_bytes(smaller, x))


@pytest.mark.parametrize("family", FAMILIES)
def test_multiply_accumulates_of_a_plan_are_those_of_the_network_built_from_it(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    x = example_input(checkpoint.spec)
    groups = [found for found in find_groups(checkpoint.model, x, residual_widths=True) if found.prunable]
    choices = [keep_strongest(g.group, filter_norms(checkpoint.model, g), 0.5, multiple=2) for g in groups]
    plan = PrunePlan(groups=tuple(choice for choice in choices if choice is not None))
    costs = LayerCosts(checkpoint.model, macs_costs(checkpoint.model, x), unit="products")
    smaller = copy.deepcopy(checkpoint.model)
    apply_plan(smaller, plan)
    assert costs.total == count_macs(checkpoint.model, x)
    assert costs.of(plan) == pytest.approx(count_macs(smaller, x), rel=0.02)
    assert count_macs(smaller, x) < 0.5 * costs.total


def test_the_part_of_the_outputs_does_not_shrink_with_the_inputs() -> None:
    checkpoint = firing_checkpoint("spikformer")
    x = example_input(checkpoint.spec)
    found = next(g for g in find_groups(checkpoint.model, x) if "fc1" in g.group.name)
    chosen = keep_strongest(found.group, filter_norms(checkpoint.model, found), 0.5, multiple=2)
    assert chosen is not None
    names = [found.group.name, found.consumers[0].tensor.rpartition(".")[0]]
    costs = LayerCosts(checkpoint.model, {name: LayerCost(weights=100, outputs=10) for name in names}, unit="ns")
    assert costs.of(PrunePlan(groups=(chosen,))) == pytest.approx(50 + 5 + 50 + 10)
