"""Names the nodes that choose tokens after the module that does so, and tells the kinds of scores apart."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from svitkit.errors import UnsupportedError
from svitkit.export.ranges import extents
from svitkit.onnx_tokens import TOKENS_DOMAIN


def name_tokens(model: ir.Model, gates: Sequence[str]) -> None:
    """Gives the nodes the names of their gates and of what they do, and scores their overload and shape.

    Args:
        model: the graph as torch wrote it, its nodes in the order of execution.
        gates: qualified names of what chooses tokens, in the order of execution.

    Raises:
        UnsupportedError: the exporter dropped or duplicated one.
    """
    taken = [node for node in model.graph if (node.name or "").startswith("node_take_tokens")]
    if len(taken) != len(gates):
        raise UnsupportedError(f"the graph takes tokens out {len(taken)} times, but {len(gates)} modules choose some.")
    number = 0
    for node in model.graph:
        if node.domain == TOKENS_DOMAIN:
            node.name = f"{gates[number]}.score"
            node.overload = node.attributes.pop("criterion").as_string()
            _, batch, _, height, width = extents(node.inputs[0])
            node.outputs[0].shape, node.outputs[0].dtype = ir.Shape((batch, height * width)), ir.DataType.FLOAT
        elif node.op_type == "TopK":
            node.name = f"{gates[number]}.top"
        elif node in taken:
            node.name = f"{gates[number]}.take"
            number += 1
        elif node.op_type == "ScatterElements":
            node.name = f"{gates[number - 1]}.places"
        elif (node.name or "").startswith("node_put_tokens"):
            node.name = f"{gates[number - 1]}.put"
