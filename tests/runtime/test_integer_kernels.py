"""Layers of int8 weights: sums are exact, scale and bias round one after the other; results are equal bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from svitkit.boards.board import load_board
from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams, lif
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.vector_unit import vector_unit
from tests.runtime.playing import SMALL, Player, graph, node

T, UINT8, FLOAT = 4, 2, 1
Array = NDArray[Any]


def drive(inputs: int, tokens: int, rate: float) -> Array:
    """Currents of which a share makes a neuron fire at every step."""
    fires = np.random.default_rng(1).random((T, 1, inputs, 1, tokens)) < rate
    return np.where(fires, 2.0, 0.0).astype(np.float32)


def counted(copies: int, inputs: int, tokens: int) -> list[Node]:
    """Nodes that turn the input into rows (T, 1, tokens, inputs) of counts 0..copies, as bytes."""
    nodes = [node("LIF", "input zero", "c1", params=LIFParams())]
    nodes += [node("Add", f"c{n} c1", f"c{n + 1}") for n in range(1, copies)]
    nodes += [node("Reshape", f"c{copies} shape", "flat"), node("Transpose", "flat", "rows", perm=[0, 1, 3, 2])]
    return [*nodes, node("Cast", "rows", "bytes", to=UINT8)]


def constants(weight: Array, inputs: int, tokens: int) -> dict[str, Array]:
    rng = np.random.default_rng(2)
    outputs = weight.shape[-1]
    return {
        "w": weight,
        "zero": np.float32(0),
        "shape": np.array([T, 1, inputs, tokens]),
        "scale": rng.uniform(1e-3, 3e-3, outputs).astype(np.float32),
        "bias": rng.normal(0, 0.3, outputs).astype(np.float32),
    }


@pytest.mark.parametrize("inputs", [1, 7, 300])
@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize(("copies", "rate"), [(1, 0.0), (1, 1.0), (1, 0.2), (5, 0.6)])
def test_a_product_with_scale_bias_and_neurons_equals_numpy_bit_for_bit(
    inputs: int, tokens: int, copies: int, rate: float
) -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (inputs, 45)).astype(np.int8)
    known = constants(weight, inputs, tokens)
    x = drive(inputs, tokens, rate)
    nodes = [
        *counted(copies, inputs, tokens),
        node("MatMulInteger", "bytes w", "sums"),
        node("Cast", "sums", "real", to=FLOAT),
        node("Mul", "real scale", "scaled"),
        node("Add", "scaled bias", "current"),
        node("LIF", "current zero", "s", params=LIFParams()),
        node("Mul", "s one", "logits"),
    ]
    player = Player(
        graph(nodes, input_shape=x.shape, output_shape=(T, 1, tokens, 45), constants={**known, "one": np.float32(3)}),
        unit=replace(SMALL, float_lanes=32),
    )
    counts = copies * lif(x, LIFParams())[0].reshape(T, 1, inputs, tokens).swapaxes(2, 3)
    sums = counts.astype(np.int64) @ weight.astype(np.int64)
    wanted = lif(sums.astype(np.float32) * known["scale"] + known["bias"], LIFParams())[0]
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), 3 * wanted)
    assert "event_int8_matmul_lif" in player.kernels()


@pytest.mark.parametrize("outputs", [1, 3, 12, 15, 16, 17, 28, 33, 45, 77, 128])
@pytest.mark.parametrize("inputs", [4, 48])
def test_dot_products_of_any_number_of_channels_are_exact(inputs: int, outputs: int) -> None:
    host = load_board("host")
    unit = vector_unit(host)
    if unit.dot is None:
        pytest.skip("this CPU multiplies and adds no four bytes at once")
    weight = np.random.default_rng(0).integers(-128, 128, (inputs, outputs)).astype(np.int8)
    known, x = constants(weight, inputs, 6), drive(inputs, 6, 0.5)
    nodes = [
        *counted(2, inputs, 6),
        node("MatMulInteger", "bytes w", "sums"),
        node("Cast", "sums", "real", to=FLOAT),
        node("Mul", "real scale", "scaled"),
        node("Add", "scaled bias", "current"),
        node("LIF", "current zero", "s", params=LIFParams()),
        node("Mul", "s one", "logits"),
    ]
    player = Player(
        graph(nodes, input_shape=x.shape, output_shape=(T, 1, 6, outputs), constants={**known, "one": np.float32(3)}),
        unit=unit,
        prefer="dense",
        target=host.tvm_target(),
    )
    counts = 2 * lif(x, LIFParams())[0].reshape(T, 1, inputs, 6).swapaxes(2, 3)
    sums = counts.astype(np.int64) @ weight.astype(np.int64)
    wanted = lif(sums.astype(np.float32) * known["scale"] + known["bias"], LIFParams())[0]
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), 3 * wanted)
    assert "dot_int8_matmul_lif" in player.kernels()


@pytest.mark.parametrize("extreme", [-128, 127])
@pytest.mark.parametrize("copies", [1, 10])
def test_sums_far_beyond_int16_are_exact(extreme: int, copies: int) -> None:
    inputs, tokens = 3000, 2
    weight = np.full((inputs, 33), extreme, np.int8)
    x = drive(inputs, tokens, 1.0)
    nodes = [
        *counted(copies, inputs, tokens),
        node("MatMulInteger", "bytes w", "sums"),
        node("Cast", "sums", "logits", to=FLOAT),
    ]
    known = constants(weight, inputs, tokens)
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 1, tokens, 33), constants=known))
    fired = lif(x, LIFParams())[0].sum(axis=2).reshape(T, tokens)
    wanted = np.broadcast_to(fired[:, :, None] * copies * extreme, (T, tokens, 33))
    assert abs(wanted).max() > 2**15
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_quantized_image_is_convolved_around_its_zero_point(stride: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 8)).astype(np.float32)
    weight = np.random.default_rng(1).integers(-127, 128, (13, 3, 3, 3)).astype(np.int8)
    scale, bias = np.float32(0.03125), np.random.default_rng(2).normal(size=(1, 13, 1, 1)).astype(np.float32)
    nodes = [
        node("QuantizeLinear", "input step zp", "bytes"),
        node("ConvInteger", "bytes w zp", "sums", strides=[stride] * 2, pads=[1] * 4, kernel_shape=[3, 3]),
        node("Cast", "sums", "real", to=FLOAT),
        node("Mul", "real scale", "scaled"),
        node("Add", "scaled bias", "logits"),
    ]
    per_channel = np.random.default_rng(3).uniform(1e-4, 1e-3, (1, 13, 1, 1)).astype(np.float32)
    known = {"step": scale, "zp": np.uint8(128), "w": weight, "scale": per_channel, "bias": bias}
    levels = np.clip(np.round(x / scale) + 128, 0, 255) - 128
    sums = F.conv2d(torch.from_numpy(levels).double(), torch.from_numpy(weight).double(), stride=stride, padding=1)
    wanted = sums.numpy().astype(np.float32) * per_channel + bias
    player = Player(graph(nodes, input_shape=x.shape, output_shape=wanted.shape, constants=known))
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert player.kernels()[:2] == ["quantize", "dense_int8_conv"]


def test_rounding_to_even_and_clipping_of_the_input() -> None:
    x = np.array([[[[-99.0, -0.75, -0.25, 0.25, 0.75, 99.0]]]], np.float32)
    nodes = [node("QuantizeLinear", "input step zp", "bytes"), node("Mul", "bytes one", "logits")]
    known = {"step": np.float32(0.5), "zp": np.uint8(128), "one": np.float32(3)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=x.shape, constants=known))
    np.testing.assert_array_equal(player.run(x), 3 * np.array([0, 126, 128, 128, 130, 255], np.float32))


@pytest.mark.parametrize(("largest", "bits"), [(127, 8), (31, 6), (7, 4), (3, 3), (1, 2)])
def test_weights_take_the_bits_that_they_need(largest: int, bits: int) -> None:
    weight = np.full((64, 512), largest, np.int8)
    nodes = [*counted(1, 64, 4), node("MatMulInteger", "bytes w", "sums"), node("Cast", "sums", "logits", to=FLOAT)]
    known = constants(weight, 64, 4)
    player = Player(graph(nodes, input_shape=(T, 1, 64, 1, 4), output_shape=(T, 1, 4, 512), constants=known))
    (stored,) = [len(content) for buffer, content in player.program.weights.items() if buffer.name.startswith("w.rows")]
    rows = 64 * -(-64 // 64) + sum(call.symbol.startswith("event") for call in player.program.calls)
    assert stored == pytest.approx(rows * 512 * bits / 8, rel=0.1)  # rows of zeros fill up groups
    assert ("unpack" in player.kernels()) == (bits < 8)


def test_a_weight_zero_point_is_refused() -> None:
    known = {**constants(np.ones((8, 4), np.int8), 8, 4), "wzp": np.int8(3), "xzp": np.uint8(0)}
    nodes = [*counted(1, 8, 4), node("MatMulInteger", "bytes w xzp wzp", "logits")]
    with pytest.raises(UnsupportedError, match="zero point"):
        Player(graph(nodes, input_shape=(T, 1, 8, 1, 4), output_shape=(T, 1, 4, 4), constants=known))


def test_real_inputs_of_an_integer_layer_are_refused() -> None:
    known = {"w": np.ones((8, 4), np.int8)}
    with pytest.raises(UnsupportedError, match="inputs are float32"):
        Player(
            graph(
                [node("MatMulInteger", "input w", "logits")], input_shape=(2, 8), output_shape=(2, 4), constants=known
            )
        )
