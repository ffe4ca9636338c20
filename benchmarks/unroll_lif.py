"""Writes every LIF node of an exported file as elementwise nodes, one group a time step: the form without a Scan.

Its results are bit for bit those of the exported file. What can be left out without changing a bit is left out, so
that a peer which runs this form runs it at its best: a rest potential of 0 is not subtracted, a division by a power of
two is a multiplication, and the last step has no next potential.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams
from svitkit.onnx_lif import LIF_DOMAIN, ONNX_OPSET, read_lif


def unroll_lif(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of an exported model in which only standard operators are left.

    Args:
        model: a file of ``svitkit export`` in sequence mode.

    Raises:
        UnsupportedError: a node's potential after the last step is used, as in step mode.
    """
    unrolled = onnx.ModelProto()
    unrolled.CopyFrom(model)
    graph = unrolled.graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.domain != LIF_DOMAIN:
            nodes.append(node)
            continue
        if node.output[1] in used:
            raise UnsupportedError(f"LIF node {node.name} hands its state on. Export the network in sequence mode.")
        writer = _Writer(graph, node.name, read_lif(node))
        nodes += writer.write(node.input[0], node.output[0], timesteps=shapes[node.output[0]][0])
    del graph.node[:], unrolled.functions[:], unrolled.opset_import[:]
    graph.node.extend(nodes)
    unrolled.opset_import.append(helper.make_opsetid("", ONNX_OPSET))
    _drop_unused(graph)
    onnx.checker.check_model(unrolled)
    return unrolled


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drops the constants that only the LIF nodes took, and what was declared about values that are gone."""
    used = {name for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)
    made = {name for node in graph.node for name in node.output}
    for value in [value for value in graph.value_info if value.name not in made]:
        graph.value_info.remove(value)


class _Writer:
    """Writes the nodes of one layer, named ``<layer>.<step>.<what>``."""

    def __init__(self, graph: onnx.GraphProto, layer: str, params: LIFParams) -> None:
        self.graph, self.layer, self.params = graph, layer, params
        self.nodes: list[onnx.NodeProto] = []
        self.rest = 0.0 if params.v_reset is None else params.v_reset
        self.has_power_of_two_tau = math.frexp(params.tau)[0] == 0.5

    def write(self, x: str, s: str, *, timesteps: int) -> list[onnx.NodeProto]:
        """Returns the nodes that compute spikes ``s`` (T, ...) from currents ``x`` (T, ...), from rest."""
        steps = [f"{self.layer}.{t}.x" for t in range(timesteps)]
        spikes = [f"{self.layer}.{t}.s" for t in range(timesteps)]
        self.nodes.append(helper.make_node("Split", [x], steps, axis=0, num_outputs=timesteps))
        v = self.constant("v0", self.rest) if self.rest else ""
        for t, (current, spike) in enumerate(zip(steps, spikes, strict=True)):
            v = self.step(f"{self.layer}.{t}", v, current, spike, is_last=t + 1 == timesteps)
        self.nodes.append(helper.make_node("Concat", spikes, [s], axis=0))
        return self.nodes

    def step(self, at: str, v: str, x: str, s: str, *, is_last: bool) -> str:
        """Writes one time step; ``v`` is empty while the potential is 0. Returns the next potential's name."""
        threshold = self.constant("v_threshold", self.params.v_threshold)
        h = self.charge(at, v, x)
        fired = self.node("GreaterOrEqual", [h, threshold], f"{at}.fired")
        self.nodes.append(helper.make_node("Cast", [fired], [s], to=onnx.TensorProto.FLOAT))
        if is_last:
            return ""
        if self.params.v_reset is None:
            drop = self.node("Mul", [threshold, s], f"{at}.drop")
            return self.node("Sub", [h, drop], f"{at}.v")
        return self.node("Where", [fired, self.constant("v_rest", self.rest), h], f"{at}.v")

    def charge(self, at: str, v: str, x: str) -> str:
        """Writes ``h = v + (x - (v - rest)) / tau``, or ``v - (v - rest) / tau + x``."""
        decays = self.params.decay_input
        if not v:
            return self.over_tau(x, f"{at}.h") if decays else x
        over = self.node("Sub", [v, self.constant("v_rest", self.rest)], f"{at}.over") if self.rest else v
        if decays:
            change = self.over_tau(self.node("Sub", [x, over], f"{at}.drive"), f"{at}.change")
            return self.node("Add", [v, change], f"{at}.h")
        left = self.node("Sub", [v, self.over_tau(over, f"{at}.leak")], f"{at}.left")
        return self.node("Add", [left, x], f"{at}.h")

    def over_tau(self, value: str, output: str) -> str:
        """Writes a division by tau; by a power of two it is exact as a multiplication."""
        if self.has_power_of_two_tau:
            return self.node("Mul", [value, self.constant("inverse_tau", 1 / self.params.tau)], output)
        return self.node("Div", [value, self.constant("tau", self.params.tau)], output)

    def node(self, kind: str, inputs: list[str], output: str) -> str:
        """Appends a node with one output and returns its name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output))
        return output

    def constant(self, what: str, value: float) -> str:
        """Returns the name of a scalar of this layer."""
        name = f"{self.layer}.{what}"
        if all(tensor.name != name for tensor in self.graph.initializer):
            self.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name
