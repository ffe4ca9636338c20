"""Constants of exported files as the runtime sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from svitkit.export.pipeline import export_onnx
from svitkit.runtime.import_onnx import import_onnx
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
