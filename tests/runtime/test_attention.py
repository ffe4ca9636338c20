"""Attention without a softmax: integers in one kernel, in whichever order the network multiplies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from svitkit.lif import LIFParams, lif
from svitkit.runtime.import_onnx import Node
from tests.runtime.playing import Player, graph, node

T = 4
Array = NDArray[Any]
SCALE = np.float32(0.09523797780275345)
NEURON = LIFParams(v_threshold=0.5)


def drive(channels: int, tokens: int, rate: float) -> Array:
    """Currents (T, 1, channels, 1, tokens) of which a share makes a neuron fire."""
    fires = np.random.default_rng(tokens).random((T, 1, channels, 1, tokens)) < rate
    return np.where(fires, 2.0, 0.0).astype(np.float32)


def split(heads: int, depth: int) -> list[Node]:
    """Nodes from the input to q, k and v (T, 1, heads, depth, tokens)."""
    return [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s shape", "parts"),
        node("Split", "parts", "q k v", axis=2, num_outputs=3),
    ]


def constants(heads: int, depth: int, tokens: int) -> dict[str, Array]:
    return {
        "shape": np.array([T, 1, 3 * heads, depth, tokens]),
        "scale": np.asarray(SCALE),
        "zero": np.asarray(np.float32(0)),
        "one": np.asarray(np.float32(1)),
        "joined": np.array([T, 1, heads * depth, tokens]),
    }


ORDERS = {
    "columns, v k^T first": [
        node("Transpose", "k", "kt", perm=[0, 1, 2, 4, 3]),
        node("MatMul", "v kt", "first"),
        node("MatMul", "first q", "product"),
    ],
    "columns, k^T q first": [
        node("Transpose", "k", "kt", perm=[0, 1, 2, 4, 3]),
        node("MatMul", "kt q", "first"),
        node("MatMul", "v first", "product"),
    ],
    "rows, q k^T first": [
        node("Transpose", "q", "rows", perm=[0, 1, 2, 4, 3]),
        node("Transpose", "v", "vt", perm=[0, 1, 2, 4, 3]),
        node("MatMul", "rows k", "first"),
        node("MatMul", "first vt", "turned"),
        node("Transpose", "turned", "product", perm=[0, 1, 2, 4, 3]),
    ],
}


def reference(x: Array, heads: int, depth: int, tokens: int, scale: np.float32) -> Array:
    """Spikes (T, 1, heads * depth, tokens)."""
    q, k, v = np.split(lif(x, LIFParams())[0].reshape(T, 3 * heads, depth, tokens), 3, axis=1)
    sums = v.astype(np.int64) @ k.swapaxes(-1, -2).astype(np.int64) @ q.astype(np.int64)
    return lif(sums.astype(np.float32) * scale, NEURON)[0].reshape(T, 1, heads * depth, tokens)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize(("heads", "depth", "tokens"), [(3, 8, 12), (1, 7, 1), (2, 5, 67), (1, 48, 20), (2, 32, 300)])
@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_attention_is_one_exact_kernel(order: str, heads: int, depth: int, tokens: int, rate: float) -> None:
    x = drive(3 * heads * depth, tokens, rate)
    nodes = [
        *split(heads, depth),
        *ORDERS[order],
        node("Mul", "product scale", "scaled"),
        node("Reshape", "scaled joined", "current"),
        node("LIF", "current zero", "a", params=NEURON),
        node("Mul", "a one", "logits"),
    ]
    shape = (T, 1, heads * depth, tokens)
    scale = np.float32(3 / (depth * tokens * max(rate, 0.5) ** 3))
    known = {**constants(heads, depth, tokens), "scale": np.asarray(scale)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=shape, constants=known))
    wanted = reference(x, heads, depth, tokens, scale)
    np.testing.assert_array_equal(player.run(x).reshape(shape), wanted)
    assert player.kernels()[:2] == ["lif", "attention"]
    assert wanted.any() == (rate > 0)


def test_sums_beyond_int16_are_exact() -> None:
    heads, depth, tokens = 1, 96, 400
    x = drive(3 * heads * depth, tokens, 1.0)
    scale = np.float32(2e-5)
    nodes = [
        *split(heads, depth),
        *ORDERS["columns, v k^T first"],
        node("Mul", "product scale", "current"),
        node("LIF", "current zero", "a", params=NEURON),
        node("Mul", "a one", "logits"),
    ]
    known = {**constants(heads, depth, tokens), "scale": np.asarray(scale)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 1, heads, depth, tokens), constants=known))
    wanted = reference(x, heads, depth, tokens, scale)
    assert depth * tokens > 1 << 15
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert 0 < wanted.mean() < 1


def test_potentials_of_attention_go_on_from_step_to_step() -> None:
    heads, depth, tokens = 2, 8, 6
    x = drive(3 * heads * depth, tokens, 0.4)
    nodes = [
        *split(heads, depth),
        *ORDERS["columns, v k^T first"],
        node("Mul", "product scale", "current"),
        node("LIF", "current state", "a", params=NEURON),
        node("Mul", "a one", "logits"),
    ]
    shape = (1, 1, heads, depth, tokens)
    known = {**constants(heads, depth, tokens), "shape": np.array([1, 1, 3 * heads, depth, tokens])}
    network = graph(nodes, input_shape=(1, *x.shape[1:]), output_shape=shape, constants=known, states={"state": shape})
    player = Player(network)
    got = np.stack([player.run(frame[None]).reshape(1, heads * depth, tokens) for frame in x])
    spikes = (x >= 2).astype(np.float32)
    q, k, v = np.split(spikes.reshape(T, 3 * heads, depth, tokens), 3, axis=1)
    wanted = lif(v @ k.swapaxes(-1, -2) @ q * SCALE, NEURON)[0].reshape(T, 1, heads * depth, tokens)
    np.testing.assert_array_equal(got, wanted)
    assert "attention" in player.kernels()


def test_products_with_another_reader_are_computed_by_themselves() -> None:
    heads, depth, tokens = 2, 8, 6
    x = drive(3 * heads * depth, tokens, 0.4)
    nodes = [
        *split(heads, depth),
        *ORDERS["columns, v k^T first"],
        node("LIF", "product zero", "a", params=NEURON),
        node("Add", "a product", "logits"),
    ]
    shape = (T, 1, heads, depth, tokens)
    known = constants(heads, depth, tokens)
    player = Player(graph(nodes, input_shape=x.shape, output_shape=shape, constants=known))
    q, k, v = np.split(lif(x, LIFParams())[0].reshape(T, 3 * heads, depth, tokens), 3, axis=1)
    sums = v @ k.swapaxes(-1, -2) @ q
    np.testing.assert_array_equal(player.run(x).reshape(sums.shape), sums + lif(sums, NEURON)[0])
    assert player.kernels().count("contract") == 2
