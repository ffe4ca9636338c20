"""Names every ``LIF`` node after its module, and its values after the node."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams
from svitkit.onnx_lif import LIF_DOMAIN, lif_overload


def name_neurons(model: ir.Model, neurons: Sequence[tuple[str, LIFParams]]) -> None:
    """Gives the nodes their qualified names and overloads.

    Args:
        model: the graph as torch wrote it; ``LIF`` nodes stand in the order of execution.
        neurons: name and constants of every layer in the order of execution.

    Raises:
        UnsupportedError: the exporter dropped or duplicated a layer.
    """
    nodes = [node for node in model.graph if node.domain == LIF_DOMAIN]
    if len(nodes) != len(neurons):
        raise UnsupportedError(
            f"the graph has {len(nodes)} LIF nodes for {len(neurons)} neuron layers; a layer was lost in tracing. "
            f"Make sure that every layer's spikes reach the output."
        )
    for node, (name, params) in zip(nodes, neurons, strict=True):
        node.name = name
        node.overload = lif_overload(params)
        node.outputs[0].name = f"{name}.s"
        node.outputs[1].name = f"{name}.v_out"
