"""Makes one ``Reshape`` of every chain of shape changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum"})


def merge_reshapes(model: ir.Model) -> None:
    """Rewrites every shape change as a ``Reshape`` that starts from the head of its chain.

    ``Flatten``, ``Squeeze``, ``Unsqueeze`` and reductions over axes of extent 1 keep the elements in order, so the last
    shape alone matters. Equal reshapes of one value become one. Links of a chain that nothing else reads are left
    without use for the pass that removes such nodes.
    """
    known: dict[tuple[ir.Value | None, tuple[int, ...]], ir.Value] = {}
    for node in list(model.graph):
        if not _is_reshape(node):
            continue
        output = node.outputs[0]
        if output.shape is None or not output.shape.is_static():
            continue
        extents = tuple(int(extent) for extent in output.shape.numpy())
        key = (_head(node), extents)
        if key in known and not output.is_graph_output():
            output.replace_all_uses_with(known[key])
            model.graph.remove(node, safe=True)
        else:
            known[key] = _rewrite(model.graph, node, key[0], np.array(extents, np.int64))


def _head(node: ir.Node) -> ir.Value | None:
    source = node.inputs[0]
    while source is not None and (before := source.producer()) is not None and _is_reshape(before):
        source = before.inputs[0]
    return source


def _is_reshape(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type not in _RESHAPES | _REDUCTIONS or node.inputs[0] is None:
        return False
    if node.op_type in _RESHAPES:
        return True
    given, got = node.inputs[0].shape, node.outputs[0].shape
    if given is None or got is None or not given.is_static() or not got.is_static():
        return False
    return bool(np.prod(given.numpy()) == np.prod(got.numpy()))


def _rewrite(graph: ir.Graph, node: ir.Node, source: ir.Value | None, extents: NDArray[np.int64]) -> ir.Value:
    output = node.outputs[0]
    shape = ir.node("Constant", [], attributes={"value": ir.tensor(extents)})
    reshape = ir.node("Reshape", [source, shape.outputs[0]], name=node.name)
    graph.insert_before(node, [shape, reshape])
    new = reshape.outputs[0]
    new.shape, new.type = output.shape, output.type
    name, output.name = output.name, f"{output.name}.merged"
    new.name = name
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return new
