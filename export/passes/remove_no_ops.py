"""Removes nodes that return their input as it is."""

from __future__ import annotations

import onnx_ir as ir

_SAME_SHAPE_IS_NO_OP = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand"})


def remove_no_ops(model: ir.Model) -> None:
    """Drops identities, dropouts, casts to the same type, and reshapes, expansions and transposes without effect.

    A node between a graph input and a graph output stays: both names are part of the file's interface.
    """
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or not _is_no_op(node, source):
            continue
        output = node.outputs[0]
        if output.is_graph_output() and (source.is_graph_input() or source.is_graph_output()):
            continue
        if output.is_graph_output():
            output.name, source.name = f"{output.name}.removed", output.name
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _is_no_op(node: ir.Node, source: ir.Value) -> bool:
    output = node.outputs[0]
    if node.domain != "":
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        flag = None if training is None else ir.convenience.get_const_tensor(training)
        active = training is not None and (flag is None or bool(flag.numpy()))
        return not active and all(not mask.uses() and not mask.is_graph_output() for mask in node.outputs[1:])
    if node.op_type in ("Cast", "CastLike"):
        return source.dtype is not None and source.dtype == output.dtype
    if node.op_type == "Transpose":
        permutation = list(node.attributes.get_ints("perm", ()))
        return bool(permutation) and permutation == sorted(permutation)
    known = source.shape is not None and output.shape is not None and source.shape.is_static()
    return node.op_type in _SAME_SHAPE_IS_NO_OP and known and source.shape == output.shape
