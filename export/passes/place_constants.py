"""Puts constants where a reader of the file expects them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def place_constants(model: ir.Model) -> None:
    """Makes shapes and axes int64 initializers, and float constants ``Constant`` nodes at the head of the graph.

    Equal constants are stored once. Float initializers are parameters and nothing else.
    """
    graph = model.graph
    known: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for node in [node for node in graph if node.op_type == "Constant" and node.domain == ""]:
        output = node.outputs[0]
        tensor = ir.convenience.get_const_tensor(output)
        if tensor is None or output.is_graph_output():
            continue
        array = tensor.numpy()
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in known:
            known[key] = _integers(graph, array) if array.dtype == np.int64 else _floats(graph, array, len(known))
        output.replace_all_uses_with(known[key])
        graph.remove(node, safe=True)


def _integers(graph: ir.Graph, array: np.ndarray) -> ir.Value:
    text = "x".join(str(value) for value in array.reshape(-1)) or "empty"
    name = f"ints.{text}" if array.ndim == 1 else f"ints.{array.ndim}d.{text}"
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.initializers.add(value)
    return value


def _floats(graph: ir.Graph, array: np.ndarray, number: int) -> ir.Value:
    name = f"constant.{number}"
    node = ir.node("Constant", [], attributes={"value": ir.tensor(array, name=name)}, name=name)
    value = node.outputs[0]
    value.name, value.shape, value.dtype = name, ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.insert_before(next(iter(graph)), node)
    return value
