"""Rules for convolutions and matrix products with constant weights.

They wait until their consumer is known: if that is a LIF layer, both become one kernel and the currents are never
stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.lowering.grouped import lower_grouped
from svitkit.runtime.lowering.layers import Linear
from svitkit.runtime.lowering.pooling import Pooled
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.view import SPIKES, Atom, Axis, View, merge, store


def lower_conv(state: Lowering, node: Node) -> None:
    """Conv with constant weights over any number of spatial axes."""
    bias = state.graph.constants[node.inputs[2]] if len(node.inputs) > 2 else None
    _defer_conv(state, node, bias, 0)


def lower_conv_integer(state: Lowering, node: Node) -> None:
    """ConvInteger: bytes times int8 weights, summed in int32."""
    _check_bytes(state, node)
    _defer_conv(state, node, None, zero_point(state, node))


def zero_point(state: Lowering, node: Node) -> int:
    """Value of the input that means 0.

    Raises:
        UnsupportedError: the weights have a zero point.
    """
    constants = [state.graph.constants[name] for name in node.inputs[2:] if name]
    if len(constants) > 1 and np.any(constants[1]):
        raise UnsupportedError("weights with a zero point have no kernel; quantize them symmetrically.")
    return int(constants[0].reshape(-1)[0]) if constants else 0


def _check_bytes(state: Lowering, node: Node) -> None:
    """Integer layers take uint8 inputs and int8 weights."""
    dtype = state.read(node.inputs[0]).buffer.dtype
    weight = state.graph.constants.get(node.inputs[1])
    if dtype not in SPIKES or weight is None or weight.dtype != np.int8:
        got = "an activation" if weight is None else weight.dtype
        raise UnsupportedError(f"inputs are {dtype} and weights {got}; wanted uint8 and constant int8.")


def _defer_conv(state: Lowering, node: Node, bias: NDArray[Any] | None, zero: int) -> None:
    x = state.read(node.inputs[0])
    weight = state.graph.constants[node.inputs[1]]
    outputs, inputs, *kernel = weight.shape
    rank = len(kernel)
    attributes = node.attributes
    groups = int(attributes.get("group", 1))
    if groups < 1 or outputs % groups or inputs * groups != x.shape[1] or (bias is not None and bias.size != outputs):
        got = "no bias" if bias is None else f"{bias.size} biases"
        raise UnsupportedError(f"weights {weight.shape} in {groups} groups and {got} do not fit an input {x.shape}.")
    if any(step != 1 for step in attributes.get("dilations", [1])):
        raise UnsupportedError("dilated convolutions have no kernel.")
    stride = tuple(attributes.get("strides", [1] * rank))
    pads = tuple(attributes.get("pads", [0] * (2 * rank)))
    if pads[:rank] != pads[rank:]:
        raise UnsupportedError(f"uneven padding {pads} has no kernel.")
    if groups != 1:
        if zero:
            raise UnsupportedError("a grouped convolution of inputs with a zero point has no kernel.")
        window = Window(x.shape[2:], tuple(kernel), stride, pads[:rank])
        lower_grouped(state, node, bias, window, _out_extents(window))
        return
    space, window = _spatial(x.axes[2:], Window((), tuple(kernel), stride, pads[:rank]))
    out_extents = _out_extents(window)
    axes = x.axes[2:] if window.is_pointwise else tuple((Atom(extent, 1, "space"),) for extent in out_extents)
    rows = weight.reshape(outputs, inputs, -1).transpose(2, 1, 0).reshape(-1, outputs)
    out_axes = (x.axes[0], (Atom(outputs, 1, "channel"),), *axes)
    channels, name = merge(x.axes[1]), node.outputs[0]
    linear = Linear(node, name, x, rows, bias, window, space, x.axes[0], channels, out_extents, out_axes)
    _defer(state, replace(linear, zero_point=zero))


def _out_extents(window: Window) -> tuple[int, ...]:
    return tuple(
        (extent + 2 * pad - size) // step + 1
        for extent, pad, size, step in zip(window.in_extents, window.padding, window.kernel, window.stride, strict=True)
    )


def _spatial(axes: Sequence[Axis], window: Window) -> tuple[Axis, Window]:
    """Atoms of the spatial axes and the window over them; a pointwise layer takes any number of atoms."""
    if window.is_pointwise:
        atoms = tuple(atom for axis in axes for atom in axis if atom.size > 1)
        ones = (1,) * len(atoms)
        return atoms, Window(tuple(atom.size for atom in atoms), ones, ones, (0,) * len(atoms))
    merged = [merge(axis) or (Atom(1, 0, "space"),) for axis in axes]
    if any(len(axis) != 1 for axis in merged):
        raise UnsupportedError("a convolution over a flattened axis needs its factors to lie behind one another.")
    atoms = tuple(axis[0] for axis in merged)
    return atoms, replace(window, in_extents=tuple(atom.size for atom in atoms))


def lower_gemm(state: Lowering, node: Node) -> None:
    """Gemm with constant weights: a matrix product with a bias."""
    attributes = node.attributes
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise UnsupportedError("transA, alpha and beta other than 0, 1 and 1 have no kernel.")
    weight = state.graph.constants[node.inputs[1]]
    bias = state.graph.constants[node.inputs[2]] if len(node.inputs) > 2 else None
    weight = weight.T if attributes.get("transB", 0) else weight
    if bias is not None and bias.size != 1 and not bias.shape[-1:] == weight.shape[-1:] == (bias.size,):
        raise UnsupportedError(f"a bias of shape {bias.shape} has no kernel, only one number or one per output.")
    defer_product(state, node, weight, bias)


def lower_matmul_integer(state: Lowering, node: Node) -> None:
    """MatMulInteger: bytes times int8 weights, summed in int32."""
    _check_bytes(state, node)
    defer_product(state, node, state.graph.constants[node.inputs[1]], None, zero=zero_point(state, node))


def defer_product(
    state: Lowering, node: Node, weight: NDArray[Any], bias: NDArray[Any] | None, *, zero: int = 0
) -> None:
    """Product of x (..., K) and weight (K, N): every axis but the last is a position."""
    if weight.ndim != 2:
        raise UnsupportedError(f"constant factor of shape {weight.shape}; a matrix (K, N) is needed.")
    x = state.read(node.inputs[0])
    outer = [atom for axis in x.axes[:-1] for atom in axis if atom.size > 1]
    space = tuple(atom for atom in outer if atom.role != "time")
    time = tuple(atom for atom in outer if atom.role == "time")
    ones = (1,) * len(space)
    window = Window(tuple(atom.size for atom in space), ones, ones, (0,) * len(space))
    positions = [tuple(a if a.role == "time" else replace(a, role="space") for a in axis) for axis in x.axes[:-1]]
    axes = (*positions, (Atom(weight.shape[1], 1, "channel"),))
    flat = None if bias is None else np.broadcast_to(bias.reshape(-1), weight.shape[1:])
    channels, extents = merge(x.axes[-1]), window.in_extents
    linear = Linear(node, node.outputs[0], x, weight, flat, window, space, time, channels, extents, axes)
    _defer(state, replace(linear, zero_point=zero))


def _defer(state: Lowering, linear: Linear) -> None:
    view = store(linear.output, linear.axes, "int32" if linear.integer else "float32")
    state.values[linear.output] = view
    state.waiting[view.buffer] = linear


def absorb(state: Lowering, node: Node, operator: str) -> bool:
    """Takes a constant per output channel into a waiting layer.

    Sums of int8 weights take a factor and then a bias, float32 sums a bias. Where these are int32, they may stand
    behind a pooling of the sums, and a division by a power of two and a subtraction may follow.

    Returns:
        Whether the node is done with.
    """
    for source, constant in (node.inputs, node.inputs[::-1]):
        if constant not in state.graph.constants or source not in state.values or state.consumers[source] > 1:
            continue
        view, array = state.values[source], state.graph.constants[constant]
        waiting = state.waiting.get(view.buffer)
        linear = state.waiting.get(waiting.x.buffer) if isinstance(waiting, Pooled) else waiting
        behind = linear is not waiting
        fits = array.dtype == np.int32 and (operator != "mul" or array.min() > 0)
        if not isinstance(linear, Linear) or (behind and not fits):
            continue
        if not _take(linear, operator, view, array, divides=constant == node.inputs[1]):
            continue
        if linear.scale is not None:
            view.buffer.dtype = "int32" if linear.fixed else "float32"
        assert isinstance(waiting, Linear | Pooled)
        waiting.output = node.outputs[0]
        state.values[node.outputs[0]] = view
        return True
    return False


def _take(linear: Linear, operator: str, view: View, constant: NDArray[Any], *, divides: bool) -> bool:
    """Takes one constant into a layer, if it is the next that the layer can take."""
    scalar = int(constant.reshape(-1)[0]) if constant.size == 1 and constant.dtype == np.int32 else None
    if linear.bias is not None:
        if scalar is None or not linear.fixed:
            return False
        if operator == "div" and divides and not linear.drop and scalar > 1 and scalar & (scalar - 1) == 0:
            linear.drop = scalar.bit_length() - 1
        elif operator == "add" and linear.drop and not linear.lift and scalar < 0:
            linear.lift = -scalar
        else:
            return False
        return True
    vector = _per_channel(view, constant, linear.weight.shape[1])
    wants_scale = linear.integer and linear.scale is None
    if vector is None or wants_scale != (operator == "mul") or operator not in ("mul", "add"):
        return False
    if operator == "mul":
        linear.scale = vector
    else:
        linear.bias = vector
    return True


def _per_channel(view: View, constant: NDArray[Any], outputs: int) -> NDArray[Any] | None:
    """A constant as one value for each output channel, int32 or float32; None if it varies along another axis."""
    dtype = np.int32 if constant.dtype == np.int32 else np.float32
    if constant.size == 1:
        return np.full(outputs, constant.reshape(-1)[0], dtype)
    if constant.ndim > len(view.axes) or constant.size != outputs or outputs not in constant.shape:
        return None
    axis = view.axes[len(view.axes) - constant.ndim + constant.shape.index(outputs)]
    is_channels = all(atom.role == "channel" for atom in axis) and prod(atom.size for atom in axis) == outputs
    return np.asarray(constant, dtype).reshape(-1) if is_channels else None
