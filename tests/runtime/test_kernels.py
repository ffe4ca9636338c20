from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams, lif
from svitkit.runtime.kernels.panels import PanelRun, pack_panels, panel_runs
from tests.runtime.playing import SMALL, Player, graph, node

T, H, W = 4, 6, 5
PARAMS = [
    LIFParams(),
    LIFParams(v_threshold=0.5, v_reset=None),
    LIFParams(tau=4.0, decay_input=False, v_reset=-0.25),
    LIFParams(tau=3.0, v_reset=None, decay_input=False),
]


def spikes(shape: tuple[int, ...], rate: float = 0.3) -> NDArray[np.float32]:
    return (np.random.default_rng(1).random(shape) < rate).astype(np.float32)


def normal(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_panels_cover_every_channel_once_with_powers_of_two() -> None:
    assert panel_runs(45, 16) == (PanelRun(0, 16, 2), PanelRun(32, 8, 1), PanelRun(40, 4, 1), PanelRun(44, 1, 1))


def test_packed_panel_at_channel_n_begins_at_n_times_rows() -> None:
    weight = np.arange(3 * 6, dtype=np.float32).reshape(3, 6)
    packed = pack_panels(weight, panel_runs(weight.shape[1], 4))
    np.testing.assert_array_equal(packed[:12].reshape(3, 4), weight[:, :4])
    np.testing.assert_array_equal(packed[12:].reshape(3, 2), weight[:, 4:])


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 2, 0)], ids=str
)
@pytest.mark.parametrize("source", ["real", "spikes"])
def test_convolutions_equal_torch(kernel: int, stride: int, padding: int, source: str) -> None:
    inputs, outputs = 7, 11
    x = normal((T, 1, inputs, H, W))
    weight, bias = normal((outputs, inputs, kernel, kernel), 1), normal((outputs,), 2)
    nodes = [node("Reshape", "input flat", "frames")]
    if source == "spikes":
        nodes = [node("LIF", "input zero", "s", params=LIFParams()), node("Reshape", "s flat", "frames")]
        x *= 3
    attributes = {"strides": [stride] * 2, "pads": [padding] * 4, "kernel_shape": [kernel] * 2}
    nodes.append(node("Conv", "frames w b", "logits", **attributes))
    constants = {"flat": np.array([T, inputs, H, W]), "w": weight, "b": bias, "zero": np.float32(0)}
    frames = x if source == "real" else lif(x, LIFParams())[0]
    wanted = F.conv2d(*map(torch.from_numpy, (frames[:, 0], weight, bias)), stride=stride, padding=padding).numpy()
    player = Player(graph(nodes, input_shape=x.shape, output_shape=wanted.shape, constants=constants))
    np.testing.assert_allclose(player.run(x).reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)
    assert player.kernels()[-2].startswith("event" if source == "spikes" else "dense")


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_neurons_equal_the_reference_alone_and_fused(params: LIFParams) -> None:
    x, weight = normal((T, 1, 6, 13)) * 3, normal((13, 21), 1)
    constants = {"w": weight, "zero": np.float32(params.v_initial), "axes": np.array([1])}
    alone = [node("LIF", "input zero", "s", params=params), node("ReduceSum", "s axes", "logits", keepdims=0)]
    player = Player(graph(alone, input_shape=x.shape, output_shape=(T, 6, 13), constants=constants))
    wanted = lif(x, params)[0][:, 0]
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert 0.02 < wanted.mean() < 0.9
    fused = [
        node("MatMul", "input w", "c"),
        node("LIF", "c zero", "s", params=params),
        node("ReduceSum", "s axes", "logits", keepdims=0),
    ]
    player = Player(graph(fused, input_shape=x.shape, output_shape=(T, 6, 21), constants=constants))
    wanted = lif(x @ weight, params)[0][:, 0]
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert player.kernels()[0] == "dense_matmul_lif"


def test_states_go_on_from_step_to_step() -> None:
    x = normal((T, 1, 6, 8)) * 2
    nodes = [node("LIF", "input v", "s", params=LIFParams()), node("ReduceSum", "s axes", "logits", keepdims=0)]
    network = graph(
        nodes,
        input_shape=(1, 1, 6, 8),
        output_shape=(1, 6, 8),
        constants={"axes": np.array([1])},
        states={"v": (1, 6, 8)},
    )
    player = Player(network)
    steps = np.stack([player.run(frame[None]) for frame in x]).reshape(T, 6, 8)
    np.testing.assert_array_equal(steps, lif(x, LIFParams())[0][:, 0])


def test_a_static_image_enters_the_first_convolution_once() -> None:
    x, weight = normal((1, 2, H, W)), normal((8, 2, 3, 3), 1)
    constants = {
        "shape": np.array([T, 1, 2, H, W]),
        "flat": np.array([T, 2, H, W]),
        "back": np.array([T, 1, 8, H, W]),
        "w": weight,
        "zero": np.float32(0),
        "axes": np.array([1]),
    }
    nodes = [
        node("Expand", "input shape", "wide"),
        node("Reshape", "wide flat", "frames"),
        node("Conv", "frames w", "c", strides=[1, 1], pads=[1] * 4, kernel_shape=[3, 3]),
        node("Reshape", "c back", "current"),
        node("LIF", "current zero", "s", params=LIFParams(v_threshold=0.3)),
        node("ReduceSum", "s axes", "logits", keepdims=0),
    ]
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 8, H, W), constants=constants))
    current = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=1).numpy()
    wanted = lif(np.repeat(current, T, 0), LIFParams(v_threshold=0.3))[0]
    assert (player.run(x).reshape(wanted.shape) == wanted).mean() > 0.999
    assert player.program.input.elements == x.size
    assert player.kernels()[0] == "dense_conv_lif"


@pytest.mark.parametrize("source", ["real", "spikes"])
def test_max_pooling_equals_torch(source: str) -> None:
    x = normal((T, 1, 5, 8, 6)) * (2 if source == "spikes" else 1)
    nodes = [node("LIF", "input zero", "s", params=LIFParams())] if source == "spikes" else []
    nodes += [
        node("Reshape", f"{'s' if nodes else 'input'} flat", "frames"),
        node("MaxPool", "frames", "logits", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ]
    constants = {"flat": np.array([T, 5, 8, 6]), "zero": np.float32(0)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 5, 4, 3), constants=constants))
    frames = lif(x, LIFParams())[0] if source == "spikes" else x
    wanted = F.max_pool2d(torch.from_numpy(frames[:, 0]), 3, 2, 1).numpy()
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)


def test_attention_multiplies_spikes_exactly_in_integers() -> None:
    heads, depth, tokens = 2, 8, 9
    x = normal((T, 1, 3 * heads * depth, tokens)) * 4 + 1
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s shape", "heads"),
        node("Split", "heads", "q k v", axis=2, num_outputs=3),
        node("Transpose", "k", "kt", perm=[0, 1, 2, 4, 3]),
        node("MatMul", "v kt", "vk"),
        node("MatMul", "vk q", "vkq"),
        node("Mul", "vkq scale", "current"),
        node("LIF", "current zero", "a", params=LIFParams(v_threshold=0.5)),
        node("ReduceSum", "a axes", "logits", keepdims=0),
    ]
    constants = {
        "shape": np.array([T, 1, 3 * heads, depth, tokens]),
        "scale": np.float32(0.125),
        "zero": np.float32(0),
        "axes": np.array([1]),
    }
    shape = (T, heads, depth, tokens)
    player = Player(graph(nodes, input_shape=x.shape, output_shape=shape, constants=constants))
    q, k, v = np.split(lif(x, LIFParams())[0].reshape(T, 3 * heads, depth, tokens), 3, axis=1)
    wanted = lif(v @ k.swapaxes(-1, -2) @ q * np.float32(0.125), LIFParams(v_threshold=0.5))[0]
    np.testing.assert_array_equal(player.run(x).reshape(shape), wanted)
    assert 0.05 < wanted.mean() < 0.95
    assert player.kernels()[:4] == ["lif", "contract", "contract", "lif"]


@pytest.mark.parametrize("inputs", [1, 7, 96, 1000])
@pytest.mark.parametrize("tokens", [1, 35, 64])
@pytest.mark.parametrize("level", [0.0, 1.0, 3.0], ids=["silent", "spikes", "counts"])
def test_events_in_chunks_and_blocks_equal_numpy(inputs: int, tokens: int, level: float) -> None:
    outputs = 45
    drive = np.where(spikes((T, 1, inputs, 1, tokens)) > 0, level and 2.0, 0.0).astype(np.float32)
    weight = np.random.default_rng(3).integers(-4, 5, (inputs, outputs)).astype(np.float32)
    nodes = [
        node("LIF", "input zero", "s1", params=LIFParams()),
        node("Add", "s1 s1", "s2"),
        node("Add", "s2 s1", "s3"),
    ]
    nodes += [
        node("Reshape", f"s{max(int(level), 1)} shape", "flat"),
        node("Transpose", "flat", "rows", perm=[0, 1, 3, 2]),
        node("MatMul", "rows w", "logits"),
    ]
    constants = {"w": weight, "zero": np.float32(0), "shape": np.array([T, 1, inputs, tokens])}
    shape = (T, 1, tokens, outputs)
    player = Player(
        graph(nodes, input_shape=drive.shape, output_shape=shape, constants=constants),
        unit=replace(SMALL, float_lanes=32),
    )
    counts = lif(drive, LIFParams())[0].reshape(T, 1, inputs, tokens).swapaxes(2, 3) * max(int(level), 1)
    assert (counts.max() > 0) == (level > 0)
    np.testing.assert_array_equal(player.run(drive).reshape(shape), counts @ weight)  # integers: exact in any order
    assert "event_matmul" in player.kernels()


def test_sums_of_spikes_stay_bytes_and_counts_drive_events() -> None:
    x, weight = normal((T, 1, 16, 2, 3)) * 2, normal((16, 8), 1)
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Add", "s s", "counts"),
        node("Reshape", "counts tokens", "flat"),
        node("Transpose", "flat", "rows", perm=[0, 1, 3, 2]),
        node("MatMul", "rows w", "c"),
        node("LIF", "c zero", "s2", params=LIFParams()),
        node("ReduceSum", "s2 axes", "logits", keepdims=0),
    ]
    constants = {"w": weight, "zero": np.float32(0), "axes": np.array([1]), "tokens": np.array([T, 1, 16, 6])}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 6, 8), constants=constants))
    counts = 2 * lif(x, LIFParams())[0].reshape(T, 16, 6).transpose(0, 2, 1)
    wanted = lif(counts @ weight, LIFParams())[0]
    assert (player.run(x).reshape(wanted.shape) == wanted).mean() > 0.99
    assert player.kernels() == ["lif", "add", "list", "event_matmul_lif", "sum", "copy"]


@pytest.mark.parametrize(
    ("operator", "function"), [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)]
)
def test_arithmetic_broadcasts_like_numpy(operator: str, function: np.ufunc) -> None:
    x, row = normal((T, 1, 6, 8)), normal((6, 1), 3) + 4
    nodes = [node(operator, "input row", "y"), node("Mul", "y third", "logits")]
    constants = {"row": row, "third": np.float32(1 / 3)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=x.shape, constants=constants))
    np.testing.assert_array_equal(player.run(x).reshape(x.shape), function(x, row) * np.float32(1 / 3))


def test_mean_divides_after_an_exact_sum() -> None:
    x = normal((T, 1, 6, 16)) * 2
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("ReduceMean", "s last", "m", keepdims=0),
        node("ReduceMean", "m first", "logits", keepdims=0),
    ]
    constants = {"zero": np.float32(0), "last": np.array([-1]), "first": np.array([0])}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(1, 6), constants=constants))
    np.testing.assert_allclose(player.run(x), lif(x, LIFParams())[0].mean((0, 3)).ravel(), rtol=1e-6)


def test_wide_sums_take_no_memory_from_the_runtime() -> None:
    x = normal((T, 1, 1600, 2, 2))
    nodes = [node("ReduceMean", "input axes", "logits", keepdims=0)]
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(T, 1600), constants={"axes": np.array([1, 3, 4])}))
    np.testing.assert_allclose(player.run(x).reshape(T, 1600), x.mean((1, 3, 4)), rtol=1e-4, atol=1e-6)
    assert "mean_0" in player.source
    assert "TVMBackend" not in player.source


def test_a_mean_over_everything_is_one_number() -> None:
    x = normal((T, 1, 3, 2, 2))
    player = Player(
        graph([node("ReduceMean", "input", "logits")], input_shape=x.shape, output_shape=(1,), constants={})
    )
    np.testing.assert_allclose(player.run(x), [x.mean()], rtol=1e-5)


def test_gemm_with_bias_and_transposed_weights() -> None:
    x, weight, bias = normal((3, 7)), normal((10, 7), 1), normal((10,), 2)
    nodes = [node("Gemm", "input w b", "logits", transB=1)]
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(3, 10), constants={"w": weight, "b": bias}))
    np.testing.assert_allclose(player.run(x).reshape(3, 10), x @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_an_operator_without_kernel_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="operator Softmax of node 'logits' has no kernel"):
        Player(graph([node("Softmax", "input", "logits")], input_shape=(2, 2), output_shape=(2, 2), constants={}))


def test_a_dilated_convolution_is_refused_with_the_node_named() -> None:
    constants = {"w": normal((4, 4, 3, 3))}
    nodes = [node("Conv", "input w", "logits", dilations=[2, 2], kernel_shape=[3, 3])]
    with pytest.raises(UnsupportedError, match=r"node 'logits' \(Conv\): dilated"):
        Player(graph(nodes, input_shape=(1, 4, 5, 5), output_shape=(1, 4, 1, 1), constants=constants))
