"""Networks with integer weights as ONNX: integer products everywhere, and the same spikes as in torch."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from svitkit.errors import UnsupportedError
from svitkit.export.pipeline import export_onnx
from svitkit.export.verify import verify
from svitkit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from svitkit.models.quantized import stored_bytes
from svitkit.onnx_lif import INT4_OPSET, ONNX_OPSET
from svitkit.onnx_reference import ReferenceSession
from tests.export.conftest import FAMILIES as ARGUMENTS
from tests.export.conftest import build
from tests.export.quantized import quantize, turn_some_norms

FAMILIES = tuple(ARGUMENTS)
every_family = pytest.mark.parametrize("family", FAMILIES)
every_width = pytest.mark.parametrize("bits", [8, 4])
Wrap = Callable[..., Checkpoint]


def images(count: int, static: bool = True) -> np.ndarray:
    x = np.random.default_rng(7).standard_normal((1 if static else 4, count, 2, 16, 16)).astype(np.float32)
    return np.repeat(x, 4, axis=0) if static else x


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Checkpoint, Path]]:
    folder = tmp_path_factory.mktemp("integer")

    @functools.cache
    def make(family: str, bits: int, mode: Any = "sequence") -> tuple[Checkpoint, Path]:
        path = folder / f"{family}-{bits}-{mode}.onnx"
        checkpoint = quantize(build(family), bits)
        export_onnx(checkpoint, path, mode=mode)
        return checkpoint, path

    return make


@every_family
@every_width
@pytest.mark.parametrize("mode", ["sequence", "step"])
def test_spikes_and_classes_equal_torch(exported: Any, family: str, bits: int, mode: str) -> None:
    checkpoint, path = exported(family, bits, mode)
    report = verify(path, checkpoint, images(30))
    assert min(agreement.agreement for agreement in report.layers) > 0.9999
    assert report.logits_max_abs_diff < 1e-4


@every_family
@every_width
def test_every_layer_is_an_integer_product_with_one_scale_and_one_bias(exported: Any, family: str, bits: int) -> None:
    checkpoint, path = exported(family, bits)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == kinds["Gemm"] == kinds["ReduceMean"] == 0
    assert kinds["QuantizeLinear"] == 1
    weighted = {node.name: node for node in model.graph.node if node.op_type in ("ConvInteger", "MatMulInteger")}
    assert set(weighted) == set(checkpoint.spec.quantization.layers)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert not [node.name for node in products if set(node.input) & set(tensors)]
    for name, width in checkpoint.spec.quantization.layers.items():
        stored = tensors[f"{name}.weight"]
        assert stored.data_type == (onnx.TensorProto.INT4 if width == 4 else onnx.TensorProto.INT8)
        assert (onnx.numpy_helper.to_array(tensors[f"{name}.weight_scale"]) > 0).all()
    assert model.opset_import[0].version == (INT4_OPSET if bits == 4 else ONNX_OPSET)


@every_family
@every_width
def test_parameter_bytes_are_those_of_the_initializers(exported: Any, family: str, bits: int) -> None:
    checkpoint, path = exported(family, bits)
    model = onnx.load(path)
    stored = sum(
        len(tensor.raw_data) for tensor in model.graph.initializer if tensor.data_type != onnx.TensorProto.INT64
    )
    assert stored == checkpoint.parameter_bytes() == ReferenceSession(path).metadata.parameter_bytes
    assert stored < build(family).parameter_bytes() / (3 if bits == 8 else 5)


@pytest.mark.parametrize("family", ["spikformer", "spike-driven-transformer"])
def test_negative_and_zero_norms_leave_positive_scales(tmp_path: Path, family: str) -> None:
    original = build(family)
    model = copy.deepcopy(original.model)
    turn_some_norms(model)
    checkpoint = quantize(replace(original, model=model), 8)
    path = tmp_path / "turned.onnx"
    export_onnx(checkpoint, path)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    name = next(iter(checkpoint.quantized))
    before, after = checkpoint.quantized[name].integers, tensors[f"{name}.weight"]
    np.testing.assert_array_equal(after[::3], -before[::3])
    assert not after[1].any()
    np.testing.assert_array_equal(after[2], before[2])
    assert all((value > 0).all() for key, value in tensors.items() if key.endswith("weight_scale"))
    verify(path, checkpoint, images(10))


def test_a_saved_network_is_exported_as_the_same_file(tmp_path: Path) -> None:
    original = build("qkformer")
    spec = replace(original.spec, arguments=ARGUMENTS["qkformer"])
    checkpoint = quantize(replace(original, spec=spec), 4)
    save_checkpoint(tmp_path / "c", checkpoint.model, checkpoint.spec, quantized=checkpoint.quantized)
    export_onnx(checkpoint, tmp_path / "a.onnx")
    export_onnx(load_checkpoint(tmp_path / "c"), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_bits_differ_from_layer_to_layer(tmp_path: Path) -> None:
    original = build("spikformer")
    bits = {"patch_embed.stages.0.conv_bn.block.0": 7, "blocks.0.mlp.fc1.0": 2, "blocks.0.mlp.fc2.0": 5, "head": 3}
    checkpoint = quantize(original, bits)
    metadata = export_onnx(checkpoint, tmp_path / "mixed.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "mixed.onnx").graph.node)
    assert (kinds["ConvInteger"], kinds["MatMulInteger"]) == (3, 1)
    assert kinds["Conv"] == 6
    stored = {2: 4, 3: 4, 5: 8, 7: 8}  # the file has 4 bits or 8
    wider = sum(
        stored_bytes(weight.integers.size, stored[weight.bits]) - stored_bytes(weight.integers.size, weight.bits)
        for weight in checkpoint.quantized.values()
    )
    assert metadata.parameter_bytes == checkpoint.parameter_bytes() + wider
    verify(tmp_path / "mixed.onnx", checkpoint, images(10))


def test_event_recordings_enter_as_bytes_at_every_step(tmp_path: Path) -> None:
    checkpoint = quantize(build("spikformer", static=False), 8)
    export_onnx(checkpoint, tmp_path / "events.onnx")
    x = np.random.default_rng(0).poisson(2.0, (4, 10, 2, 16, 16)).astype(np.float32)
    verify(tmp_path / "events.onnx", checkpoint, (x - np.float32(0.5)) / np.float32(0.25))


class Net(nn.Module):
    """A linear layer over an odd number of tokens, and a head on their mean; logits for every time step."""

    def __init__(self, *, real: bool = False) -> None:
        super().__init__()
        self.conv = layer.Conv2d(2, 6, 3, step_mode="m")
        self.lif = neuron.LIFNode(step_mode="m", detach_reset=True)
        self.inner = nn.Linear(6, 5)
        self.last = neuron.LIFNode(step_mode="m", detach_reset=True)
        self.head = nn.Linear(5, 10)
        self.real = real

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x) if self.real else self.lif(self.conv(x))
        x = self.last(self.inner(x.flatten(3)[..., :7].transpose(2, 3)))
        return self.head(x.mean(2))


def net(wrap: Wrap, *, real: bool = False) -> Checkpoint:
    torch.manual_seed(0)
    model = Net(real=real)
    nn.init.normal_(model.conv.weight, std=0.5)
    nn.init.normal_(model.inner.weight, std=1.0)
    return wrap(model, family="tests:net", shape=(2, 6, 6))


def test_a_user_class_with_linear_layers_over_tokens(wrap: Wrap, tmp_path: Path) -> None:
    checkpoint = quantize(net(wrap), 8)
    export_onnx(checkpoint, tmp_path / "net.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node)
    assert (kinds["ConvInteger"], kinds["MatMulInteger"], kinds["MatMul"], kinds["ReduceMean"]) == (1, 2, 0, 0)
    x = np.random.default_rng(0).standard_normal((1, 20, 2, 6, 6)).astype(np.float32).repeat(4, axis=0)
    report = verify(tmp_path / "net.onnx", checkpoint, x)
    assert report.logits_max_abs_diff < 1e-5


def test_a_layer_that_reads_real_numbers_is_refused_by_name(wrap: Wrap, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="layer inner are integers, but its input is real numbers"):
        export_onnx(quantize(net(wrap, real=True), 8), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_quantized_layer_that_never_runs_is_refused(wrap: Wrap, tmp_path: Path) -> None:
    checkpoint = net(wrap)
    checkpoint.model.dead = nn.Linear(3, 3)
    with pytest.raises(UnsupportedError, match="the weights of dead are integers"):
        export_onnx(quantize(checkpoint, {"conv": 8, "dead": 8}), tmp_path / "net.onnx")
