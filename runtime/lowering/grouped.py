"""The rule for grouped and depthwise convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.grouped import GroupedSpec, build_grouped
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.lowering.layers import loop_strides
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.program import Chosen
from svitkit.runtime.view import Atom, View, merge, store


@dataclass(frozen=True)
class _Layer:
    """What the node computes: its weights (groups * outputs, inputs, ...) float32 or int8, and geometry."""

    weight: NDArray[Any]
    bias: NDArray[Any] | None
    groups: int
    window: Window
    out_extents: tuple[int, ...]


def lower_grouped(
    state: Lowering, node: Node, bias: NDArray[Any] | None, window: Window, out_extents: tuple[int, ...]
) -> None:
    """Computes a grouped convolution by itself; neurons behind it have a kernel of their own.

    Args:
        state: the network on its way.
        node: the convolution.
        bias: (outputs,) float32, or None.
        window: geometry over the spatial axes.
        out_extents: spatial extents of the result.

    Raises:
        UnsupportedError: the channels do not lie evenly spaced.
    """
    x = state.read(node.inputs[0])
    layer = _Layer(state.graph.constants[node.inputs[1]], bias, node.attributes["group"], window, out_extents)
    dtype = "int32" if layer.weight.dtype == np.int8 else "float32"
    space = tuple((Atom(extent, 1, "space"),) for extent in out_extents)
    out = store(node.outputs[0], (x.axes[0], (Atom(len(layer.weight), 1, "channel"),), *space), dtype)
    spec = _spec(x, out, layer)
    weight = layer.weight if dtype == "int32" else np.asarray(layer.weight, np.float32)
    packed = weight.reshape(*weight.shape[:2], -1).transpose(2, 1, 0)
    buffers = [x.buffer, state.weights(f"{node.inputs[1]}.taps", np.ascontiguousarray(packed))]
    if bias is not None:
        buffers.append(state.weights(f"{node.outputs[0]}.bias", np.asarray(bias, np.float32)))
    work = out.buffer.elements * window.taps * spec.inputs
    state.call(node.name, "grouped_conv", spec, build_grouped, [*buffers, out.buffer], work=work)
    reason = "every output reads its own input" if spec.depthwise else "every output reads the inputs of its group"
    call = len(state.program.calls) - 1
    density = x.buffer.density
    state.program.kernels.append(
        Chosen(
            layer=node.name,
            kernel="grouped_conv",
            reason=reason,
            call=call,
            macs=work,
            input_density=density.active if density else None,
        )
    )
    state.values[node.outputs[0]] = out


def _spec(x: View, out: View, layer: _Layer) -> GroupedSpec:
    channel = merge(x.axes[1])
    axes = [merge(axis) or (Atom(1, 0, "space"),) for axis in x.axes[2:]]
    if len(channel) > 1 or any(len(axis) != 1 for axis in axes):
        raise UnsupportedError("a grouped convolution needs spatial and channel axes that each lie behind one another.")
    pairs = [pair for pair in zip(x.axes[0], out.axes[0], strict=True) if pair[0].stride]
    return GroupedSpec(
        window=layer.window,
        out_extents=layer.out_extents,
        outer=tuple(pair[0].size for pair in pairs),
        groups=layer.groups,
        inputs=layer.weight.shape[1],
        outputs=len(layer.weight) // layer.groups,
        in_strides=tuple(axis[0].stride for axis in axes),
        in_outer=tuple(pair[0].stride for pair in pairs),
        in_channel=channel[0].stride if channel else 1,
        in_offset=x.offset,
        in_elements=x.buffer.elements,
        in_dtype=x.buffer.dtype,
        out_strides=loop_strides([atom for axis in out.axes[2:] for atom in axis], layer.out_extents),
        out_outer=tuple(pair[1].stride for pair in pairs),
        out_elements=out.buffer.elements,
        dtype=out.buffer.dtype,
        has_bias=layer.bias is not None,
    )
