"""Rules for elementwise arithmetic, sums and means, pooling, and products of two activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

import numpy as np

from svitkit.errors import UnsupportedError
from svitkit.runtime.density import Density, added, multiplied
from svitkit.runtime.import_onnx import Node, axes_of
from svitkit.runtime.kernels.pointwise import (
    ElementwiseSpec,
    Operator,
    QuantizeSpec,
    ReduceSpec,
    build_elementwise,
    build_quantize,
    build_reduce,
)
from svitkit.runtime.lowering.matmul import waiting_product
from svitkit.runtime.lowering.products import absorb
from svitkit.runtime.lowering.translation import Lowering, common_atom, operand
from svitkit.runtime.view import SPIKES, Atom, Buffer, View, align, store

LARGEST_BYTE = 255
SMALLEST = float(np.finfo(np.float32).tiny)
FLOAT, UINT8, INT32 = 1, 2, 6  # onnx.TensorProto.DataType
SINGLE = (Atom(1, 0, "channel"), Atom(1, 0, "channel"))


@dataclass
class Scaled:
    """A value times a scalar, which the next LIF layer multiplies by itself.

    Attributes:
        node: where it comes from.
        output: name of the product.
        view: the value. Until the product is computed it lies as the value does, so that views of both are alike.
        factor: the scalar.
    """

    node: Node
    output: str
    view: View
    factor: float

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Computes the product by itself."""
        state.settle(self.view)
        atoms = sorted((a for a in self.view.atoms if a.size > 1 and a.stride), key=lambda atom: -atom.stride)
        x = operand(self.view, atoms)
        target = operand(replace(self.view, buffer=out), atoms)
        spec = ElementwiseSpec("mul", tuple(atom.size for atom in atoms), (x,), self.factor, target)
        work = prod(spec.extents)
        state.call(self.node.name, "mul", spec, build_elementwise, [self.view.buffer, out], work=work)


def lower_binary(operator: Operator) -> Callable[[Lowering, Node], None]:
    """Add, Sub, Mul and Div, with broadcasting."""

    def rule(state: Lowering, node: Node) -> None:
        constants = state.graph.constants
        if operator == "div":
            _check_divisor(state, node)
        if absorb(state, node, operator):
            return
        scalar = next((name for name in node.inputs if name in constants and constants[name].size == 1), None)
        if scalar is not None and (operator in ("mul", "add") or scalar == node.inputs[1]):
            other = node.inputs[0] if scalar == node.inputs[1] else node.inputs[1]
            lower_scalar(state, node, operator, other, constants[scalar].reshape(-1)[0].item())
            return
        views = [state.read(name) for name in node.inputs]
        state.values[node.outputs[0]] = emit_elementwise(state, node, operator, views, None)

    return rule


def _check_divisor(state: Lowering, node: Node) -> None:
    """Raises UnsupportedError for constants that end the program, or that no code can be made of."""
    divisor = state.graph.constants.get(node.inputs[1])
    if divisor is None:
        return
    whole = divisor.dtype == np.int32
    if (whole and not divisor.all()) or (divisor.size == 1 and abs(float(divisor.reshape(-1)[0])) < SMALLEST):
        raise UnsupportedError("the divisor is 0, or too small to have a reciprocal.")


def lower_scalar(state: Lowering, node: Node, operator: Operator, source: str, constant: float) -> None:
    """A scalar factor waits for a LIF layer; anything else is computed at once.

    An ``int`` as constant makes an integer result.
    """
    view = state.values[source] if operator == "mul" and waiting_product(state, source) else state.read(source)
    if operator == "mul":
        dtype = "int32" if isinstance(constant, int) else "float32"
        buffer = Buffer(node.outputs[0], dtype, (view.buffer.elements,))
        state.values[node.outputs[0]] = replace(view, buffer=buffer)
        state.waiting[buffer] = Scaled(node, node.outputs[0], view, constant)
        return
    state.values[node.outputs[0]] = emit_elementwise(state, node, operator, [view], constant)


def emit_elementwise(
    state: Lowering,
    node: Node,
    operator: Operator,
    views: Sequence[View],
    constant: float | None,
    *,
    out: Buffer | None = None,
) -> View:
    """Appends an elementwise kernel; spikes and counts that stay below 256 remain bytes, currents in steps int32."""
    aligned = align(views)
    limit = None if constant is not None else _limit(operator, views)
    axes = [[common_atom(atoms) for atoms in axis] for axis in aligned]
    in_steps = isinstance(constant, int) or (constant is None and all(v.buffer.dtype == "int32" for v in views))
    dtype = "uint8" if limit is not None else "int32" if in_steps else "float32"
    result = store(node.outputs[0], axes, dtype, limit=limit)
    result.buffer.density = None if limit is None else _density(operator, views)
    if out is not None:
        result = replace(result, buffer=out)
    pairs = [
        (atoms, target)
        for axis, target_axis in zip(aligned, result.axes, strict=True)
        for atoms, target in zip(axis, target_axis, strict=True)
        if target.size > 1 and target.stride
    ]
    pairs.sort(key=lambda pair: -pair[1].stride)
    spec = ElementwiseSpec(
        operator,
        tuple(target.size for _, target in pairs),
        tuple(operand(view, [atoms[index] for atoms, _ in pairs]) for index, view in enumerate(views)),
        constant,
        operand(result, [target for _, target in pairs]),
    )
    buffers = [*[view.buffer for view in views], result.buffer]
    state.call(node.name, operator, spec, build_elementwise, buffers, work=prod(spec.extents))
    return result


def _limit(operator: Operator, views: Sequence[View]) -> int | None:
    """Largest value of an integer result, or None if it must be real."""
    limits = [view.buffer.limit for view in views]
    if operator not in ("add", "mul") or any(limit is None for limit in limits):
        return None
    known = [limit for limit in limits if limit is not None]
    limit = sum(known) if operator == "add" else prod(known)
    return limit if limit <= LARGEST_BYTE else None


def _density(operator: Operator, views: Sequence[View]) -> Density | None:
    """How often an integer result has which value."""
    densities = [view.buffer.density for view in views]
    known = [density for density in densities if density is not None]
    if len(known) < len(densities):
        return None
    return reduce(added if operator == "add" else multiplied, known)


def lower_cast(state: Lowering, node: Node) -> None:
    """Cast: kernels convert what they load, so only the meaning changes.

    Raises:
        UnsupportedError: values that may not be bytes are cast to bytes.
    """
    if node.attributes["to"] == INT32:
        view = state.values[node.inputs[0]]
        if view.buffer.dtype == "float32":
            raise UnsupportedError("a cast of real numbers to int32 has no kernel.")
    elif node.attributes["to"] != FLOAT:
        view = state.read(node.inputs[0])
        if node.attributes["to"] != UINT8 or view.buffer.dtype not in SPIKES:
            raise UnsupportedError(f"a cast of {view.buffer.dtype} to ONNX type {node.attributes['to']} has no kernel.")
    state.values[node.outputs[0]] = state.values[node.inputs[0]]


def lower_quantize(state: Lowering, node: Node) -> None:
    """QuantizeLinear to uint8 with one scale and zero point: round(x / scale) to even, plus the zero point, clipped."""
    x = state.read(node.inputs[0])
    constants = [state.graph.constants[name] for name in node.inputs[1:]]
    if any(constant.size != 1 for constant in constants) or len(constants) < 2 or constants[1].dtype != np.uint8:
        raise UnsupportedError("only one scale and a uint8 zero point for the whole tensor have a kernel.")
    scale, zero = (float(constant.reshape(-1)[0]) for constant in constants)
    if not 0 < scale < np.inf:
        raise UnsupportedError(f"a scale of {scale} has no kernel, only positive numbers.")
    out = store(node.outputs[0], x.axes, "uint8", limit=LARGEST_BYTE)
    pairs = [pair for axes in zip(x.axes, out.axes, strict=True) for pair in zip(*axes, strict=True) if pair[1].stride]
    pairs.sort(key=lambda pair: -pair[1].stride)
    spec = QuantizeSpec(
        tuple(pair[1].size for pair in pairs),
        operand(x, [pair[0] for pair in pairs]),
        scale,
        int(zero),
        operand(out, [pair[1] for pair in pairs]),
    )
    state.call(node.name, "quantize", spec, build_quantize, [x.buffer, out.buffer], work=prod(spec.extents))
    state.values[node.outputs[0]] = out


def lower_reduce(*, mean: bool) -> Callable[[Lowering, Node], None]:
    """ReduceSum and ReduceMean over any axes; sums of spikes are exact."""

    def rule(state: Lowering, node: Node) -> None:
        x = state.read(node.inputs[0])
        axes = axes_of(node, state.graph)
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            state.values[node.outputs[0]] = x
            return
        axes = axes or list(range(len(x.axes)))
        gone = {axis % len(x.axes) for axis in axes}
        keep = bool(node.attributes.get("keepdims", 1))
        exact = not mean and x.buffer.dtype != "float32"
        out_axes = [() if i in gone else axis for i, axis in enumerate(x.axes)]
        out = store(node.outputs[0], out_axes, "int32" if exact else "float32")
        pairs = [
            pair
            for i in range(len(x.axes))
            if i not in gone
            for pair in zip(x.axes[i], out.axes[i], strict=True)
            if pair[1].stride
        ]
        pairs = sorted(pairs, key=lambda pair: -pair[1].stride) or [SINGLE]
        summed = [atom for i in gone for atom in x.axes[i]]
        repeated = prod(atom.size for atom in summed if not atom.stride)
        if repeated != 1 and not mean:
            raise UnsupportedError("a sum over a broadcast axis has no kernel.")
        reduced = [atom for atom in summed if atom.stride]
        spec = ReduceSpec(
            tuple(pair[1].size for pair in pairs),
            tuple(atom.size for atom in reduced),
            operand(x, [pair[0] for pair in pairs]),
            tuple(atom.stride for atom in reduced),
            prod(atom.size for atom in reduced) if mean else 1,
            operand(out, [pair[1] for pair in pairs]),
        )
        work = prod(spec.extents) * prod(spec.reduced)
        state.call(node.name, "mean" if mean else "sum", spec, build_reduce, [x.buffer, out.buffer], work=work)
        state.values[node.outputs[0]] = (
            out if keep else replace(out, axes=tuple(a for i, a in enumerate(out.axes) if i not in gone))
        )

    return rule
