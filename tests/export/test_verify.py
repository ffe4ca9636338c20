"""A file that computes something else is found out, and the layer is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from svitkit.errors import ConfigError, VerificationError
from svitkit.export.verify import compare, verify
from svitkit.onnx_reference import ReferenceSession

X = np.repeat(np.random.default_rng(7).standard_normal((1, 8, 2, 16, 16)).astype(np.float32), 4, axis=0)


def tampered(path, target, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, target)
    return target


def negate(name):
    def change(model):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.raw_data = (-np.frombuffer(tensor.raw_data, np.float32)).tobytes()

    return change


def test_the_first_layer_that_differs_is_named(network, exported, tmp_path):
    path = tampered(exported("spikformer"), tmp_path / "bad.onnx", negate("blocks.0.mlp.fc1.0.weight"))
    with pytest.raises(VerificationError, match=r"layer blocks\.0\.mlp\.neuron1 has .*first that differs is blocks"):
        verify(path, network("spikformer"), X)
    report = compare(path, network("spikformer"), X)
    differing = [layer.name for layer in report.layers if layer.differing]
    assert differing[0] == "blocks.0.mlp.neuron1"
    assert len(report.layers) > len(differing)


def test_other_classes_from_the_same_spikes_are_found(network, exported, tmp_path):
    path = tampered(exported("spikformer"), tmp_path / "bad.onnx", negate("head.weight.transpose"))
    with pytest.raises(VerificationError, match="get the class that torch gives"):
        verify(path, network("spikformer"), X)


def test_a_file_of_another_network_is_refused(network, exported):
    with pytest.raises(ConfigError, match="the file has the neuron layers"):
        verify(exported("spikformer"), network("spike-driven-transformer"), X)


@pytest.mark.parametrize("shape", [(4, 2, 16, 16), (4, 0, 2, 16, 16)])
def test_inputs_without_batch_are_refused(network, exported, shape):
    with pytest.raises(ConfigError, match="wanted"):
        verify(exported("spikformer"), network("spikformer"), np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2, 8, 8), np.float32), "wanted float32"),
        (np.zeros((3, 2, 16, 16), np.float32), "wanted float32"),
        (np.zeros((4, 2, 16, 16), np.float64), "wanted float32"),
        (np.arange(4 * 512, dtype=np.float32).reshape(4, 2, 16, 16), "the frames differ"),
    ],
)
def test_the_reference_refuses_inputs_it_would_misread(exported, x, message):
    with pytest.raises(ConfigError, match=message):
        ReferenceSession(exported("spikformer")).run(x)


def test_a_single_image_is_shown_at_every_step(exported):
    session = ReferenceSession(exported("spikformer", "step"))
    np.testing.assert_array_equal(session.run(X[0, 0]).logits, session.run(X[:, 0]).logits)
