"""Scale and bias of integer layers: rounded one after the other, as in ONNX Runtime, and never in one instruction.

Most inputs do not show the difference, for only a current right at the threshold depends on its last bit. Here every
channel that can has such a current: bias = 2 - fl(scale * sum), so that

    fl(fl(scale * sum) + bias) = 2    reaches v = 2 / tau = v_threshold at the first step and fires
    fl(scale * sum + bias)     < 2    does not, as scale * sum is smaller than its rounded value
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from svitkit.boards.board import load_board
from svitkit.export.pipeline import export_onnx
from svitkit.proven import random_samples
from svitkit.runtime.build import build_bundle
from tests.export.conftest import build
from tests.export.quantized import quantize
from tests.runtime.recordings import Array, assert_same_bits, by_board, by_onnx_runtime, by_session, emulated

THRESHOLD_CURRENT = np.float32(2)
DRAWS = 64


def brinks(sums: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draws scales and biases with which sums give the current at which neurons fire.

    Args:
        sums: (channels,) float32, positive integers.
        rng: draws.

    Returns:
        scale, bias: (channels,) float32.
    """
    scale = (rng.uniform(2.2, 3.8, (DRAWS, len(sums))) / sums).astype(np.float32)
    product = scale * sums
    excess = product.astype(np.float64) - scale.astype(np.float64) * sums.astype(np.float64)
    best = excess.argmax(axis=0)[None]
    return np.take_along_axis(scale, best, axis=0)[0], THRESHOLD_CURRENT - np.take_along_axis(product, best, axis=0)[0]


def sums_of(model: onnx.ModelProto, value: str, x: Array) -> Array:
    """What ONNX Runtime computes for an inner value."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([value], {"input": x})[0])


def put_on_the_brink(path: Path, x: Array) -> int:
    """Changes scales and biases of an exported file, layer by layer, and returns how many channels are on the brink."""
    model, rng, count = onnx.load(path), np.random.default_rng(0), 0
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    adds = {node.input[0]: node for node in model.graph.node if node.op_type == "Add"}
    for mul in [node for node in model.graph.node if node.op_type == "Mul" and node.output[0] in adds]:
        scale_tensor, bias_tensor = constants.get(mul.input[1]), constants.get(adds[mul.output[0]].input[1])
        if scale_tensor is None or bias_tensor is None or mul.name.startswith("head"):
            continue
        scale, bias = (numpy_helper.to_array(tensor).copy() for tensor in (scale_tensor, bias_tensor))
        sums = sums_of(model, mul.input[0], x)[0]  # of the first time step
        axis = sums.ndim - scale.ndim + int(np.argmax(scale.shape))
        largest = np.moveaxis(sums, axis, 0).reshape(scale.size, -1).max(axis=1)
        chosen = (largest > 0) & (np.log2(np.maximum(largest, 1)) % 1 > 0)  # products with powers of two are exact
        scale.reshape(-1)[chosen], bias.reshape(-1)[chosen] = brinks(largest[chosen], rng)
        for tensor, array in ((scale_tensor, scale), (bias_tensor, bias)):
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        count += int(chosen.sum())
    onnx.save(model, path)
    return count


@pytest.mark.parametrize("board", ["host", "qemu-cortex-a72"])
def test_currents_at_the_threshold_fire_as_in_onnx_runtime(tmp_path: Path, board: str) -> None:
    path, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    metadata = export_onnx(quantize(build("spikformer"), 8), path)
    x = random_samples(metadata, count=1, seed=0)
    assert put_on_the_brink(path, x[0]) > 100
    wanted = by_onnx_runtime(path, x)
    if board == "host":
        build_bundle(path, load_board(board), bundle, golden=x)
        assert_same_bits(wanted, by_session(bundle, x))
        return
    with emulated(board) as transport:
        build_bundle(path, load_board(board), bundle, golden=x)
        assert_same_bits(wanted, by_board(bundle, x, transport, tmp_path))
