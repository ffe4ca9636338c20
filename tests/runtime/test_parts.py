"""Kernels that are divided among threads: the parts of a call are the whole, whatever their number and order."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from svitkit.lif import LIFParams
from svitkit.runtime.import_onnx import Graph
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.lowering.translation import SPLIT_WORK
from svitkit.runtime.program import Call
from tests.runtime.playing import COSTS_HERE, SMALL, Player, graph, node

T, HEADS, C, H, W = 4, 3, 19, 6, 6
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


def network(scale: int = 1) -> Graph:
    """Pooling, neurons, a sum, a quantization, attention, arithmetic and a mean: every kernel but the linear ones."""
    rows = H * scale
    tokens = (rows // 2) * (W // 2)
    nodes = [
        node("MaxPool", "input", "pooled", **POOL),
        node("LIF", "pooled zero", "s", params=LIFParams()),
        node("Add", "s s", "doubled"),
        node("Reshape", "doubled split", "a"),
        node("Transpose", "a", "b", perm=[0, 1, 3, 2]),
        node("MatMul", "a b", "product"),
        node("Mul", "product third", "scaled"),
        node("QuantizeLinear", "scaled third zero_point", "bytes"),
        node("Cast", "bytes", "real", to=1),
        node("ReduceMean", "real axes", "logits", keepdims=0),
    ]
    constants = {
        "zero": np.float32(0),
        "third": np.float32(1 / 3),
        "zero_point": np.uint8(5),
        "split": np.array([T, HEADS, C, tokens]),
        "axes": np.array([1]),
    }
    shape = (T, HEADS * C, rows, W)
    return graph(nodes, input_shape=shape, output_shape=(T, C, C), constants=constants)


def images(scale: int = 1) -> NDArray[np.float32]:
    x = np.random.default_rng(3).standard_normal((T, HEADS * C, H * scale, W)) * 2
    return x.astype(np.float32)


@pytest.mark.parametrize("parts", [2, 3, 5, 64])
def test_any_number_of_parts_gives_the_same(parts: int) -> None:
    whole, split = Player(network(), parts=1), Player(network(), parts=parts)
    assert [call.split for call in split.program.calls] == [True] * len(split.program.calls)
    np.testing.assert_array_equal(split.run(images()), whole.run(images()))
    assert len(np.unique(whole.run(images()))) > 10
    np.testing.assert_array_equal(split.spikes["s"], whole.spikes["s"])


def written(player: Player, call: Call, part: int) -> NDArray[np.bool_]:
    """Which elements of its output one part of a call writes."""
    contents = []
    out = player.memory[call.buffers[-1]]
    for poison in (77, 99):
        out.copyfrom(np.full(out.shape, poison, out.dtype))
        player.library[call.symbol](*[player.memory[buffer] for buffer in call.buffers], part, player.parts)
        contents.append(out.numpy())
    return np.asarray(contents[0] == contents[1])


def test_every_element_is_written_by_one_part_and_parts_are_alike() -> None:
    player = Player(network(), parts=3)
    player.run(images())
    for call in player.program.calls:
        parts = [written(player, call, part) for part in range(3)]
        np.testing.assert_array_equal(np.sum(parts, axis=0), 1, err_msg=call.symbol)
        shares = [part.mean() for part in parts]
        assert max(shares) <= 0.45, (call.symbol, shares)


def test_small_calls_are_whole_and_large_ones_split() -> None:
    small, large = (
        lower(network(), unit=SMALL, costs=COSTS_HERE, parts=4),
        lower(network(8), unit=SMALL, costs=COSTS_HERE, parts=4),
    )
    assert images().size < SPLIT_WORK < images(8).size
    assert (small.threads, large.threads) == (4, 4)
    divided = {call.layer: call.split for call in large.calls}
    assert (divided["pooled"], divided["product"], divided["scaled"]) == (True, True, False)
    assert {call.layer: call.split for call in small.calls}["s"] is False
