"""Small steps that the passes for integer layers share: nodes with typed outputs, constants, and swapping results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


def constant(graph: ir.Graph, before: ir.Node, array: np.ndarray) -> ir.Value:
    """Puts a ``Constant`` node in front of a node."""
    node = ir.node("Constant", [], attributes={"value": ir.tensor(array)})
    value = node.outputs[0]
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.insert_before(before, node)
    return value


def compute(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    *,
    name: str,
    shape: Sequence[int],
    dtype: ir.DataType,
    attributes: dict[str, Any] | None = None,
) -> ir.Value:
    """Puts a node with one output in front of a node.

    Args:
        graph: receives it.
        before: the node that it stands in front of.
        op: the operator.
        inputs: its inputs.
        name: of the node; the output is named after it.
        shape: of the output.
        dtype: of the output.
        attributes: of the node.
    """
    node = ir.node(op, inputs, attributes=attributes, name=name)
    value = node.outputs[0]
    value.name, value.shape, value.dtype = f"{name}.out", ir.Shape(shape), dtype
    graph.insert_before(before, node)
    return value


def stand_in(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Makes a value take the place and the name of a node's only output, and removes the node."""
    output = node.outputs[0]
    name, output.name = output.name, f"{output.name}.replaced"
    value.name = name
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
