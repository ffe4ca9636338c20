"""Turns ``SplitToSequence`` with ``SequenceAt`` into one ``Split``."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def replace_sequences(model: ir.Model) -> None:
    """Rewrites every sequence of which only elements at constant positions are read.

    Sequences that are used in another way stay, and are refused by the check of operators.
    """
    for node in list(model.graph):
        if node.op_type == "SplitToSequence":
            _rewrite(model.graph, node)


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    source, readers = node.inputs[0], list(node.outputs[0].consumers())
    sizes = _sizes(node)
    if source is None or sizes is None or any(reader.op_type != "SequenceAt" for reader in readers):
        return
    positions = [position for reader in readers if (position := _scalar(reader.inputs[1])) is not None]
    if len(positions) != len(readers):
        return
    axis = node.attributes.get_int("axis", 0)
    split_sizes = ir.node("Constant", [], attributes={"value": ir.tensor(np.array(sizes, np.int64))})
    split = ir.node("Split", [source, split_sizes.outputs[0]], {"axis": axis}, num_outputs=len(sizes), name=node.name)
    graph.insert_before(node, [split_sizes, split])
    for index, (output, size) in enumerate(zip(split.outputs, sizes, strict=True)):
        output.name, output.type = f"{node.outputs[0].name}.{index}", source.type
        if source.shape is not None:
            extents = list(source.shape)
            extents[axis] = size
            output.shape = ir.Shape(extents)
    for reader, position in zip(readers, positions, strict=True):
        reader.outputs[0].replace_all_uses_with(split.outputs[position], replace_graph_outputs=True)
        graph.remove(reader, safe=True)
    graph.remove(node, safe=True)


def _sizes(node: ir.Node) -> list[int] | None:
    source = node.inputs[0]
    lengths = ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if source is None or source.shape is None or lengths is None or not node.attributes.get_int("keepdims", 1):
        return None
    extent = source.shape[node.attributes.get_int("axis", 0)]
    if not isinstance(extent, int):
        return None
    values = lengths.numpy()
    if values.ndim == 1:
        return [int(value) for value in values]
    size = int(values)
    return [min(size, extent - start) for start in range(0, extent, size)]


def _scalar(value: ir.Value | None) -> int | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else int(tensor.numpy())
