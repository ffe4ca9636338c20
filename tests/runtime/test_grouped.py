"""Grouped and depthwise convolutions: what torch computes, in every layout that is supported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams, lif
from svitkit.runtime.import_onnx import Node
from tests.runtime.playing import Player, graph, node

T, FLOAT = 3, 1
H, W = 7, 6
Array = NDArray[Any]
GEOMETRY = {
    "depthwise": (70, 70, 70, 1),
    "two outputs to an input": (10, 20, 10, 1),
    "groups": (12, 18, 3, 1),
    "strided": (40, 40, 40, 2),
}


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def convolution(groups: int, stride: int, **more: Any) -> dict[str, Any]:
    return {"group": groups, "strides": [stride] * 2, "pads": [1] * 4, "kernel_shape": [3, 3], **more}


def wanted(x: Array, weight: Array, bias: Array | None, groups: int, stride: int) -> Array:
    given = [torch.from_numpy(value).double() for value in (x, weight)]
    b = None if bias is None else torch.from_numpy(bias).double()
    return F.conv2d(*given, b, stride, 1, groups=groups).numpy()


def play(nodes: list[Node], x: Array, shape: tuple[int, ...], constants: dict[str, Array]) -> tuple[Array, list[str]]:
    player = Player(graph(nodes, input_shape=x.shape, output_shape=shape, constants=constants))
    return player.run(x).reshape(shape), list(player.kernels())


@pytest.mark.parametrize("kind", GEOMETRY)
def test_real_inputs_and_a_bias_give_what_torch_computes(kind: str) -> None:
    inputs, outputs, groups, stride = GEOMETRY[kind]
    x, weight, bias = random(T, inputs, H, W), random(outputs, inputs // groups, 3, 3, seed=1), random(outputs, seed=2)
    expected = wanted(x, weight, bias, groups, stride)
    known = {"w": weight, "b": bias, "one": np.asarray(np.float32(3))}
    nodes = [node("Conv", "input w b", "y", **convolution(groups, stride)), node("Mul", "y one", "logits")]
    got, kernels = play(nodes, x, expected.shape, known)
    np.testing.assert_allclose(got, 3 * expected, rtol=1e-5, atol=1e-5)
    assert "grouped_conv" in kernels


@pytest.mark.parametrize("kind", GEOMETRY)
def test_spikes_and_int8_weights_are_summed_exactly(kind: str) -> None:
    inputs, outputs, groups, stride = GEOMETRY[kind]
    x = np.where(random(T, inputs, H, W) > 0, 2.0, 0.0).astype(np.float32)
    weight = np.random.default_rng(1).integers(-127, 128, (outputs, inputs // groups, 3, 3)).astype(np.int8)
    scale = np.random.default_rng(2).uniform(1e-3, 3e-3, (1, outputs, 1, 1)).astype(np.float32)
    spikes = (x >= 2).astype(np.float64)
    expected = wanted(spikes, weight, None, groups, stride).astype(np.float32) * scale
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("ConvInteger", "s w", "sums", **convolution(groups, stride)),
        node("Cast", "sums", "real", to=FLOAT),
        node("Mul", "real scale", "logits"),
    ]
    known = {"w": weight, "scale": scale, "zero": np.asarray(np.float32(0))}
    got, kernels = play(nodes, x, expected.shape, known)
    np.testing.assert_array_equal(got, expected)
    assert "grouped_conv" in kernels


def test_neurons_behind_a_depthwise_convolution_see_its_currents() -> None:
    channels = 33
    x, weight = random(T, channels, H, W), random(channels, 1, 3, 3, seed=1)
    params = LIFParams(tau=3.0, v_threshold=0.25, v_reset=None)
    current = wanted(x, weight, None, channels, 1).astype(np.float32)
    nodes = [
        node("Conv", "input w", "y", **convolution(channels, 1)),
        node("LIF", "y zero", "fired", params=params),
        node("Mul", "fired one", "logits"),
    ]
    known = {"w": weight, "zero": np.asarray(np.float32(0)), "one": np.asarray(np.float32(3))}
    got, _ = play(nodes, x, current.shape, known)
    fired = lif(current, params)[0]
    assert 0.05 < fired.mean() < 0.95
    assert (got == 3 * fired).mean() > 0.999


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "says"),
    [
        ("Conv", "input w", {"dilations": [2, 2]}, "dilated"),
        ("ConvInteger", "bytes w8 z", {}, "zero point"),
    ],
)
def test_what_has_no_kernel_is_refused(op: str, inputs: str, attributes: dict[str, Any], says: str) -> None:
    known: dict[str, Array] = {
        "w": random(4, 1, 3, 3),
        "w8": np.ones((4, 1, 3, 3), np.int8),
        "z": np.array(3, np.uint8),
        "s": np.asarray(np.float32(0.5)),
    }
    nodes = [
        node("QuantizeLinear", "input s z", "bytes"),
        node(op, inputs, "logits", **convolution(4, 1, **attributes)),
    ]
    with pytest.raises(UnsupportedError, match=says):
        play(nodes, random(T, 4, H, W), (T, 4, H, W), known)
