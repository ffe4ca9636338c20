"""Makes one ``Reshape`` of every chain of shape changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def merge_reshapes(model: ir.Model) -> None:
    """Rewrites ``Flatten``, ``Squeeze`` and ``Unsqueeze`` as ``Reshape`` and lets each start from the head of its chain.

    All four keep the elements in order, so the last shape alone matters. Links of a chain that nothing else reads are
    left without use for the pass that removes such nodes.
    """
    for node in list(model.graph):
        if node.domain != "" or node.op_type not in _RESHAPES:
            continue
        output = node.outputs[0]
        if output.shape is None or not output.shape.is_static():
            continue
        source = node.inputs[0]
        while source is not None and _is_reshape(source.producer()):
            source = source.producer().inputs[0]  # type: ignore[union-attr]
        _rewrite(model.graph, node, source, np.array(output.shape.numpy(), np.int64))


def _is_reshape(node: ir.Node | None) -> bool:
    return node is not None and node.domain == "" and node.op_type in _RESHAPES


def _rewrite(graph: ir.Graph, node: ir.Node, source: ir.Value | None, extents: np.ndarray) -> None:
    output = node.outputs[0]
    shape = ir.node("Constant", [], attributes={"value": ir.tensor(extents)})
    reshape = ir.node("Reshape", [source, shape.outputs[0]], name=node.name)
    graph.insert_before(node, [shape, reshape])
    new = reshape.outputs[0]
    new.shape, new.dtype = output.shape, output.dtype
    name, output.name = output.name, f"{output.name}.merged"
    new.name = name
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
