"""Networks, graphs and files that the tests of the export share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import parser
from onnx_ir.passes.common import ShapeInferencePass
from spikingjelly.activation_based import functional

from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Mode, Normalization
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.models.spec import ModelSpec

SMALL = {"T": 4, "num_classes": 10, "img_size_h": 16, "img_size_w": 16, "in_channels": 2, "mlp_ratio": 2.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "spikformer": {**SMALL, "embed_dims": 32, "num_heads": 4, "depths": 1, "patch_size": 4},
    "spike-driven-transformer": {**SMALL, "embed_dims": 32, "num_heads": 4, "depths": 1, "pooling_stat": "0011"},
    "qkformer": {**SMALL, "embed_dims": 32, "num_heads": (1, 2, 1), "depths": (1, 1, 1)},
}
Canonical = list[tuple[Any, ...]]


def describe(model: torch.nn.Module, *, family: str, static: bool = True, shape: tuple[int, int, int]) -> Checkpoint:
    """Wraps a network in a checkpoint."""
    spec = ModelSpec(
        family=family,
        arguments={},
        timesteps=4,
        input_shape=shape,
        static_input=static,
        normalization=Normalization(mean=(0.5,) * shape[0], std=(0.25,) * shape[0]),
        class_names=tuple(str(label) for label in range(10)),
        original_parameter_bytes=0,
    )
    return Checkpoint(model=model.eval(), spec=spec)


def liven(model: torch.nn.Module, x: torch.Tensor) -> None:
    """Gives a network weights and batch norm statistics with which every layer fires on ``x``."""
    torch.manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 1.2, 2.0)
            torch.nn.init.uniform_(module.bias, *((1.0, 3.0) if "qkv_conv" in name else (0.4, 1.0)))
        elif isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.1)
    model.train()
    for _ in range(5):
        functional.reset_net(model)
        with torch.no_grad():
            model(x)
    functional.reset_net(model)
    model.eval()


@functools.cache
def build(family: str, static: bool = True) -> Checkpoint:
    """Builds a small living network of a family."""
    arguments = FAMILIES[family]
    shape = (arguments["in_channels"], arguments["img_size_h"], arguments["img_size_w"])
    model = build_family(family, arguments)
    liven(model, torch.randn(4, 16, *shape, generator=torch.Generator().manual_seed(1)))
    return describe(model, family=family, static=static, shape=shape)


@pytest.fixture
def network() -> Callable[..., Checkpoint]:
    return build


@pytest.fixture
def wrap() -> Callable[..., Checkpoint]:
    return describe


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports a family once a session."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def make(family: str, mode: Mode = "sequence", static: bool = True) -> Path:
        path = folder / f"{family}-{mode}-{static}.onnx"
        export_onnx(build(family, static), path, mode=mode)
        return path

    return make


@pytest.fixture
def parse() -> Callable[[str], ir.Model]:
    """Reads a graph in ONNX's own notation and infers its shapes."""

    def read(text: str) -> ir.Model:
        proto = parser.parse_model('<ir_version: 10, opset_import: ["" : 18, "ai.svitkit" : 1]>\n' + text)
        model = ir.from_proto(proto)
        ShapeInferencePass()(model)
        return model

    return read


@pytest.fixture
def canonical() -> Callable[[ir.Model], Canonical]:
    """Lists what a graph computes without the names of its inner values; constants stand for themselves."""

    def listed(model: ir.Model) -> Canonical:
        proto = ir.to_proto(model)
        names: dict[str, Any] = {value.name: value.name for value in proto.graph.input}
        for tensor in proto.graph.initializer:
            names[tensor.name] = ("initializer", list(tensor.dims), tuple(onnx.numpy_helper.to_array(tensor).ravel()))
        rows: Canonical = []
        for node in proto.graph.node:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Constant" and set(attributes) == {"value"}:
                array = onnx.numpy_helper.to_array(attributes["value"])
                names[node.output[0]] = ("constant", list(array.shape), tuple(array.ravel()))
                continue
            names.update({name: ("node", len(rows), port) for port, name in enumerate(node.output)})
            inputs = tuple(names.get(name) for name in node.input)
            rows.append((node.op_type, inputs, tuple(sorted((key, repr(value)) for key, value in attributes.items()))))
        rows.append(("outputs", tuple(names[value.name] for value in proto.graph.output)))
        return rows

    return listed
