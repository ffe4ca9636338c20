"""Kernels for GPUs on PoCL, in the shapes at which words of packed spikes begin and end otherwise than channels do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from svitkit.lif import LIFParams
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.gpu_linear import GpuLinearSpec
from svitkit.runtime.program import Precision
from svitkit.runtime.view import PACKED
from tests.runtime.gpu_playing import GpuPlayer
from tests.runtime.node_reference import compute
from tests.runtime.playing import Array, graph, node
from tests.runtime.test_token_kernels import pattern, pattern_constants

pytestmark = pytest.mark.usefixtures("pocl")
T, FLOAT = 3, 1
SOFT = LIFParams(v_threshold=0.5, v_reset=None)
CONVOLUTION = {"strides": [1, 1], "pads": [1] * 4, "kernel_shape": [3, 3]}
HALVES = {"strides": [2, 2], "pads": [1] * 4, "kernel_shape": [3, 3]}


def drive(*shape: int, rate: float = 0.4) -> Array:
    """Currents of which a share makes a neuron fire."""
    return np.where(np.random.default_rng(1).random(shape) < rate, 2.0, 0.0).astype(np.float32)


def weights(*shape: int) -> Array:
    """Few binary places: sums are exact in any order, and fp16 holds every weight."""
    wide = np.random.default_rng(sum(shape)).integers(-192, 224, shape) / np.sqrt(np.prod(shape[1:]))
    return (np.round(wide) / 64).astype(np.float32)


def integers(*shape: int, largest: int = 127) -> Array:
    return np.random.default_rng(2).integers(-largest, largest + 1, shape).astype(np.int8)


def check(
    nodes: Sequence[Node],
    x: Array,
    constants: Mapping[str, Array],
    *,
    precision: Precision = "fp32",
    lively: bool = True,
) -> GpuPlayer:
    """Plays a network; its logits and the spikes of all its neurons must be those of numpy, bit for bit."""
    known = {"zero": np.asarray(np.float32(0)), "one": np.asarray(np.float32(1)), **constants}
    wanted = compute(nodes, x, known)
    logits = np.asarray(wanted["logits"], np.float32)
    network = graph(nodes, input_shape=x.shape, output_shape=logits.shape, constants=known)
    player = GpuPlayer(network, precision=precision)
    got = player.run(x).reshape(logits.shape)
    for each in nodes:
        if each.op == "LIF":
            spikes = wanted[each.outputs[0]]
            assert not lively or 0.01 < spikes.mean() < 0.99
            np.testing.assert_array_equal(player.spikes[each.name].ravel(), spikes.ravel(), err_msg=each.name)
    np.testing.assert_array_equal(got, logits)
    return player


def dtypes(player: GpuPlayer, name: str) -> set[str]:
    """Types of the buffers of a name."""
    return {buffer.dtype for buffer in player.program.buffers() if buffer.name == name}


@pytest.mark.parametrize(
    ("channels", "precision"), [(1, "fp32"), (31, "fp16"), (32, "fp32"), (33, "fp16"), (65, "fp32")]
)
def test_packed_rows_of_any_length_are_written_convolved_pooled_and_summed(channels: int, precision: Precision) -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("MaxPool", "flat", "pooled", **HALVES),
        node("Conv", "pooled w b", "c", **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("LIF", "x zero", "fired", params=SOFT),
        node("Reshape", "fired tokens", "rows"),
        node("Transpose", "rows", "turned", perm=[0, 1, 3, 2]),
        node("MatMul", "turned m", "product"),
        node("LIF", "product zero", "last", params=SOFT),
        node("ReduceMean", "last inner", "means"),
        node("ReduceSum", "means outer", "logits"),
    ]
    shape = {"frames": (T, channels, 6, 5), "steps": (T, 1, channels, 3, 3), "tokens": (T, 1, channels, 9)}
    constants = {name: np.array(extents) for name, extents in shape.items()}
    constants |= {"w": weights(channels, channels, 3, 3), "b": weights(channels)}
    constants |= {"m": weights(channels, channels + 1), "inner": np.array([2]), "outer": np.array([0])}
    player = check(nodes, drive(T, 1, channels, 6, 5), constants, precision=precision, lively=channels > 1)
    assert {buffer.dtype for buffer in (tap.view.buffer for tap in player.program.taps)} == {PACKED}
    stored = {buffer.dtype for buffer in player.program.weights if buffer.name.endswith(".columns")}
    assert stored == {"float16" if precision == "fp16" else "float32"}


@pytest.mark.parametrize("part", ["q", "k"])
@pytest.mark.parametrize("width", [8, 33])
def test_layers_read_slices_that_begin_or_end_inside_a_word(width: int, part: str) -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Split", "s", "q k v", axis=2, num_outputs=3),
        node("Reshape", f"{part} frames", "flat"),
        node("Conv", "flat w", "c", **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("LIF", "x zero", "fired", params=SOFT),
        node("Add", "q v", "counts"),
        node("Add", "counts fired", "logits"),
    ]
    constants = {
        "w": weights(width, width, 3, 3),
        "frames": np.array([T, width, 4, 5]),
        "steps": np.array([T, 1, width, 4, 5]),
    }
    check(nodes, drive(T, 1, 3 * width, 4, 5), constants)


@pytest.mark.parametrize("outputs", [70, 128, 160])
def test_groups_of_threads_compute_several_words_of_channels(outputs: int) -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("Conv", "flat w", "c", **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("LIF", "x zero", "fired", params=SOFT),
        node("ReduceMean", "fired axes", "logits"),
    ]
    height, width = 23, 23
    constants = {
        "w": weights(outputs, 5, 3, 3),
        "frames": np.array([2, 5, height, width]),
        "steps": np.array([2, 1, outputs, height, width]),
        "axes": np.array([3, 4]),
    }
    player = check(nodes, drive(2, 1, 5, height, width), constants)
    (spec,) = [each for each in player.program.specs.values() if isinstance(each, GpuLinearSpec)]
    assert spec.words == {70: 3, 128: 4, 160: 1}[outputs]


def test_a_static_image_is_convolved_once_for_all_time_steps() -> None:
    channels = 33
    nodes = [
        node("Expand", "input wide", "shown"),
        node("Reshape", "shown frames", "flat"),
        node("Conv", "flat w b", "c", **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("LIF", "x zero", "s", params=SOFT),
        node("MatMul", "s m", "logits"),
    ]
    constants = {
        "wide": np.array([T, 1, 2, 6, 5]),
        "frames": np.array([T, 2, 6, 5]),
        "steps": np.array([T, 1, channels, 6, 5]),
        "w": weights(channels, 2, 3, 3),
        "b": weights(channels),
        "m": weights(5, 3),
    }
    player = check(nodes, np.round(drive(1, 1, 2, 6, 5)), constants)
    assert player.program.input.elements == 2 * 6 * 5


@pytest.mark.parametrize(("heads", "depth", "tokens"), [(2, 5, 67), (3, 17, 9), (1, 7, 1), (2, 32, 12)])
def test_attention_of_any_heads_is_exact(heads: int, depth: int, tokens: int) -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s shape", "parts"),
        node("Split", "parts", "q k v", axis=2, num_outputs=3),
        node("Transpose", "k", "kt", perm=[0, 1, 2, 4, 3]),
        node("MatMul", "v kt", "first"),
        node("MatMul", "first q", "product"),
        node("Mul", "product scale", "scaled"),
        node("Reshape", "scaled joined", "current"),
        node("LIF", "current zero", "a", params=SOFT),
        node("Mul", "a three", "logits"),
    ]
    constants = {
        "shape": np.array([T, 1, 3 * heads, depth, tokens]),
        "joined": np.array([T, 1, heads * depth, tokens]),
        "scale": np.asarray(np.float32(10.3 / (depth * tokens))),
        "three": np.asarray(np.float32(3)),
    }
    player = check(nodes, drive(T, 1, 3 * heads * depth, 1, tokens, rate=0.5), constants)
    assert "attention" in player.kernels()


@pytest.mark.parametrize(("channels", "packed"), [(7, False), (33, True)])
def test_tokens_of_spikes_are_taken_out_and_put_back(channels: int, packed: bool) -> None:
    height, width, kept = 5, 4, 9
    shape = (T, 1, channels, height, width)
    nodes = [node("LIF", "input zero", "s", params=LIFParams()), *pattern(kept, height * width, source="s")]
    if packed:  # what is computed are spikes too
        computed = next(index for index, each in enumerate(nodes) if each.name == "computed")
        nodes[computed] = node("LIF", "taken zero", "computed", params=LIFParams(v_threshold=0.5))
    player = check(nodes, drive(*shape), pattern_constants(kept, shape))
    assert dtypes(player, "s") == {PACKED}
    assert dtypes(player, "computed") == {PACKED} or not packed


def test_arithmetic_of_packed_spikes_and_bytes_is_that_of_numbers() -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Add", "s s", "counts"),
        node("Mul", "counts s", "bytes"),
        node("Div", "bytes third", "divided"),
        node("Sub", "divided s", "less"),
        node("Mul", "less third", "scaled"),
        node("Add", "scaled row", "logits"),
    ]
    constants = {"third": np.asarray(np.float32(1 / 3)), "row": weights(33, 1, 1)}
    check(nodes, drive(T, 1, 33, 4, 5), constants)


@pytest.mark.parametrize(
    "params",
    [LIFParams(tau=3.0, v_threshold=1 / 3), LIFParams(tau=4.0, decay_input=False, v_reset=-0.3), SOFT],
    ids=str,
)
def test_neurons_compute_with_constants_of_all_their_bits(params: LIFParams) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (T, 1, 33, 4, 5)).astype(np.float32)
    x.ravel()[:64] = np.float32(params.v_threshold) * rng.integers(1, 4, 64)
    nodes = [node("LIF", "input zero", "s", params=params), node("Mul", "s third", "logits")]
    constants = {"zero": np.asarray(np.float32(params.v_initial)), "third": np.asarray(np.float32(1 / 3))}
    check(nodes, x, constants)


@pytest.mark.parametrize(("largest", "unpacks", "outputs"), [(127, False, 33), (31, True, 64), (3, True, 33)])
def test_integer_layers_sum_exactly_and_unpack_narrow_weights_once(largest: int, unpacks: bool, outputs: int) -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("ConvInteger", "flat w", "sums", **CONVOLUTION),
        node("Cast", "sums", "real", to=FLOAT),
        node("Mul", "real scale", "scaled"),
        node("Add", "scaled bias", "current"),
        node("MaxPool", "current", "pooled", **HALVES),
        node("Reshape", "pooled steps", "x"),
        node("LIF", "x zero", "fired", params=LIFParams(v_threshold=0.5, tau=3.0, v_reset=None)),
        node("Mul", "fired third", "logits"),
    ]
    rng = np.random.default_rng(5)
    constants = {
        "w": integers(outputs, 9, 3, 3, largest=largest),
        "scale": (rng.uniform(0.05, 0.2, (1, outputs, 1, 1)) / largest).astype(np.float32),
        "bias": rng.normal(0.3, 0.2, (1, outputs, 1, 1)).astype(np.float32),
        "frames": np.array([T, 9, 7, 6]),
        "steps": np.array([T, 1, outputs, 4, 3]),
        "third": np.asarray(np.float32(1 / 3)),
    }
    player = check(nodes, drive(T, 1, 9, 7, 6), constants)
    prepared = [call.symbol.rpartition("_")[0] for call in player.program.calls if call.prepares]
    assert prepared == ["unpack"] * unpacks


def test_weights_without_zeros_are_expanded_when_the_network_is_loaded() -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("MatMul", "s m", "c"),
        node("LIF", "c zero", "fired", params=SOFT),
        node("MatMul", "fired m", "logits"),
    ]
    m = weights(33, 33)
    m[np.random.default_rng(0).random(m.shape) < 0.8] = 0
    player = check(nodes, drive(T, 1, 7, 33), {"m": m}, precision="fp16")
    assert player.program.expansions


def test_fp16_weights_are_rounded_and_sums_are_not() -> None:
    m = np.random.default_rng(0).normal(0, 0.2, (65, 33)).astype(np.float32)
    nodes = [node("LIF", "input zero", "s", params=LIFParams()), node("MatMul", "s m", "logits")]
    x = drive(1, 1, 6, 65)
    known: dict[str, Any] = {"m": m, "zero": np.asarray(np.float32(0))}
    player = GpuPlayer(graph(nodes, input_shape=x.shape, output_shape=(1, 1, 6, 33), constants=known), precision="fp16")
    rounded = compute(nodes, x, {**known, "m": m.astype(np.float16)})["logits"]
    np.testing.assert_allclose(player.run(x).reshape(rounded.shape), rounded, rtol=1e-6, atol=1e-6)


def test_grouped_convolutions_read_packed_spikes_and_drive_neurons() -> None:
    channels = 33
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("Conv", "flat w", "c", group=channels, **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("LIF", "x zero", "fired", params=SOFT),
        node("Mul", "fired third", "logits"),
    ]
    constants = {
        "w": weights(channels, 1, 3, 3),
        "frames": np.array([T, channels, 7, 6]),
        "steps": np.array([T, 1, channels, 7, 6]),
        "third": np.asarray(np.float32(1 / 3)),
    }
    check(nodes, drive(T, 1, channels, 7, 6), constants)


@pytest.mark.parametrize("channels", [33, 64])
def test_potentials_stay_from_step_to_step(channels: int) -> None:
    layers = [
        node("LIF", "input v1", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("Conv", "flat w", "c", **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("LIF", "x v2", "fired", params=SOFT),
        node("MaxPool", "c", "pooled", **HALVES),
        node("Reshape", "pooled halves", "half"),
        node("LIF", "half v3", "behind", params=SOFT),
        node("ReduceMean", "behind axes", "logits"),
    ]
    x = drive(5, 1, channels, 6, 5) * np.float32(0.75)
    shapes = {"v1": (1, channels, 6, 5), "v2": (1, channels, 6, 5), "v3": (1, channels, 3, 3)}
    constants = {"w": weights(channels, channels, 3, 3), "axes": np.array([3, 4])}

    def sized(steps: int) -> dict[str, Array]:
        extents = {"frames": (channels, 6, 5), "steps": (1, channels, 6, 5), "halves": (1, channels, 3, 3)}
        return {**constants, **{name: np.array((steps, *extent)) for name, extent in extents.items()}}

    wanted = compute(layers, x, {**sized(5), **{name: np.zeros(1, np.float32) for name in shapes}})
    step = (1, *x.shape[1:])
    network = graph(layers, input_shape=step, output_shape=(1, 1, channels, 1, 1), constants=sized(1), states=shapes)
    player = GpuPlayer(network)
    for frame, logits in zip(x, wanted["logits"], strict=True):
        np.testing.assert_array_equal(player.run(frame[None]).reshape(logits.shape), logits)
    for name in ("s", "fired", "behind"):
        assert 0.01 < wanted[name].mean() < 0.99
        np.testing.assert_array_equal(player.spikes[name].ravel(), wanted[name][-1].ravel())


@pytest.mark.parametrize("channels", [10, 64])
def test_values_with_several_readers_are_the_same_for_all_of_them(channels: int) -> None:
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Reshape", "s frames", "flat"),
        node("Conv", "flat w", "c", **CONVOLUTION),
        node("Reshape", "c steps", "x"),
        node("Add", "x input", "r"),  # a residual stream of real numbers
        node("LIF", "r zero", "first", params=SOFT),
        node("Reshape", "r frames", "r_flat"),
        node("MaxPool", "r_flat", "p", **HALVES),
        node("Reshape", "p halves", "pooled"),
        node("LIF", "pooled zero", "second", params=LIFParams(v_threshold=2.0)),
        node("LIF", "pooled zero", "third", params=LIFParams(v_threshold=2.5, v_reset=None)),
        node("Add", "second third", "counts"),
        node("Add", "counts counts", "twice"),
        node("ReduceSum", "twice axes", "totals"),
        node("Mul", "first factor", "scaled"),
        node("Add", "scaled r", "sums"),
        node("Mul", "sums scaled", "squares"),
        node("Add", "squares totals", "logits"),
    ]
    constants = {
        "w": weights(channels, channels, 3, 3),
        "frames": np.array([T, channels, 6, 5]),
        "steps": np.array([T, 1, channels, 6, 5]),
        "halves": np.array([T, 1, channels, 3, 3]),
        "factor": np.asarray(np.float32(1 / 3)),
        "axes": np.array([3, 4]),
    }
    check(nodes, drive(T, 1, channels, 6, 5), constants)


def test_a_tour_through_layouts_ends_where_numpy_does() -> None:
    """Transposed, sliced and expanded values that elementwise kernels read in other orders than they were stored in."""
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("Transpose", "s", "turned", perm=[0, 1, 3, 4, 2]),
        node("Mul", "turned row", "scaled"),
        node("Transpose", "scaled", "back", perm=[0, 1, 4, 2, 3]),
        node("Add", "back s", "sums"),
        node("Split", "sums", "one_half other_half", axis=2, num_outputs=2),
        node("LIF", "one_half zero", "fired", params=SOFT),
        node("Sub", "other_half fired", "less"),
        node("ReduceMean", "less axes", "means"),
        node("Add", "less means", "logits"),
    ]
    constants = {"row": weights(4, 1), "axes": np.array([0])}
    check(nodes, drive(T, 1, 66, 4, 5), {**constants, "row": weights(66)})
