"""Reads the ONNX files that svitkit exports into a list of nodes with constants and attributes resolved.

The LIF function stays one node. Everything the runtime has no meaning for is refused by name: TVM's own importer
ignores operator domains and only warns when a model fails its check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.manifest import ModelMetadata
from svitkit.onnx_check import load_checked, metadata_of
from svitkit.onnx_lif import LIF_OP, read_integer_lif, read_lif
from svitkit.onnx_tokens import SCORE_OP

INT4_BITS = 4


@dataclass(frozen=True)
class Node:
    """One operator: its constant inputs are in ``Graph.constants``."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """A network as a list of nodes in order of execution.

    Attributes:
        nodes: operators; a ``LIF`` node has the name of its layer and as attributes
            ``params``, and ``integer``, which is None where it computes in float32.
        inputs, outputs: name to static shape, in the file's order.
        constants: initializers and the values of Constant nodes.
        metadata: what the exporter recorded.
        bits: how many bits a constant needs, where that is fewer than its type has: int8 weights of 4.
        shapes: declared shapes of what nodes compute; a translation that finds others is refused.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, NDArray[Any]]
    metadata: ModelMetadata
    bits: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Constants(dict[str, NDArray[Any]]):
    """Constants by name; one that a rule needs and does not find is refused."""

    def __missing__(self, name: str) -> NDArray[Any]:
        """Raises UnsupportedError."""
        raise UnsupportedError(f"'{name}' is no constant; wanted an initializer of the file.")


def import_onnx(path: Path) -> Graph:
    """Reads and checks an exported file.

    Raises:
        ConfigError: the file is missing, damaged or hostile.
        UnsupportedError: an operator, domain or shape has no meaning here.
    """
    model = load_checked(path)
    metadata = metadata_of(model, source=str(path))
    graph = model.graph
    constants = Constants({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer})
    nodes = []
    bits: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        attributes = _attributes(node)
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
            continue
        if node.op_type == "Cast" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].astype(np.int8)
            bits[node.output[0]] = INT4_BITS
            continue
        name = node.name or f"{node.op_type}_{index}"
        nodes.append(Node(node.op_type, name, tuple(node.input), tuple(node.output), attributes))
    return Graph(
        tuple(nodes),
        {value.name: _shape(value) for value in graph.input},
        {value.name: _shape(value) for value in graph.output},
        constants,
        metadata,
        bits,
        {value.name: _shape(value) for value in (*graph.value_info, *graph.output)},
    )


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    if node.op_type == LIF_OP:
        return {"params": read_lif(node), "integer": read_integer_lif(node)}
    if node.op_type == SCORE_OP:
        return {"criterion": node.overload}
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def integers(name: str, graph: Graph) -> list[int]:
    """A row of constant integers, such as a shape."""
    return [int(number) for number in graph.constants[name].reshape(-1)]


def split_sizes(node: Node, graph: Graph, extent: int) -> list[int]:
    """Extents of the pieces of a Split node."""
    if len(node.inputs) > 1 and node.inputs[1]:
        return integers(node.inputs[1], graph)
    pieces = int(node.attributes.get("num_outputs", len(node.outputs)))
    size = -(-extent // pieces)
    return [min(size, extent - start) for start in range(0, extent, size)]


def axes_of(node: Node, graph: Graph) -> list[int] | None:
    """The ``axes`` of a node, given as an input or as an attribute; None if absent."""
    if len(node.inputs) > 1 and node.inputs[1]:
        return integers(node.inputs[1], graph)
    axes = node.attributes.get("axes")
    return None if axes is None else [int(axis) for axis in axes]
