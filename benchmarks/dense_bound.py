"""The least time that a dense runtime needs: every multiplication of the exported graph, at the core's full width."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from svitkit.errors import UnsupportedError

PRODUCTS = {"Conv", "MatMul", "Gemm", "ConvInteger", "MatMulInteger"}
MOVES = {"Expand", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DenseUnit:
    """Multiplications and additions a cycle that a core can do on dense data in its first-level cache.

    Attributes:
        fp32: lanes of FMLA that it starts a cycle.
        int8: products of bytes summed into int32 a cycle.
        int8_how: the instructions that the int8 bound assumes.
    """

    fp32: float
    int8: float
    int8_how: str


_MULL = "SMULL + SMLAL2 + SADALP, 16 products in three instructions"
# As llvm-mca 22 times independent repetitions of these instructions; fp32: FMLA v.4s starts once a cycle, on the
# Neoverse N1 (Cortex-A76) twice. int8: the multiplications take one of two units for 2 cycles on the Cortex-A57 and
# A72, the additions run beside them; the Cortex-A53 starts one of the three a cycle; the N1 starts two SDOT a cycle.
UNITS = {
    "cortex-a53": DenseUnit(fp32=4, int8=16 / 3, int8_how=_MULL),
    "cortex-a57": DenseUnit(fp32=4, int8=8, int8_how=_MULL),
    "cortex-a72": DenseUnit(fp32=4, int8=8, int8_how=_MULL),
    "cortex-a76": DenseUnit(fp32=8, int8=32, int8_how="SDOT, 16 products in one instruction"),
}


def layer_macs(path: Path, layers: Collection[str]) -> dict[str, int]:
    """Counts the multiplications of every product in the graph.

    What only sees one image that is shown at every time step counts once, as a good dense runtime would do it.

    Args:
        path: a file that ``svitkit export`` wrote.
        layers: names of layers that kernels were made for.

    Returns:
        Multiplications of one inference by layer: a product counts for the layer of its own name, or for the first one
        behind it (neurons, when they are fused), or under its own name if there is neither.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=False, data_prop=True)
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    makers = {name: node for node in graph.node for name in node.output}
    totals: dict[str, int] = defaultdict(int)
    for node in graph.node:
        if node.op_type in PRODUCTS:
            totals[_layer(node, readers, layers)] += _macs(node, shapes) // _repeats(node, makers, shapes)
    return dict(totals)


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    out = shapes.get(node.output[0], ())
    if not out or not all(out):
        raise UnsupportedError(f"the shape of '{node.output[0]}' is not known, so its work cannot be counted.")
    if node.op_type.startswith("Conv"):
        return prod(out) * prod(shapes[node.input[1]][1:])
    return prod(out) * shapes[node.input[0]][-1]


def _repeats(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], shapes: Mapping[str, Shape]) -> int:
    """How often the same data input is shown, if it is made by moves from an Expand."""
    name = node.input[0]
    while name in makers and makers[name].op_type in MOVES:
        source = makers[name].input[0]
        if makers[name].op_type == "Expand":
            return max(prod(shapes[name]) // max(prod(shapes[source]), 1), 1)
        name = source
    return 1


def _layer(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], layers: Collection[str]) -> str:
    """Breadth first from a product to the first node that names a layer."""
    queue, seen = [node], {node.name}
    while queue:
        current = queue.pop(0)
        if current.name in layers:
            return current.name
        behind = [reader for name in current.output for reader in readers[name] if reader.name not in seen]
        seen |= {reader.name for reader in behind}
        queue += behind
    return node.name
