"""How often the inputs of a layer have which value: the arithmetic, against every combination counted out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import nan, prod

import numpy as np
import pytest

from svitkit.errors import ConfigError
from svitkit.lif import LIFParams
from svitkit.manifest import LIFLayer
from svitkit.runtime.density import DEFAULT_RATE, Density, added, largest, multiplied, spikes, unknown
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.view import Buffer
from tests.runtime.playing import COSTS_HERE, SMALL, graph, node

A = Density((0.5, 0.2, 0.3))
B = Density((0.1, 0.6, 0.0, 0.3))


def counted(combine: Callable[..., int], *sources: Density) -> list[float]:
    """The shares of a result over every combination of values."""
    shares: dict[int, float] = {}
    for values in product(*(range(len(source.shares)) for source in sources)):
        chance = prod(source.shares[value] for source, value in zip(sources, values, strict=True))
        shares[combine(*values)] = shares.get(combine(*values), 0.0) + chance
    return [shares.get(value, 0.0) for value in range(max(shares) + 1)]


@pytest.mark.parametrize(("function", "combine"), [(added, lambda a, b: a + b), (multiplied, lambda a, b: a * b)])
def test_sums_and_products_are_those_of_every_pair_of_values(
    function: Callable[[Density, Density], Density], combine: Callable[..., int]
) -> None:
    assert function(A, B).shares == pytest.approx(counted(combine, A, B))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_largest_of_a_window_is_that_of_every_combination(count: int) -> None:
    assert largest(A, count).shares == pytest.approx(counted(max if count > 1 else lambda a: a, *[A] * count))


def test_digits_are_counted_one_by_one() -> None:
    assert B.digits == pytest.approx((0.6 + 0.3, 0.3))  # 1 and 3 are odd; of 2 and 3 only 3 occurs
    assert B.active == pytest.approx(0.9)
    assert spikes(0.25).digits == (0.25,)


def test_a_missing_rate_is_assumed_and_what_follows_from_it_says_so() -> None:
    assumed = spikes(None)
    assert (assumed.active, assumed.assumed) == (pytest.approx(DEFAULT_RATE), True)
    assert added(assumed, A).assumed
    assert largest(assumed, 4).assumed
    assert not multiplied(A, B).assumed


@pytest.mark.parametrize("rate", [-0.1, 1.1, nan])
def test_a_rate_that_is_no_share_is_refused_with_the_layer_named(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"layer 'a\.lif' is .*wanted 0 to 1"):
        spikes(rate, "a.lif")


def test_of_an_unknown_byte_every_digit_is_set_in_half_the_elements() -> None:
    assert unknown(255).digits == pytest.approx((0.5,) * 8)


def network(nodes: list[Node], rate: float | None) -> dict[str, Buffer]:
    """The buffers of a network of spikes (1, 1, 2, 4, 4) by name; its one layer of neurons fires at ``rate``."""
    shape = (1, 1, 2, 4, 4)
    known = graph(
        [node("LIF", "input zero", "s", params=LIFParams()), *nodes],
        input_shape=shape,
        output_shape=shape,
        constants={"zero": np.float32(0), "flat": np.array([1, 2, 4, 4])},
    )
    layer = LIFLayer(name="s", params=LIFParams(), state_shape=shape[1:], firing_rate=rate)
    known = replace(known, metadata=replace(known.metadata, lif_layers=(layer,)))
    return {buffer.name: buffer for buffer in lower(known, unit=SMALL, costs=COSTS_HERE, parts=1).buffers()}


def test_densities_follow_the_graph() -> None:
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("Add", "s s", "twice"),
        node("Mul", "twice s", "product"),
        node("Reshape", "product flat", "view"),
        node("MaxPool", "view", "logits", **pool),
    ]
    buffers = network(nodes, 0.3)
    fires = spikes(0.3)
    twice = added(fires, fires)
    assert buffers["s"].density == fires
    assert buffers["twice"].density == twice
    assert buffers["product"].density == multiplied(twice, fires)
    assert buffers["logits"].density == largest(multiplied(twice, fires), 4)


def test_real_values_have_no_density() -> None:
    buffers = network([node("Sub", "s s", "logits")], None)
    assert buffers["logits"].density is None
    assert buffers["s"].density == spikes(None)
