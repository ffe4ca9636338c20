"""The exported file: parity with torch for every family and mode, and a clean graph."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from svitkit.errors import UnsupportedError
from svitkit.export.metadata import read_metadata
from svitkit.export.pipeline import export_onnx
from svitkit.export.verify import verify
from svitkit.models.neurons import lif_params, neuron_layers
from svitkit.models.run import forward_logits
from svitkit.onnx_check import ALLOWED_OPS
from svitkit.onnx_lif import LIF_DOMAIN, read_lif
from svitkit.onnx_reference import ReferenceSession

FAMILIES = ("spikformer", "spike-driven-transformer", "qkformer")
NO_CLEAN_GRAPH = {
    "Identity",
    "Cast",
    "CastLike",
    "Dropout",
    "BatchNormalization",
    "Shape",
    "Gather",
    "Where",
    "Flatten",
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_mode = pytest.mark.parametrize("mode", ["sequence", "step"])


def images(count: int, static: bool = True) -> np.ndarray:
    generator = np.random.default_rng(7)
    x = generator.standard_normal((1 if static else 4, count, 2, 16, 16)).astype(np.float32)
    return np.repeat(x, 4, axis=0) if static else x


@every_family
@every_mode
def test_spikes_and_classes_equal_torch(network, exported, family, mode):
    report = verify(exported(family, mode), network(family), images(200))
    assert report.samples == 200
    assert report.argmax_agreement == 1
    assert [layer.name for layer in report.layers if layer.agreement < 0.999] == []


@every_family
def test_every_layer_fires_and_is_silent_in_the_test_networks(exported, family):
    run = ReferenceSession(exported(family), spikes=True).run(images(1)[:, 0])
    assert len(run.spikes) > 9
    assert {name: rate for name, spikes in run.spikes.items() if not 0 < (rate := spikes.mean()) < 1} == {}


@every_family
@every_mode
def test_the_file_has_one_node_per_layer_of_neurons_with_its_constants(network, exported, family, mode):
    model = onnx.load(exported(family, mode))
    nodes = {node.name: read_lif(node) for node in model.graph.node if node.domain == LIF_DOMAIN}
    layers = {name: lif_params(node) for name, node in neuron_layers(network(family).model).items()}
    assert sum(node.domain == LIF_DOMAIN for node in model.graph.node) == len(layers)
    assert nodes == layers


@every_family
@every_mode
def test_the_file_is_clean_checked_and_runs_as_it_is(exported, family, mode):
    path = exported(family, mode)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    assert set(kinds) - {"LIF"} <= ALLOWED_OPS - NO_CLEAN_GRAPH
    read = {name for node in model.graph.node for name in node.input}
    outputs = {value.name for value in model.graph.output}
    assert [node.name for node in model.graph.node if not set(node.output) & (read | outputs)] == []
    assert [tensor.name for tensor in model.graph.initializer if tensor.name not in read] == []
    assert all(
        [item.name for item in node.attribute] == ["value"] for node in model.graph.node if node.op_type == "Constant"
    )
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@every_family
def test_parameter_bytes_in_the_file_equal_those_of_the_network(network, exported, family):
    model = onnx.load(exported(family))
    stored = sum(len(t.raw_data) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    assert stored == network(family).parameter_bytes() == read_metadata(exported(family)).parameter_bytes


@every_family
def test_step_mode_over_all_steps_equals_sequence_mode(exported, family):
    x = images(1)[:, 0]
    sequence = ReferenceSession(exported(family), spikes=True).run(x)
    step = ReferenceSession(exported(family, "step"), spikes=True).run(x)
    np.testing.assert_allclose(step.logits, sequence.logits, atol=1e-5)
    assert step.spikes.keys() == sequence.spikes.keys()
    for name, spikes in sequence.spikes.items():
        np.testing.assert_array_equal(step.spikes[name], spikes, err_msg=name)


def test_every_state_is_an_input_and_an_output_in_step_mode(exported):
    model = onnx.load(exported("spikformer", "step"))
    names = [node.name for node in model.graph.node if node.domain == LIF_DOMAIN]
    assert [value.name for value in model.graph.input] == ["input", *[f"{name}.v_in" for name in names]]
    assert [value.name for value in model.graph.output] == ["logits", *[f"{name}.v_out" for name in names]]


@every_mode
def test_event_recordings_differ_from_step_to_step(network, exported, mode):
    path = exported("spikformer", mode, static=False)
    assert read_metadata(path).input.shape == ((4, 1, 2, 16, 16) if mode == "sequence" else (1, 1, 2, 16, 16))
    report = verify(path, network("spikformer", static=False), images(20, static=False))
    assert report.argmax_agreement == 1


def test_the_image_enters_once_in_sequence_mode(exported):
    model = onnx.load(exported("spikformer"))
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 2, 16, 16]
    assert [node.op_type for node in model.graph.node if "input" in node.input] == ["Expand"]


def test_metadata_hold_rates_measured_in_torch(network, tmp_path):
    checkpoint = network("spikformer")
    calibration = torch.from_numpy(images(8))
    told = export_onnx(checkpoint, tmp_path / "model.onnx", calibration=calibration)
    assert told == read_metadata(tmp_path / "model.onnx")
    first, spikes = "patch_embed.stages.0.neuron", []
    hook = checkpoint.model.get_submodule(first).register_forward_hook(
        lambda _m, _i, out: spikes.append(out.mean().item())
    )
    with torch.no_grad():
        forward_logits(checkpoint.model, calibration)
    hook.remove()
    assert told.lif_layers[0].name == first
    assert told.lif_layers[0].firing_rate == pytest.approx(spikes[0])
    assert all(layer.firing_rate is not None and 0 <= layer.firing_rate <= 1 for layer in told.lif_layers)


def test_exporting_leaves_the_network_as_it_was(network, tmp_path):
    checkpoint = network("spikformer")
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    modules = list(checkpoint.model.modules())
    export_onnx(checkpoint, tmp_path / "model.onnx")
    assert list(checkpoint.model.modules()) == modules
    assert all(torch.equal(before[name], value) for name, value in checkpoint.model.state_dict().items())


def test_the_same_network_gives_the_same_bytes(network, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        export_onnx(network("spikformer"), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_failed_export_leaves_no_file(wrap, tmp_path):
    checkpoint = wrap(torch.nn.Flatten(2), family="user:Net", shape=(2, 4, 4))
    with pytest.raises(UnsupportedError, match="no spiking neuron"):
        export_onnx(checkpoint, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
