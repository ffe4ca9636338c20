"""The rule for matrix products: layers where the right factor is constant, attention where both are activations."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from svitkit.errors import UnsupportedError
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.contract import ContractSpec, build_contract
from svitkit.runtime.lowering.products import defer_product
from svitkit.runtime.lowering.translation import Lowering, common_atom, operand
from svitkit.runtime.view import Atom, View, align, store

SINGLE = (Atom(1, 0, "channel"),) * 3


def lower_matmul(state: Lowering, node: Node) -> None:
    """MatMul: with constant weights a layer, else a product of two activations."""
    if node.inputs[1] in state.graph.constants:
        defer_product(state, node, state.graph.constants[node.inputs[1]], None)
    elif node.inputs[0] in state.graph.constants:
        raise UnsupportedError("a constant left factor has no kernel; put the weights on the right.")
    else:
        _emit_contract(state, node, state.read(node.inputs[0]), state.read(node.inputs[1]))


def _emit_contract(state: Lowering, node: Node, a: View, b: View) -> None:
    """Product of a (..., M, K) and b (..., K, N)."""
    batch = align([replace(a, axes=a.axes[:-2]), replace(b, axes=b.axes[:-2])])
    inner = align([replace(a, axes=(a.axes[-1],)), replace(b, axes=(b.axes[-2],))])[0]
    exact = a.buffer.dtype != "float32" and b.buffer.dtype != "float32"
    axes = [[common_atom(pair) for pair in axis] for axis in batch]
    stored = [*axes, b.axes[-1], a.axes[-2]]  # rows of a innermost: in v k^T q that axis is dense in all three factors
    out = store(node.outputs[0], stored, "int32" if exact else "float32", keep_broadcast=False)
    out = replace(out, axes=(*out.axes[:-2], out.axes[-1], out.axes[-2]))
    loops: list[tuple[Atom, ...]] = [
        (*pair, o)
        for axis, target in zip(batch, out.axes[:-2], strict=True)
        for pair, o in zip(axis, target, strict=True)
    ]
    loops += [(atom, replace(atom, stride=0), o) for atom, o in zip(a.axes[-2], out.axes[-2], strict=True)]
    loops += [(replace(atom, stride=0), atom, o) for atom, o in zip(b.axes[-1], out.axes[-1], strict=True)]
    loops = sorted((loop for loop in loops if loop[2].size > 1), key=lambda loop: -loop[2].stride) or [SINGLE]
    spec = ContractSpec(
        tuple(loop[2].size for loop in loops),
        tuple(pair[0].size for pair in inner),
        operand(a, [loop[0] for loop in loops]),
        tuple(pair[0].stride for pair in inner),
        operand(b, [loop[1] for loop in loops]),
        tuple(pair[1].stride for pair in inner),
        operand(out, [loop[2] for loop in loops]),
    )
    work = prod(spec.extents) * prod(spec.reduced)
    state.call(node.name, "contract", spec, build_contract, [a.buffer, b.buffer, out.buffer], work=work)
    state.values[node.outputs[0]] = out
