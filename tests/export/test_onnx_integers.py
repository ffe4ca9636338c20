"""Type rules of integer operators: what svitkit does not write is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.export.pipeline import export_onnx
from svitkit.onnx_check import check_model, load_checked
from tests.export.conftest import build
from tests.export.quantized import quantize


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("integer") / "model.onnx"
    export_onnx(quantize(build("spikformer"), 4), made)
    return made


def node_of(model, op_type, index=0):
    return [node for node in model.graph.node if node.op_type == op_type][index]


def tensor_of(model, kind):
    return next(tensor for tensor in model.graph.initializer if tensor.data_type == kind)


def constant_of(model, name):
    return next(node for node in model.graph.node if name in node.output).attribute[0].t


def real_input(model):
    node_of(model, "MatMulInteger").input[0] = node_of(model, "LIF").output[0]


def float_weight(model):
    node_of(model, "ConvInteger", 1).input[1] = node_of(model, "LIF").output[0]


def computed_weight(model):
    model.graph.node.insert(0, helper.make_node("Reshape", ["head.weight", "ints.4x1x32x16"], ["moved"], name="moved"))
    model.graph.value_info.append(helper.make_tensor_value_info("moved", TensorProto.INT8, [32, 10]))
    node_of(model, "MatMulInteger").input[1] = "moved"


def per_channel_zero_point(model):
    tensor = constant_of(model, node_of(model, "ConvInteger").input[2])
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(2, np.uint8)))


def weight_zero_point(model):
    node = node_of(model, "ConvInteger")
    node.input.append(node.input[2])


def signed_zero_point(model):
    tensor = constant_of(model, node_of(model, "QuantizeLinear").input[2])
    tensor.CopyFrom(numpy_helper.from_array(np.array(3, np.int8)))


def scales_per_pixel(model):
    tensor = constant_of(model, node_of(model, "QuantizeLinear").input[1])
    tensor.CopyFrom(numpy_helper.from_array(np.ones(16, np.float32)))


def no_zero_point(model):
    del node_of(model, "QuantizeLinear").input[2]


def cast_to_boolean(model):
    node = next(node for node in model.graph.node if node.op_type == "Cast" and "bytes" in node.name)
    node.attribute[0].i = TensorProto.BOOL


def cast_without_a_type(model):
    del node_of(model, "Cast").attribute[:]


def cast_of_nothing(model):
    del node_of(model, "Cast").input[:]


def undeclared_kernel(model):
    node = node_of(model, "ConvInteger")
    kept = [attribute for attribute in node.attribute if attribute.name != "pads"]
    del node.attribute[:]
    node.attribute.extend(kept)


def short_weight_cut_off(model):
    tensor = tensor_of(model, TensorProto.INT4)
    tensor.raw_data = tensor.raw_data[:-1]


def terabyte_of_short_weights(model):
    tensor_of(model, TensorProto.INT4).dims[:] = [1 << 20, 1 << 20]


def old_operators_with_short_weights(model):
    model.opset_import[0].version = 18


CASES = [
    (real_input, UnsupportedError, "is FLOAT, wanted UINT8"),
    (float_weight, UnsupportedError, "is FLOAT, wanted INT8"),
    (computed_weight, UnsupportedError, "no constant weight"),
    (per_channel_zero_point, UnsupportedError, "no constant scalar"),
    (weight_zero_point, ConfigError, "has 4 inputs, wanted 2 or 3"),
    (signed_zero_point, UnsupportedError, "is INT8, wanted UINT8"),
    (scales_per_pixel, UnsupportedError, "no constant scalar"),
    (no_zero_point, ConfigError, "has 2 inputs, wanted 3"),
    (cast_to_boolean, UnsupportedError, "casts FLOAT to BOOL"),
    (cast_without_a_type, UnsupportedError, "must say to"),
    (cast_of_nothing, ConfigError, "has 0 inputs, wanted 1"),
    (undeclared_kernel, UnsupportedError, "must say pads"),
    (short_weight_cut_off, ConfigError, "but the file holds"),
    (terabyte_of_short_weights, ConfigError, "at most"),
    (old_operators_with_short_weights, UnsupportedError, "not the one svitkit writes"),
]


@pytest.mark.parametrize(("change", "error", "says"), CASES, ids=[case[0].__name__ for case in CASES])
def test_integer_operators_of_another_form_are_refused(path: Path, change, error, says) -> None:
    model = onnx.load(path)
    change(model)
    with pytest.raises(error, match=says):
        check_model(model, source="the file")


def test_the_untouched_file_is_accepted(path: Path) -> None:
    assert {"Cast", "ConvInteger", "MatMulInteger", "QuantizeLinear"} <= {
        n.op_type for n in load_checked(path).graph.node
    }
