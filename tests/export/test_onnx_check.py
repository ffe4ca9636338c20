"""Files that were not written by svitkit: refused by name, before anything is allocated."""

from __future__ import annotations

import json
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from svitkit.errors import ConfigError, SvitError, UnsupportedError
from svitkit.export.metadata import read_metadata
from svitkit.onnx_check import check_model, load_checked
from svitkit.onnx_lif import LIF_DOMAIN


def node_of(model, op_type):
    return next(node for node in model.graph.node if node.op_type == op_type)


def weight_of(model):
    return next(tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)


def foreign_operator(model):
    node = node_of(model, "MaxPool")
    node.domain, node.op_type = "evil", "Relu"


def misspelt_operator(model):
    node_of(model, "MatMul").op_type = "MatMull"


def foreign_domain(model):
    model.opset_import.append(helper.make_opsetid("evil", 1))


def external_data(model):
    tensor = weight_of(model)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def hidden_external_data(model):
    weight_of(model).external_data.add(key="location", value="/etc/passwd")


def external_constant(model):
    node_of(model, "Constant").attribute[0].t.data_location = TensorProto.EXTERNAL


def terabyte_weight(model):
    weight_of(model).dims[:] = [1 << 20, 1 << 18]


def overflowing_weight(model):
    weight_of(model).dims[:] = [1 << 62, 4]


def negative_weight(model):
    weight_of(model).dims[:] = [-1, -1]


def short_weight(model):
    tensor = weight_of(model)
    tensor.raw_data = tensor.raw_data[:-4]


def terabyte_activation(model):
    model.graph.value_info[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40


def sparse_weight(model):
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def dynamic_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def double_weight(model):
    weight_of(model).data_type = TensorProto.DOUBLE


def string_weight(model):
    weight_of(model).data_type = TensorProto.STRING


def nameless_type(model):
    weight_of(model).data_type = 999


def other_function(model):
    function = model.functions.add()
    function.CopyFrom(model.functions[0])
    function.name = "Evil"


def changed_body(model):
    next(node for node in model.functions[0].node if node.op_type == "Shape").op_type = "Size"


def changed_domain_of_function(model):
    model.functions[0].domain = "evil"


def missing_function(model):
    del model.functions[:]


def lif_without_tau(model):
    node = node_of(model, "LIF")
    kept = [item for item in node.attribute if item.name != "tau"]
    del node.attribute[:]
    node.attribute.extend(kept)


def lif_with_a_lying_shape(model):
    name = node_of(model, "LIF").output[0]
    value = next(value for value in model.graph.value_info if value.name == name)
    value.type.tensor_type.shape.dim[0].dim_value += 1


def value_without_shape(model):
    name = node_of(model, "Conv").output[0]
    model.graph.value_info.remove(next(value for value in model.graph.value_info if value.name == name))


def float_constant_as_list(model):
    attribute = node_of(model, "Constant").attribute[0]
    attribute.CopyFrom(helper.make_attribute("value_floats", [0.0]))


def graph_attribute(model):
    node_of(model, "Conv").attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], [])))


def convolution_without_padding(model):
    node = node_of(model, "Conv")
    kept = [item for item in node.attribute if item.name != "pads"]
    del node.attribute[:]
    node.attribute.extend(kept)


def dangling_input(model):
    node_of(model, "Conv").input[0] = "nowhere"


def mismatched_shapes(model):
    node_of(model, "MatMul").input[1] = "head.bias"


def other_opset(model):
    model.opset_import[0].version = 99


def future_format(model):
    model.ir_version = 99


def training_graph(model):
    model.training_info.add()


def too_many_nodes(model):
    model.graph.node.extend([model.graph.node[0]] * 20_000)


def weight_of_many_axes(model):
    tensor = weight_of(model)
    tensor.dims.extend([1] * 9)


def value_of_many_axes(model):
    shape = model.graph.value_info[0].type.tensor_type.shape
    for _ in range(9):
        shape.dim.add().dim_value = 1


def sparse_attribute(model):
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    node = node_of(model, "Constant")
    node.attribute[0].CopyFrom(helper.make_attribute("sparse_value", helper.make_sparse_tensor(values, indices, [4])))


def deep_graphs(model):
    graph = helper.make_graph([], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    node_of(model, "Conv").attribute.append(helper.make_attribute("body", graph))


def two_inputs(model):
    value = model.graph.input.add()
    value.CopyFrom(model.graph.input[0])
    value.name = "second"


def integer_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8


def open_padding(model):
    node_of(model, "Conv").attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def absurd_number(model):
    node = node_of(model, "Conv")
    next(item for item in node.attribute if item.name == "strides").ints[0] = 1 << 60


def more_pieces_than_outputs(model):
    node = node_of(model, "MaxPool")
    node.op_type = "Split"
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("num_outputs", 1 << 30))


def empty_weight_of_absurd_extent(model):
    tensor = weight_of(model)
    tensor.dims[:] = [0, 1 << 62]
    tensor.raw_data = b""


def no_graph(model):
    model.ClearField("graph")


HOSTILE = [
    (foreign_operator, UnsupportedError, r"unknown operator evil::Relu\. "),
    (misspelt_operator, UnsupportedError, "unknown operator MatMull. The nearest known one is MatMul"),
    (foreign_domain, UnsupportedError, "operators 'evil'"),
    (external_data, ConfigError, "lies in another file"),
    (hidden_external_data, ConfigError, "lies in another file"),
    (external_constant, ConfigError, "lies in another file"),
    (terabyte_weight, ConfigError, "declares 1099511627776 bytes"),
    (overflowing_weight, ConfigError, "declares 73786976294838206464 bytes"),
    (negative_weight, ConfigError, "negative extent"),
    (short_weight, ConfigError, "but the file holds"),
    (terabyte_activation, ConfigError, "at most"),
    (sparse_weight, UnsupportedError, "sparse"),
    (dynamic_input, UnsupportedError, "value 'input' has no static shape"),
    (double_weight, UnsupportedError, "element type DOUBLE"),
    (string_weight, UnsupportedError, "element type STRING"),
    (nameless_type, UnsupportedError, "element type number 999"),
    (other_function, UnsupportedError, "brings the function ai.svitkit::Evil"),
    (changed_body, UnsupportedError, "is not the one svitkit writes"),
    (changed_domain_of_function, UnsupportedError, "brings the function evil::LIF"),
    (missing_function, ConfigError, "but brings"),
    (lif_without_tau, UnsupportedError, "lacks the attribute tau"),
    (lif_with_a_lying_shape, ConfigError, "declares X"),
    (value_without_shape, UnsupportedError, "has no declared shape"),
    (float_constant_as_list, UnsupportedError, "must hold a tensor"),
    (graph_attribute, UnsupportedError, "no plain value in 'body'"),
    (convolution_without_padding, UnsupportedError, "must say pads"),
    (dangling_input, ConfigError, "ONNX's own check"),
    (mismatched_shapes, ConfigError, "ONNX's own check"),
    (other_opset, UnsupportedError, "version 99"),
    (future_format, UnsupportedError, "IR version 99"),
    (training_graph, UnsupportedError, "training graphs"),
    (too_many_nodes, ConfigError, "nodes; at most 20000"),
    (weight_of_many_axes, UnsupportedError, "axes; at most 8"),
    (value_of_many_axes, UnsupportedError, "axes; at most 8"),
    (sparse_attribute, UnsupportedError, "no plain value in 'sparse_value'"),
    (deep_graphs, UnsupportedError, "no plain value in 'body'"),
    (two_inputs, UnsupportedError, "has the input 'second' besides 'input'"),
    (integer_input, UnsupportedError, "the first input is 'input', INT8"),
    (open_padding, UnsupportedError, "leaves its padding open"),
    (absurd_number, ConfigError, "numbers in 'strides' that no tensor has"),
    (more_pieces_than_outputs, ConfigError, "1 outputs, but num_outputs 1073741824"),
    (empty_weight_of_absurd_extent, ConfigError, "one that no tensor has"),
    (no_graph, ConfigError, "no graph"),
]


@pytest.mark.parametrize(("change", "error", "message"), HOSTILE, ids=[case[0].__name__ for case in HOSTILE])
def test_a_hostile_file_is_refused_by_name(exported, tmp_path, change, error, message):
    model = onnx.load(exported("spikformer"))
    change(model)
    path = tmp_path / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(error, match=message) as caught:
        load_checked(path)
    assert len(str(caught.value)) < 1000


def test_the_untouched_file_is_accepted(exported):
    model = load_checked(exported("spikformer"))
    assert {entry.domain for entry in model.opset_import} == {"", LIF_DOMAIN}


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08", b"\x00" * 64, bytes(range(256)) * 40])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no ONNX file"):
        load_checked(path)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(exported, tmp_path, fraction):
    content = exported("spikformer").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ConfigError):
        load_checked(path)


def test_random_damage_is_refused_or_harmless_but_never_a_traceback(exported, tmp_path):
    content = bytearray(exported("spikformer").read_bytes())
    generator = np.random.default_rng(0)
    path, refused = tmp_path / "damaged.onnx", 0
    for _ in range(40):
        damaged = bytearray(content)
        for position in generator.integers(0, len(content), 30):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            read_metadata(path)
        except SvitError:
            refused += 1
    assert refused > 10


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="at most"):
        load_checked(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="is no file"):
        load_checked(tmp_path / name)


def rewritten(exported, tmp_path, change):
    model = onnx.load(exported("spikformer"))
    text = json.loads(model.metadata_props[0].value)
    change(text)
    model.metadata_props[0].value = json.dumps(text)
    path = tmp_path / "told.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.pop("timesteps"), "timesteps"),
        (lambda told: told.update(extra=1), "extra"),
        (lambda told: told["lif_layers"].pop(), "describe another graph"),
        (lambda told: told["lif_layers"][0]["params"].update(tau=3.0), "describe another graph"),
        (lambda told: told["lif_layers"][0]["state_shape"].append(7), "describe another graph"),
        (lambda told: told["input"].update(shape=[1, 2, 8, 8]), "another shape than the graph"),
        (lambda told: told["output"].update(name="other"), "describe another graph"),
    ],
)
def test_metadata_that_lie_are_refused(exported, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        read_metadata(rewritten(exported, tmp_path, change))


def test_a_file_without_metadata_is_refused(exported, tmp_path):
    model = onnx.load(exported("spikformer"))
    del model.metadata_props[:]
    check_model(model, source="model")
    path = tmp_path / "bare.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="no metadata"):
        read_metadata(path)
