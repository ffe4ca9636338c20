"""A scalar factor before a LIF layer is computed inside it, and rounds by itself."""

from __future__ import annotations

import numpy as np
import pytest

from svitkit.lif import LIFParams, lif
from tests.runtime.playing import Player, graph, node

T = 4


@pytest.mark.parametrize("factor", [0.25, 0.09523797780275345, -1.7, 0.0])
@pytest.mark.parametrize("decay_input", [True, False])
def test_a_scaled_current_rounds_before_the_neuron_adds_it(factor: float, decay_input: bool) -> None:
    params = LIFParams(v_threshold=0.3, decay_input=decay_input, v_reset=None)
    x = np.random.default_rng(0).standard_normal((T, 1, 6, 45)).astype(np.float32) * 2
    nodes = [
        node("Mul", "input factor", "current"),
        node("LIF", "current zero", "s", params=params),
        node("ReduceSum", "s axes", "logits", keepdims=0),
    ]
    known = {"factor": np.float32(factor), "zero": np.float32(0), "axes": np.array([1])}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 6, 45), constants=known))
    wanted = lif(x * np.float32(factor), params)[0][:, 0]
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert player.kernels()[:2] == ["lif", "sum"]
    assert 0 < wanted.mean() < 1 or factor == 0.0


def test_reshaping_and_transposing_between_factor_and_neuron_costs_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((T, 1, 6, 8)).astype(np.float32) * 9
    nodes = [
        node("Mul", "input factor", "scaled"),
        node("Transpose", "scaled", "turned", perm=[0, 1, 3, 2]),
        node("Reshape", "turned shape", "current"),
        node("LIF", "current zero", "s", params=LIFParams()),
        node("ReduceSum", "s axes", "logits", keepdims=0),
    ]
    known = {
        "factor": np.float32(0.3),
        "zero": np.float32(0),
        "shape": np.array([T, 1, 4, 12]),
        "axes": np.array([1]),
    }
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 4, 12), constants=known))
    wanted = lif((x * np.float32(0.3)).swapaxes(2, 3).reshape(T, 1, 4, 12), LIFParams())[0][:, 0]
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert "mul" not in player.kernels()


def test_a_product_with_two_readers_is_computed_once() -> None:
    x = np.random.default_rng(0).standard_normal((T, 1, 6, 8)).astype(np.float32) * 9
    nodes = [
        node("Mul", "input factor", "current"),
        node("LIF", "current zero", "s", params=LIFParams()),
        node("Add", "s current", "logits"),
    ]
    known = {"factor": np.float32(0.3), "zero": np.float32(0)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=x.shape, constants=known))
    current = x * np.float32(0.3)
    np.testing.assert_array_equal(player.run(x).reshape(x.shape), lif(current, LIFParams())[0] + current)
    assert player.kernels().count("mul") == 1
