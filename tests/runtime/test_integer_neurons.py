"""Networks whose neurons compute in integers: the same spikes and logits as in ONNX Runtime, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from svitkit.boards.board import MOST_THREADS, load_board
from svitkit.compress.evaluate import load_batches
from svitkit.compress.layer_rows import linear_layers
from svitkit.compress.membranes import membrane_grids, with_membranes
from svitkit.compress.quantize import CalibratedRounding, uniform_bits
from svitkit.data import Dataset, load_data
from svitkit.lif import LIFParams
from svitkit.lif_integer import CURRENT_FRACTION, STATE_DTYPES, IntegerLIF, Membrane, integer_lif_step
from svitkit.manifest import Manifest, Mode
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.families import build_family
from svitkit.models.run import example_input
from svitkit.proven import build_proven, export_proven, samples
from svitkit.runtime.build import build_bundle
from svitkit.runtime.cost_model import Method
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.pipeline import compile_network
from svitkit.zoo import ZOO
from tests.export.conftest import FAMILIES, build, describe, liven
from tests.export.quantized import quantize, quantize_neurons
from tests.export.test_integer_neurons import net
from tests.runtime.playing import Player, graph, node
from tests.runtime.recordings import (
    assert_lively,
    assert_same_bits,
    by_board,
    by_onnx_runtime,
    by_session,
    emulated,
)
from tests.runtime.test_integer_parity import IMAGES, Case, case, kinds

T, FLOAT, INT32 = 4, 1, 6
Array = NDArray[Any]


def bundle(network: Case, out: Path, prefer: Method | None = None) -> Manifest:
    """Builds a bundle for this machine, with one method wherever it can be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("svitkit.runtime.build.compile_network", partial(compile_network, prefer=prefer))
        return build_bundle(network.onnx, load_board("host"), out, golden=network.inputs[:2])


@pytest.mark.parametrize(
    ("bits", "membrane_bits", "prefer", "mode"),
    [
        (2, 4, "rows", "sequence"),
        (6, 16, "dense", "step"),
        pytest.param(8, 16, "rows", "step", marks=pytest.mark.slow),
        pytest.param(3, 8, "dense", "sequence", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_spikes_and_logits_equal_onnx_runtime_bit_for_bit(
    tmp_path: Path, family: str, bits: int, membrane_bits: int, prefer: Method, mode: Mode
) -> None:
    network = case(quantize_neurons(build(family), bits, membrane_bits), tmp_path / "model.onnx", mode=mode)
    manifest = bundle(network, tmp_path / "bundle", prefer)
    assert ("event" in kinds(manifest)) == (prefer == "rows")
    assert manifest.floating_point == ()
    sizes = {"int16": 2, "int8": 1}
    states = sum(
        int(np.prod(layer.state_shape)) * sizes[layer.integer.state_dtype]
        for layer in manifest.model.lif_layers
        if layer.integer
    )
    assert (manifest.state_bytes >= states > 0) if mode == "step" else manifest.state_bytes == 0
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


def test_a_manifest_names_the_layers_that_compute_with_real_numbers(tmp_path: Path) -> None:
    network = case(quantize(build("spikformer"), 8), tmp_path / "model.onnx")
    manifest = bundle(network, tmp_path / "bundle")
    neurons = [layer.name for layer in manifest.model.lif_layers]
    assert set(neurons) <= set(manifest.floating_point)
    assert "head" not in manifest.floating_point


@pytest.mark.parametrize("between", ["sum", "product"])
@pytest.mark.parametrize("options", [{}, {"v_reset": None}, {"tau": 4.0, "decay_input": False}], ids=str)
def test_neurons_behind_shortcuts_and_products_equal_onnx_runtime(
    tmp_path: Path, between: str, options: dict[str, Any]
) -> None:
    checkpoint = quantize_neurons(net(describe, between, **options), 4, 8)
    network = case(checkpoint, tmp_path / "model.onnx", count=30)
    assert_lively(network.wanted)
    bundle(network, tmp_path / "bundle")
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


def test_a_map_of_49_tokens_is_averaged_by_halves_for_real_neurons(tmp_path: Path) -> None:
    told = {**FAMILIES["spike-driven-transformer"], "img_size_h": 28, "img_size_w": 28, "in_channels": 1}
    told |= {"embed_dims": 16, "num_heads": 2, "pooling_stat": "0110"}
    model = build_family("spike-driven-transformer", told)
    liven(model, torch.randn(T, 8, 1, 28, 28, generator=torch.Generator().manual_seed(1)))
    checkpoint = describe(model, family="spike-driven-transformer", shape=(1, 28, 28))
    for made in (quantize(checkpoint, 4), quantize_neurons(checkpoint, 4, 8)):
        folder = tmp_path / str(len(made.spec.quantization.membranes))  # type: ignore[union-attr]
        folder.mkdir()
        network = case(made, folder / "model.onnx")
        halved = [n for n in onnx.load(network.onnx).graph.node if n.op_type == "Split" and "halves" in n.name]
        assert bool(halved) != bool(made.spec.quantization.membranes)  # type: ignore[union-attr]
        bundle(network, folder / "bundle")
        assert_same_bits(network.wanted, by_session(folder / "bundle", network.inputs))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Callable[[int], Case]:
    """The packaged network with integer weights and neurons, and all test and some training images."""

    @functools.cache
    def make(bits: int) -> Case:
        path = tmp_path_factory.mktemp("trained") / "model.onnx"
        original = load_checkpoint(ZOO["digits-spikformer"])
        spec, example = original.spec, example_input(original.spec)
        calibration = load_batches(digits, "train", timesteps=spec.timesteps, limit=32)
        images = torch.cat([x for x, _ in calibration], 1)
        rounding = CalibratedRounding(original.model, images, spec.normalization, static=spec.static_input)
        network = rounding.quantize(uniform_bits(original.model, example, bits))
        grids = membrane_grids(original.model, MEMBRANE_OF[bits])
        full = with_membranes(network, linear_layers(original.model, example), grids)
        checkpoint = Checkpoint(model=full.model, spec=replace(spec, quantization=full.spec), quantized=full.weights)
        metadata = export_proven(checkpoint, path, dataset=digits)
        test = samples(digits, "test", metadata, limit=IMAGES)
        inputs = np.concatenate([test, samples(digits, "train", metadata, limit=IMAGES - len(test))])
        return Case(path, inputs, by_onnx_runtime(path, inputs))

    return make


MEMBRANE_OF = {2: 16, 3: 8, 4: 4, 6: 16, 8: 8}
FAST = {("host", 4), ("qemu-cortex-a53", 2), ("qemu-cortex-a72", 8)}
BOARDS = [
    pytest.param(bits, board, marks=[] if (board, bits) in FAST else pytest.mark.slow)
    for bits in MEMBRANE_OF
    for board in ("host", "qemu-cortex-a53", "qemu-cortex-a72")
]


@pytest.mark.parametrize(("bits", "board"), BOARDS)
def test_a_trained_network_equals_onnx_runtime_on_500_images(
    trained: Callable[[int], Case], digits: Dataset, tmp_path: Path, bits: int, board: str
) -> None:
    network = trained(bits)
    assert len(network.inputs) == IMAGES
    assert_lively(network.wanted)
    build_proven(network.onnx, load_board(board), tmp_path / "bundle", digits)
    if board == "host":
        for threads in {1, min(load_board("host").cores, MOST_THREADS)}:
            assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs, threads=threads))
        return
    with emulated(board) as transport:
        assert_same_bits(network.wanted, by_board(tmp_path / "bundle", network.inputs, transport, tmp_path))


INPUTS, OUTPUTS, H, W = 5, 70, 7, 6
NEURON = LIFParams()


def drive(seed: int = 1) -> Array:
    """Currents of which a share makes a neuron fire."""
    fires = np.random.default_rng(seed).random((T, 1, INPUTS, H, W)) < 0.4
    return np.where(fires, 2.0, 0.0).astype(np.float32)


def random_weight(seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-127, 128, (OUTPUTS, INPUTS, 3, 3)).astype(np.int8)


def convolved(x: Array, weight: Array) -> Array:
    """Sums (T, OUTPUTS, H, W) int64 of the spikes of plain neurons without memory of currents of 0 and 2."""
    spikes = torch.from_numpy((x[:, 0] >= 2).astype(np.float64))
    return F.conv2d(spikes, torch.from_numpy(weight).double(), padding=1).numpy().astype(np.int64)


def sums_of(*weights: str) -> list[Node]:
    """Spikes, and integer convolutions of them with several weights."""
    attributes = {"strides": [1, 1], "pads": [1] * 4, "kernel_shape": [3, 3]}
    nodes = [node("LIF", "input zero", "s", params=NEURON), node("Reshape", "s frames", "flat")]
    return nodes + [node("ConvInteger", f"flat {weight}", f"sums_{weight}", **attributes) for weight in weights]


def known(**more: Any) -> dict[str, Array]:
    fixed = {"zero": np.float32(0), "one": np.float32(1), "frames": np.array([T, INPUTS, H, W])}
    return {name: np.asarray(value) for name, value in {**fixed, **more}.items()}


def ends() -> list[Node]:
    return [node("Cast", "y", "real", to=FLOAT), node("Mul", "real one", "logits")]


def test_a_max_pool_of_integers_takes_the_largest_of_negative_ones() -> None:
    weight, x = -abs(random_weight()) - 1, drive()
    weight[::2] = random_weight(3)[::2]
    pool = node("MaxPool", "sums_real", "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    nodes = [*sums_of("w"), node("Cast", "sums_w", "sums_real", to=FLOAT), pool]
    nodes += [node("Cast", "pooled", "y", to=INT32), *ends()]
    wanted = F.max_pool2d(torch.from_numpy(convolved(x, weight)).double(), 3, 2, 1).numpy()
    assert (wanted < 0).any()
    assert (wanted > 0).any()
    player = Player(graph(nodes, input_shape=x.shape, output_shape=wanted.shape, constants=known(w=weight)))
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    assert "max_pool" in player.kernels()


def truncated(a: Array, b: Any) -> Array:
    return np.sign(a) * np.sign(b) * (abs(a) // abs(b))


OPERATORS = [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", truncated)]


@pytest.mark.parametrize(("operator", "function"), OPERATORS, ids=[name for name, _ in OPERATORS])
def test_arithmetic_of_integers_is_exact_and_divides_towards_zero(
    operator: str, function: Callable[[Array, Any], Array]
) -> None:
    x, weights = drive(), {"w": random_weight(), "d": random_weight(1)}
    bias = np.full((1, OUTPUTS, 1, 1), 4001, np.int32)  # no divisor is 0
    bias[:, ::2] = -4001
    nodes = [*sums_of("w", "d"), node("Mul", "sums_d unit", "scaled"), node("Add", "scaled bias", "other")]
    nodes += [node(operator, "sums_w other", "y"), *ends()]
    sums, other = convolved(x, weights["w"]), convolved(x, weights["d"]) + bias
    assert (other != 0).all()
    wanted = function(sums, other)
    if operator == "Div":
        nodes = [replace(n, inputs=("big", "other")) if n.op == "Div" else n for n in nodes]
        nodes.insert(3, node("Mul", "sums_w large", "big"))
        wanted = function(sums * 1009, other)
        assert (wanted != np.floor(sums * 1009 / other)).any()
    assert abs(wanted).max() < 2**31
    constants = known(**weights, bias=bias, unit=np.int32(1), large=np.int32(1009))
    player = Player(graph(nodes, input_shape=x.shape, output_shape=wanted.shape, constants=constants))
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted.astype(np.float32))
    assert operator.lower() in player.kernels()


@pytest.mark.parametrize("constant", [7, -3])
@pytest.mark.parametrize(("operator", "function"), OPERATORS, ids=[name for name, _ in OPERATORS])
def test_arithmetic_of_integers_with_a_constant_is_exact(
    operator: str, function: Callable[[Array, Any], Array], constant: int
) -> None:
    x, weights = drive(), {"w": random_weight(), "d": random_weight(1)}
    nodes = [*sums_of("w", "d"), node("Add", "sums_w sums_d", "both"), node(operator, "both constant", "y"), *ends()]
    both = convolved(x, weights["w"]) + convolved(x, weights["d"])
    constants = known(**weights, constant=np.int32(constant))
    player = Player(graph(nodes, input_shape=x.shape, output_shape=both.shape, constants=constants))
    np.testing.assert_array_equal(player.run(x).reshape(both.shape), function(both, constant))


def by_definition(x: Array, neuron: IntegerLIF) -> Array:
    """Spikes (T, ...) bool from rest."""
    v, fired = np.zeros(x.shape[1:], np.int64), []
    for step in x:
        s, v = integer_lif_step(step, v, neuron)
        fired.append(s)
    return np.stack(fired)


def layer_of(bits: int, v_reset: float | None, decay_input: bool) -> IntegerLIF:
    params = LIFParams(tau=4.0, v_threshold=0.75, v_reset=v_reset, decay_input=decay_input)
    membrane = Membrane(bits=bits, fraction={16: 12, 8: 6, 4: 3}[bits])  # type: ignore[arg-type]
    return IntegerLIF(params=params, membrane=membrane, current_fraction=CURRENT_FRACTION)


every_neuron = pytest.mark.parametrize(
    ("bits", "v_reset", "decay_input"), [(16, 0.0, True), (8, None, False), (4, 0.0, False), (4, None, True)]
)


@pytest.mark.parametrize("form", ["fused", "fused, divided", "pooled", "pooled, divided", "alone"])
@pytest.mark.parametrize("keeps_state", [False, True])
@every_neuron
def test_integer_neurons_equal_the_definition(
    bits: int, v_reset: float | None, decay_input: bool, keeps_state: bool, form: str
) -> None:
    neuron = layer_of(bits, v_reset, decay_input)
    x, weight, rng = drive(), random_weight(), np.random.default_rng(4)
    drop = 3 if "divided" in form else 0
    factor = rng.integers(100, 400, (1, OUTPUTS, 1, 1)).astype(np.int32) << drop
    factor += drop and rng.integers(0, 8, factor.shape).astype(np.int32)
    bias = rng.integers(-20000, 40000, factor.shape).astype(np.int32)
    sums = convolved(x, weight)
    scaled = sums * factor + (bias << drop)
    lift = int(abs(scaled).max() >> drop) + 1
    constants = known(w=weight, factor=factor, large=np.int32(1 << drop), lift=np.int32(-lift))
    constants["bias"] = (bias << drop) + ((lift << drop) + (1 << drop) // 2 if drop else 0)
    constants["bias"] = constants["bias"].astype(np.int32)
    nodes, last, current = sums_of("w"), "sums_w", scaled
    if "pooled" in form:
        pool = node("MaxPool", "real_w", "pooled_w", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        nodes += [node("Cast", "sums_w", "real_w", to=FLOAT), pool, node("Cast", "pooled_w", "max_w", to=INT32)]
        last, current = "max_w", F.max_pool2d(torch.from_numpy(scaled).double(), 3, 2, 1).numpy().astype(np.int64)
    nodes += [node("Mul", f"{last} factor", "scaled"), node("Add", "scaled bias", "biased")]
    last = "biased"
    if drop:
        nodes += [node("Div", "biased large", "quotient"), node("Add", "quotient lift", "lowered")]
        last, current = "lowered", (current + (1 << drop) // 2) >> drop
    if form == "alone":
        nodes += [node("Add", "biased biased", "doubled")]
        last, current = "doubled", 2 * scaled
    current = current[:, None]
    constants["steps"] = np.array((1 if keeps_state else T, *current.shape[1:]))
    constants["frames"][0] = 1 if keeps_state else T
    before = "state" if keeps_state else "rest"
    constants["rest"] = np.zeros((), STATE_DTYPES[bits])
    fired = node("LIF", f"current {before}", "fired", params=neuron.params, integer=neuron)
    nodes += [node("Reshape", f"{last} steps", "current"), fired, node("Mul", "fired one", "logits")]
    wanted = by_definition(current, neuron)
    assert 0.02 < wanted.mean() < 0.98
    shape = tuple(constants["steps"])
    states = {"state": shape[1:]} if keeps_state else None
    frames = (1, *x.shape[1:]) if keeps_state else x.shape
    player = Player(graph(nodes, input_shape=frames, output_shape=shape, constants=constants, states=states))
    got = [player.run(frame[None]) for frame in x] if keeps_state else [player.run(x)]
    np.testing.assert_array_equal(np.concatenate(got).reshape(wanted.shape), wanted)
    for buffer in player.program.states:
        assert (buffer.dtype == STATE_DTYPES[bits]) == (buffer.name == "fired.v")
    kernel = {"pooled": "max_pool_lif", "alone": "lif"}.get(form.split(",")[0], "event_int8_conv_lif")
    assert kernel in player.kernels()[1:]


@every_neuron
def test_integer_neurons_round_real_currents_to_even(bits: int, v_reset: float | None, decay_input: bool) -> None:
    neuron, rng = layer_of(bits, v_reset, decay_input), np.random.default_rng(5)
    x = rng.normal(0.5, 1.0, (T, 1, 6, 45)).astype(np.float32)
    x[..., ::2] = np.rint(x[..., ::2] * 2**CURRENT_FRACTION) / 2**CURRENT_FRACTION + 0.5**17
    nodes = [node("LIF", "input rest", "fired", params=neuron.params, integer=neuron)]
    nodes += [node("Mul", "fired one", "logits")]
    constants = known(rest=np.zeros((), STATE_DTYPES[bits]))
    player = Player(graph(nodes, input_shape=x.shape, output_shape=x.shape, constants=constants))
    wanted = by_definition(np.rint(x.astype(np.float64) * 2**CURRENT_FRACTION).astype(np.int64), neuron)
    assert 0.02 < wanted.mean() < 0.98
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)


def test_a_tie_below_an_odd_threshold_does_not_fire() -> None:
    params = LIFParams(v_threshold=49153 / 2**CURRENT_FRACTION, decay_input=False)
    neuron = IntegerLIF(params=params, membrane=Membrane(bits=8, fraction=6), current_fraction=CURRENT_FRACTION)
    x = (np.full((1, 1, 2, 8), 49152.5) + np.array([[0.0], [1.0]])).astype(np.float32) / 2**CURRENT_FRACTION
    nodes = [node("LIF", "input rest", "fired", params=params, integer=neuron), node("Mul", "fired one", "logits")]
    constants = known(rest=np.zeros((), np.int8))
    player = Player(graph(nodes, input_shape=x.shape, output_shape=x.shape, constants=constants))
    np.testing.assert_array_equal(player.run(x).reshape(2, 8), [[0] * 8, [1] * 8])
