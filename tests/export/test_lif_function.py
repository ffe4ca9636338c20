"""The operator ``ai.svitkit::LIF`` means what ``svitkit.lif`` says, in ONNX Runtime and in torch."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from spikingjelly.activation_based.neuron import LIFNode

import svitkit.export.lif_function
from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams, lif
from svitkit.onnx_lif import (
    IR_VERSION,
    LIF_DOMAIN,
    LIF_OP,
    lif_attributes,
    lif_function,
    lif_overload,
    read_lif,
)

assert svitkit.export.lif_function  # registers the operator
KINDS = [
    LIFParams(tau=tau, v_threshold=v_threshold, v_reset=v_reset, decay_input=decay_input)
    for (tau, v_threshold), v_reset, decay_input in itertools.product(
        [(2.0, 1.0), (1.7, 0.5)], [0.0, -0.25, None], [True, False]
    )
]


def lif_node(params: LIFParams) -> onnx.NodeProto:
    return helper.make_node(
        LIF_OP,
        ["x", "v"],
        ["s", "v_next"],
        name="layer",
        domain=LIF_DOMAIN,
        overload=lif_overload(params),
        **lif_attributes(params),
    )


def run_onnx(x: np.ndarray, v: np.ndarray, params: LIFParams) -> tuple[np.ndarray, np.ndarray]:
    def value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [lif_node(params)],
        "g",
        [value("x", x.shape), value("v", v.shape)],
        [value("s", x.shape), value("v_next", x.shape[1:])],
    )
    model = helper.make_model(
        graph,
        functions=[lif_function(lif_overload(params))],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(LIF_DOMAIN, 1)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    s, v_next = session.run(None, {"x": x, "v": v})
    return s, v_next


@pytest.mark.parametrize(
    ("params", "spikes", "state"),
    [
        # x = 1, 1, 3; tau 2: h = .5, .75, 1.875
        (LIFParams(), [0, 0, 1], 0.0),
        # h = .5, .75, 1.875; soft reset leaves .875
        (LIFParams(v_reset=None), [0, 0, 1], 0.875),
        # h = 1 (fires at the threshold itself), 1, 3
        (LIFParams(decay_input=False), [1, 1, 1], 0.0),
        # h = 1 -> 0, 1 -> 0, 3 -> 2
        (LIFParams(decay_input=False, v_reset=None), [1, 1, 1], 2.0),
        # v starts at 0, rest -1: h = 0 + (1 - 1) / 2 = 0; 0; 0 + (3 - 1) / 2 = 1 fires
        (LIFParams(v_reset=-1.0), [0, 0, 1], -1.0),
    ],
)
def test_a_neuron_computed_by_hand(params, spikes, state):
    x = np.array([1, 1, 3], np.float32)[:, None]
    s, v = run_onnx(x, np.zeros((), np.float32), params)
    assert s[:, 0].tolist() == spikes
    assert v.tolist() == [state]


@pytest.mark.parametrize("params", KINDS, ids=lambda p: f"{p.tau}-{p.v_reset}-{p.decay_input}")
def test_onnx_runtime_torch_and_the_definition_agree_to_the_bit(params):
    generator = np.random.default_rng(0)
    x = generator.normal(0.6, 1.5, (6, 2, 5, 7)).astype(np.float32)
    v = generator.normal(0, 0.5, (2, 5, 7)).astype(np.float32)
    wanted_s, wanted_v = lif(x, params, v)
    assert 0.05 < wanted_s.mean() < 0.95
    s, v_next = run_onnx(x, v, params)
    np.testing.assert_array_equal(s, wanted_s)
    np.testing.assert_array_equal(v_next, wanted_v)
    constants = (params.tau, params.v_threshold, params.v_reset, params.decay_input)
    s_torch, v_torch = torch.ops.svitkit.lif(torch.from_numpy(x), torch.from_numpy(v), "layer", *constants)
    np.testing.assert_array_equal(s_torch.numpy(), wanted_s)
    np.testing.assert_array_equal(v_torch.numpy(), wanted_v)


@pytest.mark.parametrize("params", KINDS, ids=lambda p: f"{p.tau}-{p.v_reset}-{p.decay_input}")
def test_spikes_equal_those_of_spikingjelly(params):
    x = np.random.default_rng(1).normal(0.6, 1.5, (6, 3, 50)).astype(np.float32)
    node = LIFNode(params.tau, params.decay_input, params.v_threshold, params.v_reset, step_mode="m")
    s, v = run_onnx(x, np.array(params.v_initial, np.float32), params)
    np.testing.assert_array_equal(s, node(torch.from_numpy(x)).detach().numpy())
    np.testing.assert_allclose(v, node.v.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("params", KINDS[:4], ids=lambda p: f"{p.v_reset}-{p.decay_input}")
def test_attributes_come_back_as_they_were_written(params):
    assert read_lif(lif_node(params)) == params


def put(node: onnx.NodeProto, name: str, value: float | None) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda node: put(node, "tau", None), "lacks the attribute tau"),
        (lambda node: put(node, "leak", 1.0), "attribute 'leak'"),
        (lambda node: put(node, "tau", 0.5), "no valid constants"),
        (lambda node: put(node, "tau", float("nan")), "no valid constants"),
        (lambda node: put(node, "tau", 2), "attribute 'tau'"),
        (lambda node: setattr(node, "overload", "soft_plain"), "attributes mean 'hard_decay'"),
    ],
)
def test_wrong_attributes_are_refused(change, message):
    node = lif_node(LIFParams())
    change(node)
    with pytest.raises(UnsupportedError, match=message):
        read_lif(node)


def test_an_unknown_overload_is_refused():
    with pytest.raises(UnsupportedError, match="no overload 'evil'"):
        lif_function("evil")
