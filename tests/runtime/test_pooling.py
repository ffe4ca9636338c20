"""Pooling behind integer layers: the sums are pooled, then scaled; bit for bit what pooling the currents gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from svitkit.lif import LIFParams, lif
from svitkit.runtime.import_onnx import Node
from tests.runtime.playing import Player, graph, node

T, FLOAT = 4, 1
INPUTS, OUTPUTS, H, W = 5, 70, 7, 6
SHAPE = (T, 1, OUTPUTS, 4, 3)
NEURON = LIFParams(v_threshold=0.5, tau=3.0, v_reset=None)
Array = NDArray[Any]


def layers(*, tail: str = "LIF") -> list[Node]:
    """Spikes, an integer convolution, max pooling, and neurons or nothing behind it."""
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("ConvInteger", "flat w", "sums", strides=[1, 1], pads=[1] * 4, kernel_shape=[3, 3]),
        node("Cast", "sums", "real", to=FLOAT),
        node("Mul", "real scale", "scaled"),
        node("Add", "scaled bias", "current"),
        node("MaxPool", "current", "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Reshape", "pooled steps", "x"),
    ]
    if tail == "LIF":
        nodes.append(node("LIF", "x zero", "fired", params=NEURON))
    return [*nodes, node("Mul", "fired one" if tail == "LIF" else "x one", "logits")]


def constants(weight: Array, scale: Array, steps: int = T) -> dict[str, Array]:
    return {
        "w": weight,
        "scale": scale.reshape(1, -1, 1, 1),
        "bias": np.random.default_rng(5).normal(0, 0.2, (1, OUTPUTS, 1, 1)).astype(np.float32),
        "zero": np.asarray(np.float32(0)),
        "one": np.asarray(np.float32(3)),
        "frames": np.array([steps, INPUTS, H, W]),
        "steps": np.array([steps, *SHAPE[1:]]),
    }


def drive() -> Array:
    fires = np.random.default_rng(1).random((T, 1, INPUTS, H, W)) < 0.4
    return np.where(fires, 2.0, 0.0).astype(np.float32)


def pooled(x: Array, known: dict[str, Array]) -> Array:
    """Pooled currents as ONNX Runtime computes them: every operation rounds."""
    spikes = torch.from_numpy((x[:, 0] >= 2).astype(np.float64))
    sums = F.conv2d(spikes, torch.from_numpy(known["w"]).double(), padding=1).numpy()
    current = sums.astype(np.float32) * known["scale"] + known["bias"]
    return F.max_pool2d(torch.from_numpy(current), 3, 2, 1).numpy().reshape(SHAPE)


def random_weight() -> Array:
    return np.random.default_rng(0).integers(-127, 128, (OUTPUTS, INPUTS, 3, 3)).astype(np.int8)


def positive_scale() -> Array:
    return np.random.default_rng(2).uniform(1e-3, 3e-3, OUTPUTS).astype(np.float32)


@pytest.mark.parametrize("extreme", [False, True], ids=["int16", "int32"])
def test_sums_are_pooled_before_scale_and_bias(extreme: bool) -> None:
    weight = random_weight()
    if extreme:
        weight = np.concatenate([weight] * 6, axis=1)
        weight[3] = 127
    inputs = weight.shape[1]
    known = {**constants(weight, positive_scale()), "frames": np.array([T, inputs, H, W])}
    x = np.concatenate([drive()] * (inputs // INPUTS), axis=2)
    player = Player(graph(layers(), input_shape=x.shape, output_shape=SHAPE, constants=known))
    wanted = lif(pooled(x, known), NEURON)[0]
    np.testing.assert_array_equal(player.run(x).reshape(SHAPE), 3 * wanted)
    assert "max_pool_lif" in player.kernels()
    assert 0.02 < wanted.mean() < 0.98
    sums = next(buffer for buffer in player.memory if buffer.name.endswith(".sums"))
    assert sums.dtype == ("int32" if extreme else "int16")


@pytest.mark.parametrize("odd", [-0.002, 0.0])
def test_currents_are_pooled_where_a_scale_is_not_positive(odd: float) -> None:
    scale = positive_scale()
    scale[7] = odd
    known, x = constants(random_weight(), scale), drive()
    player = Player(graph(layers(), input_shape=x.shape, output_shape=SHAPE, constants=known))
    np.testing.assert_array_equal(player.run(x).reshape(SHAPE), 3 * lif(pooled(x, known), NEURON)[0])
    assert "max_pool" in player.kernels()


def test_pooled_currents_without_neurons_are_computed() -> None:
    known, x = constants(random_weight(), positive_scale()), drive()
    player = Player(graph(layers(tail=""), input_shape=x.shape, output_shape=SHAPE, constants=known))
    np.testing.assert_array_equal(player.run(x).reshape(SHAPE), 3 * pooled(x, known))
    assert "max_pool" in player.kernels()


def test_potentials_behind_a_pooling_go_on_from_step_to_step() -> None:
    known, x = constants(random_weight(), positive_scale(), steps=1), drive()
    nodes = [node("LIF", "x state", "fired", params=NEURON) if n.outputs[0] == "fired" else n for n in layers()]
    step = (1, *SHAPE[1:])
    network = graph(nodes, input_shape=(1, *x.shape[1:]), output_shape=step, constants=known, states={"state": step})
    player = Player(network)
    got = np.stack([player.run(frame[None]).reshape(SHAPE[1:]) for frame in x])
    np.testing.assert_array_equal(got, 3 * lif(pooled(x, known), NEURON)[0])
    assert "max_pool_lif" in player.kernels()
