"""Keeps as initializers what was trained, and turns other constant data into ``Constant`` nodes."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir


def separate_parameters(model: ir.Model, parameters: Collection[str]) -> None:
    """Moves buffers and lifted constants (running means, scales, positions) out of the initializers.

    Args:
        model: the graph as torch wrote it.
        parameters: names of the initializers that are parameters.
    """
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if name in parameters or tensor is None:
            continue
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
            continue
        constant = ir.node("Constant", [], attributes={"value": ir.tensor(tensor.numpy(), name=name)}, name=name)
        output = constant.outputs[0]
        output.name, output.shape, output.type = f"{name}.value", value.shape, value.type
        value.replace_all_uses_with(output, replace_graph_outputs=True)
        del graph.initializers[name]
        first = next(iter(graph))
        graph.insert_before(first, constant)
