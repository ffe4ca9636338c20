"""Removes what nothing reads."""

from __future__ import annotations

import onnx_ir as ir

from svitkit.onnx_lif import LIF_DOMAIN


def remove_unused(model: ir.Model) -> None:
    """Drops nodes and initializers whose values reach no output, and every function.

    No node calls torch's functions by then; those of the ``LIF`` operator are added when the file is written.
    A ``LIF`` node stays even if only its state is read.
    """
    graph = model.graph
    for node in reversed(list(graph)):
        if all(not output.uses() and not output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    for key in [key for key in model.functions if key[0] != LIF_DOMAIN]:
        del model.functions[key]
    used = {node.domain for node in graph}
    for domain in [domain for domain in model.opset_imports if domain not in used]:
        del model.opset_imports[domain]
