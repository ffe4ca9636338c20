"""Constants of exported files as the runtime sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from svitkit.boards.board import load_board
from svitkit.errors import SvitError
from svitkit.export.pipeline import export_onnx
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.pipeline import lower_network
from tests.export.conftest import build
from tests.export.quantized import quantize


def test_short_weights_are_int8_constants_that_say_their_bits(tmp_path: Path) -> None:
    checkpoint = quantize(build("qkformer"), 4)
    export_onnx(checkpoint, tmp_path / "model.onnx")
    graph = import_onnx(tmp_path / "model.onnx")
    products = {node.name: node for node in graph.nodes if node.op in ("ConvInteger", "MatMulInteger")}
    assert products.keys() == checkpoint.quantized.keys()
    for name, node in products.items():
        weight, wanted = graph.constants[node.inputs[1]], checkpoint.quantized[name]
        assert weight.dtype == np.int8
        assert graph.bits.get(node.inputs[1], 8) == wanted.bits
        integers = wanted.integers.T if node.op == "MatMulInteger" else wanted.integers
        np.testing.assert_array_equal(abs(weight), abs(integers))
    assert not [node.name for node in graph.nodes if node.op == "Cast" and node.inputs[0] in graph.constants]


def test_a_file_of_float32_weights_has_no_short_constants(tmp_path: Path) -> None:
    export_onnx(build("qkformer"), tmp_path / "model.onnx")
    assert import_onnx(tmp_path / "model.onnx").bits == {}


def neurons(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "LIF")


def charged(model: onnx.ModelProto) -> None:
    """The potentials of a layer start at another value than their rest."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "charge"))
    neurons(model).input[1] = "charge"


def computed(model: onnx.ModelProto) -> None:
    """The potentials of a layer come from another one."""
    layers = [node for node in model.graph.node if node.op_type == "LIF"]
    shapes = {value.name: value for value in model.graph.value_info}
    first, second = next(
        (a, b)
        for number, a in enumerate(layers)
        for b in layers[number + 1 :]
        if shapes[a.output[1]].type == shapes[b.output[1]].type
    )
    second.input[1] = first.output[1]


def potential_as_current(model: onnx.ModelProto) -> None:
    """A layer's last potentials are added to the logits."""
    name = neurons(model).output[1]
    model.graph.node.append(helper.make_node("ReduceSum", [name], ["sum"], keepdims=0, name="sum"))
    model.graph.value_info.append(helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, []))
    logits = model.graph.output[0]
    head = next(node for node in model.graph.node if logits.name in node.output)
    head.output[0] = "head"
    model.graph.value_info.append(helper.make_tensor_value_info("head", onnx.TensorProto.FLOAT, [1, 10]))
    model.graph.node.append(helper.make_node("Add", ["head", "sum"], [logits.name], name="add"))


def second_output(model: onnx.ModelProto) -> None:
    """The spikes of a layer are an output too."""
    value = next(value for value in model.graph.value_info if value.name == neurons(model).output[0])
    model.graph.output.append(value)


def input_that_is_a_constant(model: onnx.ModelProto) -> None:
    """The input has a value of its own."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), model.graph.input[0].name))


def metadata_of_another_graph(model: onnx.ModelProto) -> None:
    """The metadata name another input."""
    told = json.loads(model.metadata_props[0].value)
    told["input"]["name"] = "elsewhere"
    model.metadata_props[0].value = json.dumps(told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (charged, "potentials that start otherwise than at 0.0 have no kernel"),
        (computed, "potentials that are computed have no kernel"),
        (potential_as_current, "an output of a node that is not computed"),
        (second_output, "besides 'logits'|besides 'output'"),
        (input_that_is_a_constant, "wanted a float32 tensor that is no constant"),
        (metadata_of_another_graph, "describe another graph"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_the_runtime_would_misread_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    export_onnx(build("spikformer"), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SvitError, match=message):
        lower_network(import_onnx(tmp_path / "model.onnx"), load_board("qemu-cortex-a72"))
