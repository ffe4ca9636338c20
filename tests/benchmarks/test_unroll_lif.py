from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from benchmarks.networks import load_network
from benchmarks.unroll_lif import unroll_lif
from svitkit.errors import UnsupportedError
from svitkit.export.pipeline import export_onnx
from svitkit.lif import LIFParams
from svitkit.onnx_lif import LIF_DOMAIN, LIF_OP, ONNX_OPSET, lif_attributes, lif_function, lif_overload

PARAMS = [
    LIFParams(tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=True),
    LIFParams(tau=3.0, v_threshold=0.7, v_reset=0.0, decay_input=True),
    LIFParams(tau=2.0, v_threshold=0.5, v_reset=-0.3, decay_input=True),
    LIFParams(tau=1.7, v_threshold=1.0, v_reset=0.2, decay_input=False),
    LIFParams(tau=4.0, v_threshold=1.0, v_reset=None, decay_input=True),
    LIFParams(tau=2.0, v_threshold=1.0, v_reset=None, decay_input=False),
]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def one_layer(params: LIFParams, *, keeps_state: bool = False) -> onnx.ModelProto:
    overload = lif_overload(params)
    node = helper.make_node(LIF_OP, ["x", "v0"], ["s", "vt"], name="lif", domain=LIF_DOMAIN, overload=overload)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in lif_attributes(params).items())
    v0 = helper.make_tensor("v0", TensorProto.FLOAT, [], [params.v_initial])
    shapes = {"x": [4, 5, 400], "s": [4, 5, 400], "vt": [5, 400]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    names = ["s", "vt"] if keeps_state else ["s"]
    outputs = [values[name] for name in names]
    # an output needs no second declaration, but the number of time steps is read from one
    graph = helper.make_graph([node], "lif", [values["x"]], outputs, [v0], value_info=[values["s"]])
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(LIF_DOMAIN, 1)]
    return helper.make_model(graph, functions=[lif_function(overload)], opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_every_kind_of_neuron_fires_bit_for_bit_as_in_the_exported_form(params):
    x = np.random.default_rng(0).normal(0.6, 1.5, (4, 5, 400)).astype(np.float32)
    model = one_layer(params)
    spikes = run(unroll_lif(model), x)
    assert np.array_equal(spikes, run(model, x))
    assert 0.05 < spikes.mean() < 0.95


def test_a_network_has_the_same_logits_bit_for_bit_and_only_standard_operators(tiny, tmp_path):
    network = load_network(tiny, rate=0.15)
    export_onnx(network.checkpoint, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    unrolled = unroll_lif(model)
    assert {node.domain for node in unrolled.graph.node} == {""}
    assert not unrolled.functions
    for image in range(4):
        x = network.inputs[:1, image].numpy()
        assert np.array_equal(run(unrolled, x), run(model, x))


def test_the_model_that_is_given_stays_as_it_is():
    model = one_layer(PARAMS[0])
    before = model.SerializeToString(deterministic=True)
    unroll_lif(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_division_by_a_power_of_two_becomes_a_multiplication():
    kinds = {params.tau: {node.op_type for node in unroll_lif(one_layer(params)).graph.node} for params in PARAMS[:2]}
    assert "Div" not in kinds[2.0]
    assert "Div" in kinds[3.0]


def test_a_layer_that_hands_its_state_on_is_refused():
    with pytest.raises(UnsupportedError, match="sequence mode"):
        unroll_lif(one_layer(PARAMS[0], keeps_state=True))
