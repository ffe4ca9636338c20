"""The rule for matrix products: layers where the right factor is constant, attention where both are activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from svitkit.errors import UnsupportedError
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.contract import ContractSpec, build_contract
from svitkit.runtime.lowering.products import defer_product
from svitkit.runtime.lowering.translation import Lowering, common_atom, operand
from svitkit.runtime.view import Atom, Buffer, View, align, store

SINGLE = (Atom(1, 0, "channel"),) * 3


def lower_matmul(state: Lowering, node: Node) -> None:
    """MatMul: with constant weights a layer, else a product of two activations."""
    if node.inputs[1] in state.graph.constants:
        defer_product(state, node, state.graph.constants[node.inputs[1]], None)
    elif node.inputs[0] in state.graph.constants:
        raise UnsupportedError("a constant left factor has no kernel; put the weights on the right.")
    else:
        a, b = (_factor(state, name) for name in node.inputs)
        out = _result(node, a, b)
        state.values[node.outputs[0]] = out
        state.waiting[out.buffer] = Product(node, node.outputs[0], a, b, out)


@dataclass
class Product:
    """A product of two activations that waits for its consumer.

    Attributes:
        node: where it comes from.
        output: name of the product.
        a, b: the factors; they may wait themselves.
        out: the product as it would lie.
    """

    node: Node
    output: str
    a: View
    b: View
    out: View

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Computes the product by itself."""
        state.settle(self.a)
        state.settle(self.b)
        _emit_contract(state, self.node, self.a, self.b, replace(self.out, buffer=out))


def _factor(state: Lowering, name: str) -> View:
    """A factor; a product with no other reader goes on waiting."""
    return state.values[name] if waiting_product(state, name) else state.read(name)


def waiting_product(state: Lowering, name: str) -> bool:
    """Whether a value is a product that waits and has one reader."""
    waiting = state.waiting.get(state.values[name].buffer) if name in state.values else None
    return isinstance(waiting, Product) and state.consumers[waiting.output] == 1


def _batch(a: View, b: View) -> list[list[tuple[Atom, ...]]]:
    return align([replace(a, axes=a.axes[:-2]), replace(b, axes=b.axes[:-2])])


def _result(node: Node, a: View, b: View) -> View:
    """Lays out the product of a (..., M, K) and b (..., K, N)."""
    exact = a.buffer.dtype != "float32" and b.buffer.dtype != "float32"
    axes = [[common_atom(pair) for pair in axis] for axis in _batch(a, b)]
    stored = [*axes, b.axes[-1], a.axes[-2]]  # rows of a innermost: in v k^T q that axis is dense in all three factors
    out = store(node.outputs[0], stored, "int32" if exact else "float32", keep_broadcast=False)
    return replace(out, axes=(*out.axes[:-2], out.axes[-1], out.axes[-2]))


def _emit_contract(state: Lowering, node: Node, a: View, b: View, out: View) -> None:
    """Product of a (..., M, K) and b (..., K, N)."""
    batch = _batch(a, b)
    inner = align([replace(a, axes=(a.axes[-1],)), replace(b, axes=(b.axes[-2],))])[0]
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
