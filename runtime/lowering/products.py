"""Rules for convolutions and matrix products with constant weights.

They wait until their consumer is known: if that is a LIF layer, both become one kernel and the currents are never
stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.linear import LinearSpec, Window, build_linear
from svitkit.runtime.kernels.panels import pack_panels
from svitkit.runtime.lowering.translation import Lowering, time_extent
from svitkit.runtime.view import Atom, Axis, Buffer, View, merge, store

# A segment's weights and a block's accumulators share a level 1 cache of 32 KiB or more.
SEGMENT_BYTES = 24 * 1024
MAX_BLOCK = 32


@dataclass
class Linear:
    """A convolution or matrix product that waits for its consumer.

    Attributes:
        node: where it comes from.
        x: the input.
        weight: (taps * inputs, outputs) float32.
        bias: (outputs,) float32, or None.
        window: geometry over the input's spatial axes.
        space: atoms of the input's spatial axes, each axis of the window being one.
        time: atoms of the batch axis.
        channels: atoms of the input's channel axis.
        axes: sizes and roles of the output, strides unassigned (0 marks broadcast atoms).
        output: name of the value that it computes, once a bias was absorbed.
    """

    node: Node
    output: str
    x: View
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    window: Window
    space: Axis
    time: Axis
    channels: Axis
    out_extents: tuple[int, ...]
    axes: tuple[Axis, ...]

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Computes the currents by themselves."""
        emit_linear(state, self, out, None)


@dataclass(frozen=True)
class Fused:
    """A LIF layer that a linear kernel ends with."""

    name: str
    params: LIFParams
    out: View
    state: Buffer | None


def lower_conv(state: Lowering, node: Node) -> None:
    """Conv with constant weights over any number of spatial axes."""
    x = state.read(node.inputs[0])
    weight = state.graph.constants[node.inputs[1]]
    outputs, inputs, *kernel = weight.shape
    rank = len(kernel)
    attributes = node.attributes
    if attributes.get("group", 1) != 1 or any(step != 1 for step in attributes.get("dilations", [1])):
        raise UnsupportedError("grouped and dilated convolutions have no kernel.")
    stride = tuple(attributes.get("strides", [1] * rank))
    pads = tuple(attributes.get("pads", [0] * (2 * rank)))
    if pads[:rank] != pads[rank:]:
        raise UnsupportedError(f"uneven padding {pads} has no kernel.")
    space, window = _spatial(x.axes[2:], Window((), tuple(kernel), stride, pads[:rank]))
    out_extents = tuple(
        (extent + 2 * pad - size) // step + 1
        for extent, pad, size, step in zip(window.in_extents, window.padding, window.kernel, window.stride, strict=True)
    )
    axes = x.axes[2:] if window.is_pointwise else tuple((Atom(extent, 1, "space"),) for extent in out_extents)
    rows = weight.reshape(outputs, inputs, -1).transpose(2, 1, 0).reshape(-1, outputs)
    out_axes = (x.axes[0], (Atom(outputs, 1, "channel"),), *axes)
    bias = state.graph.constants[node.inputs[2]] if len(node.inputs) > 2 else None
    channels = merge(x.axes[1])
    _defer(
        state, Linear(node, node.outputs[0], x, rows, bias, window, space, x.axes[0], channels, out_extents, out_axes)
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
    defer_product(state, node, weight.T if attributes.get("transB", 0) else weight, bias)


def defer_product(state: Lowering, node: Node, weight: NDArray[Any], bias: NDArray[Any] | None) -> None:
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
    _defer(state, Linear(node, node.outputs[0], x, weight, flat, window, space, time, channels, extents, axes))


def _defer(state: Lowering, linear: Linear) -> None:
    view = store(linear.output, linear.axes, "float32")
    state.values[linear.output] = view
    state.waiting[view.buffer] = linear


def absorb_bias(state: Lowering, node: Node) -> bool:
    """Adds a constant vector along the output channels to the bias of a waiting layer."""
    for source, constant in (node.inputs, node.inputs[::-1]):
        if constant not in state.graph.constants or source not in state.values:
            continue
        view, bias = state.values[source], state.graph.constants[constant]
        linear = state.waiting.get(view.buffer)
        if not isinstance(linear, Linear) or linear.bias is not None or state.consumers[source] > 1:
            continue
        if bias.size == linear.weight.shape[1] == view.shape[-1] == bias.shape[-1]:
            linear.bias, linear.output = bias.reshape(-1), node.outputs[0]
            state.values[node.outputs[0]] = view
            return True
    return False


def emit_linear(state: Lowering, linear: Linear, out: Buffer, fused: Fused | None) -> None:
    """Chooses event or dense, and appends the call."""
    x = linear.x
    time = merge(linear.time)
    if len(time) > 1:
        raise UnsupportedError("time and batch do not lie behind one another.")
    event = x.buffer.limit is not None and len(linear.channels) <= 1 and all(a.stride == 1 for a in linear.channels)
    target = fused.out if fused else store(out.name, linear.axes, "float32")
    out_space = sorted((atom for atom in target.atoms if atom.role == "space"), key=lambda atom: -atom.stride)
    out_time = next((atom for atom in target.atoms if atom.role == "time" and atom.size > 1), None)
    space, window, extents = _blockable(linear, out_space)
    out_space = list(merge(out_space)) if len(extents) < len(linear.out_extents) else out_space
    spec = LinearSpec(
        timesteps=time_extent(target),
        out_extents=extents,
        window=window,
        in_strides=tuple(atom.stride for atom in space),
        time_strides=(time[0].stride if time else 0, out_time.stride if out_time else 0),
        channels=tuple((atom.size, atom.stride) for atom in linear.channels) or ((1, 1),),
        in_offset=x.offset,
        in_elements=x.buffer.elements,
        in_dtype=x.buffer.dtype,
        limit=x.buffer.limit,
        event=event,
        chunk=_chunk(prod(atom.size for atom in linear.channels), state.lanes),
        block=_block(extents),
        out_strides=loop_strides(out_space, extents),
        out_elements=target.buffer.elements,
        outputs=linear.weight.shape[1],
        has_bias=linear.bias is not None,
        lanes=state.lanes,
        lif=fused.params if fused else None,
        keeps_state=fused is not None and fused.state is not None,
    )
    node = linear.node
    buffers = [
        x.buffer,
        state.weights(f"{node.inputs[1]}.panels", pack_panels(np.asarray(linear.weight, np.float32), state.lanes)),
    ]
    if linear.bias is not None:
        buffers.append(state.weights(f"{node.outputs[0]}.bias", np.asarray(linear.bias, np.float32)))
    if event:
        buffers.append(Buffer(f"{node.outputs[0]}.index", "uint16", (spec.lists.entries,)))
        buffers.append(Buffer(f"{node.outputs[0]}.count", "int32", (spec.lists.segments,)))
        if spec.lists.counts:
            buffers.append(Buffer(f"{node.outputs[0]}.value", "float32", (spec.lists.entries,)))
    buffers.append(Buffer(f"{node.outputs[0]}.scratch", "float32", (spec.scratch,)))
    if fused and fused.state:
        buffers.append(fused.state)
    layer = fused.name if fused else node.name
    kernel = ("event" if event else "dense") + ("_conv" if window.taps > 1 else "_matmul") + ("_lif" if fused else "")
    state.call(layer, kernel, spec, build_linear, [*buffers, target.buffer if fused else out])
    reason = "the input is spikes or spike counts" if event else "the input is real-valued"
    state.program.kernels.append((layer, kernel, reason))


def _blockable(linear: Linear, out_space: Sequence[Atom]) -> tuple[Axis, Window, tuple[int, ...]]:
    """Joins the positions of a pointwise layer into one axis where they lie behind one another on both sides."""
    space, joined = linear.space, merge(linear.space)
    if not linear.window.is_pointwise or len(joined) != 1 or len(merge(out_space)) != 1:
        return space, linear.window, linear.out_extents
    extents = (joined[0].size,)
    return joined, Window(extents, (1,), (1,), (0,)), extents


def _block(extents: Sequence[int]) -> int:
    """Positions that are computed together: the largest divisor of the last extent up to ``MAX_BLOCK``."""
    last = extents[-1] if extents else 1
    return max(size for size in range(1, min(last, MAX_BLOCK) + 1) if last % size == 0)


def _chunk(inputs: int, lanes: int) -> int:
    """Inputs of one segment: equal parts whose weights stay below ``SEGMENT_BYTES``."""
    parts = -(-inputs * lanes * 4 // SEGMENT_BYTES)
    return -(-inputs // parts)


def loop_strides(atoms: Sequence[Atom], extents: Sequence[int]) -> tuple[int, ...]:
    """Strides of the output loops; loops of extent 1 have no atom."""
    rest = iter([atom for atom in atoms if atom.size > 1])
    return tuple(next(rest).stride if extent > 1 else 0 for extent in extents)
