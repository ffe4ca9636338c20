"""Turns ``Gather`` of one known index into a ``Slice`` and a ``Reshape``."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from svitkit.export.build_nodes import compute, constant, stand_in


def replace_selects(model: ir.Model) -> None:
    """Rewrites every selection ``x[..., i, ...]``, by which q, k and v are told apart.

    A ``Gather`` of several indices, or of indices that are computed, stays, and is refused by the check of operators.
    """
    for node in list(model.graph):
        if node.domain == "" and node.op_type == "Gather":
            _rewrite(model.graph, node)


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    source, output = node.inputs[0], node.outputs[0]
    index = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    if source is None or source.shape is None or not source.shape.is_static() or source.dtype is None:
        return
    if index is None or index.size != 1 or output.shape is None:
        return
    extents = [int(extent) for extent in source.shape.numpy()]
    axis = node.attributes.get_int("axis", 0) % len(extents)
    at = int(index.numpy().reshape(())) % extents[axis]
    bounds = [constant(graph, node, np.array([value], np.int64)) for value in (at, at + 1, axis)]
    name, extents[axis] = str(node.name), 1
    part = compute(graph, node, "Slice", [source, *bounds], name=f"{name}.slice", shape=extents, dtype=source.dtype)
    shape = [int(extent) for extent in output.shape.numpy()]
    to = constant(graph, node, np.array(shape, np.int64))
    value = compute(graph, node, "Reshape", [part, to], name=name, shape=shape, dtype=source.dtype)
    stand_in(graph, node, value)
