"""Single layers of many shapes, driven by random spikes at many rates: what the costs of work are fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from svitkit.lif import LIFParams
from svitkit.manifest import LIFLayer, ModelMetadata, Normalization, TensorSpec
from svitkit.runtime.import_onnx import Graph, Node

TIMESTEPS = 4
DRIVE = 2.0  # a current that makes a neuron at rest fire at once
Kind = Literal["fp32", "int8", "int4"]
KINDS: tuple[Kind, ...] = ("fp32", "int8", "int4")
LARGEST = {"int8": 127, "int4": 7}
RATES = (0.02, 0.06, 0.15, 0.3, 0.6)


@dataclass(frozen=True, kw_only=True)
class GridLayer:
    """A convolution between neurons.

    Attributes:
        kind: type of its weights.
        inputs, outputs: channels.
        side: rows and columns of its input.
        kernel: 1 or 3, with padding that keeps the size.
        copies: layers of neurons whose spikes are added up before it.
        fires: 0 if no neurons follow it, so that its currents are stored.
    """

    kind: Kind
    inputs: int
    outputs: int
    side: int
    kernel: int
    copies: int = 1
    fires: int = 1


SHAPES = (
    {"inputs": 384, "outputs": 384, "side": 8, "kernel": 1},
    {"inputs": 384, "outputs": 1536, "side": 8, "kernel": 1, "copies": 3},
    {"inputs": 1536, "outputs": 384, "side": 8, "kernel": 1},
    {"inputs": 512, "outputs": 512, "side": 4, "kernel": 1, "copies": 7},
    {"inputs": 128, "outputs": 128, "side": 8, "kernel": 1},
    {"inputs": 96, "outputs": 40, "side": 12, "kernel": 1},
    {"inputs": 64, "outputs": 10, "side": 1, "kernel": 1},
    {"inputs": 48, "outputs": 96, "side": 16, "kernel": 3},
    {"inputs": 192, "outputs": 384, "side": 8, "kernel": 3},
    {"inputs": 96, "outputs": 96, "side": 8, "kernel": 3, "copies": 2},
    {"inputs": 384, "outputs": 128, "side": 4, "kernel": 3},
    {"inputs": 36, "outputs": 24, "side": 6, "kernel": 3},
    {"inputs": 192, "outputs": 192, "side": 8, "kernel": 1, "fires": 0},
    {"inputs": 100, "outputs": 64, "side": 6, "kernel": 1, "fires": 0},
)
SMALL_SHAPES = (
    {"inputs": 128, "outputs": 128, "side": 4, "kernel": 1},
    {"inputs": 256, "outputs": 64, "side": 3, "kernel": 1, "copies": 3},
    {"inputs": 64, "outputs": 256, "side": 3, "kernel": 1},
    {"inputs": 96, "outputs": 40, "side": 3, "kernel": 1},
    {"inputs": 64, "outputs": 10, "side": 1, "kernel": 1},
    {"inputs": 32, "outputs": 64, "side": 6, "kernel": 3},
    {"inputs": 96, "outputs": 64, "side": 4, "kernel": 3, "copies": 2},
    {"inputs": 20, "outputs": 24, "side": 4, "kernel": 3},
    {"inputs": 96, "outputs": 96, "side": 3, "kernel": 1, "fires": 0},
)


def grid_layers(kind: Kind, shapes: tuple[dict[str, int], ...] = SHAPES) -> list[GridLayer]:
    """Returns the layers of the grid with weights of a type; the small shapes are for emulators."""
    return [GridLayer(kind=kind, **shape) for shape in shapes]


def layer_graph(layer: GridLayer, rate: float) -> Graph:
    """A network of that layer: neurons that fire as they are driven, their sum, the layer, and neurons behind it."""
    rng = np.random.default_rng(layer.inputs * layer.outputs)
    pad = layer.kernel // 2
    shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    frames = (TIMESTEPS, layer.inputs, layer.side, layer.side)
    attributes = {"kernel_shape": [layer.kernel] * 2, "pads": [pad] * 4, "strides": [1, 1]}
    constants: dict[str, NDArray[Any]] = {
        "zero": np.zeros((), np.float32),
        "flat": np.array(frames),
        "back": np.array([TIMESTEPS, 1, layer.outputs, layer.side, layer.side]),
        "axes": np.array([0, 3, 4]),
        "bias": rng.normal(0, 0.3, layer.outputs).astype(np.float32).reshape(1, -1, 1, 1),
    }
    nodes = [_node("LIF", "input zero", "all", params=LIFParams())]
    parts = [f"s{index}" for index in range(layer.copies)]
    nodes.append(_node("Split", "all", " ".join(parts), axis=2, num_outputs=layer.copies))
    counts = parts[0]
    for part in parts[1:]:
        nodes.append(_node("Add", f"{counts} {part}", f"{counts}_{part}"))
        counts = f"{counts}_{part}"
    nodes.append(_node("Reshape", f"{counts} flat", "frames"))
    if layer.kind == "fp32":
        constants["w"] = rng.normal(0, 0.05, shape).astype(np.float32)
        nodes.append(_node("Conv", "frames w", "scaled", **attributes))
    else:
        largest = LARGEST[layer.kind]
        constants["w"] = rng.integers(-largest, largest + 1, shape).astype(np.int8)
        constants["scale"] = np.full((1, layer.outputs, 1, 1), 0.1 / largest, np.float32)
        nodes += [_node("ConvInteger", "frames w", "sums", **attributes), _node("Mul", "sums scale", "scaled")]
    nodes += [_node("Add", "scaled bias", "current"), _node("Reshape", "current back", "layer")]
    if layer.fires:
        nodes.append(_node("LIF", "layer zero", "spikes", params=LIFParams()))
    nodes.append(_node("ReduceMean", "spikes axes" if layer.fires else "layer axes", "logits", keepdims=0))
    return _graph(layer, nodes, constants, rate)


def drive(layer: GridLayer, rate: float, count: int) -> NDArray[np.float32]:
    """(count, T, 1, copies * inputs, side, side) float32, currents that make a share of the neurons fire each step."""
    shape = (count, TIMESTEPS, 1, layer.copies * layer.inputs, layer.side, layer.side)
    fires = np.random.default_rng(round(1000 * rate)).random(shape) < rate
    return np.where(fires, DRIVE, 0.0).astype(np.float32)


def _node(op: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    return Node(op, outputs.split()[0], tuple(inputs.split()), tuple(outputs.split()), attributes)


def _graph(layer: GridLayer, nodes: list[Node], constants: dict[str, NDArray[Any]], rate: float) -> Graph:
    shape = (TIMESTEPS, 1, layer.copies * layer.inputs, layer.side, layer.side)
    neurons = LIFLayer(name="all", params=LIFParams(), state_shape=shape[1:], firing_rate=rate)
    metadata = ModelMetadata(
        family="grid",
        mode="sequence",
        timesteps=TIMESTEPS,
        static_input=False,
        input=TensorSpec(name="input", shape=shape),
        output=TensorSpec(name="logits", shape=(1, layer.outputs)),
        lif_layers=(neurons,),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=(),
        parameter_bytes=0,
        original_parameter_bytes=0,
        checkpoint_sha256="",
        plan_sha256=None,
        producer="benchmarks/cost_grid.py",
    )
    return Graph(tuple(nodes), {"input": shape}, {"logits": (1, layer.outputs)}, constants, metadata)
