"""Names every layer with weights after its module."""

from __future__ import annotations

import onnx_ir as ir

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


def name_layers(model: ir.Model) -> None:
    """Gives ``Conv``, ``Gemm`` and ``MatMul`` nodes the name that their weight has in the network, less ``.weight``.

    A module that is called twice keeps torch's name for the second call.
    """
    taken = {node.name for node in model.graph}
    for node in model.graph:
        name = layer_name(node) if node.domain == "" and node.op_type in _LAYERS else None
        if name is not None and name not in taken:
            taken.add(name)
            node.name = name


def layer_name(node: ir.Node) -> str | None:
    """Returns the name of the module whose weight a node multiplies by; None if that is no parameter."""
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.name is None:
        return None
    return weight.name.removesuffix(".transpose").removesuffix(".weight")
