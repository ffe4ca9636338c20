"""The rule for max pooling."""

from __future__ import annotations

from math import prod

from svitkit.errors import UnsupportedError
from svitkit.runtime.density import largest
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.pool import PoolSpec, build_pool
from svitkit.runtime.lowering.layers import loop_strides
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.view import Atom, merge, store


def lower_pool(state: Lowering, node: Node) -> None:
    """MaxPool over the spatial axes; spikes stay spikes (an OR of bits)."""
    x = state.read(node.inputs[0])
    attributes = node.attributes
    kernel = tuple(attributes["kernel_shape"])
    rank = len(kernel)
    pads = tuple(attributes.get("pads", [0] * (2 * rank)))
    if (
        attributes.get("ceil_mode", 0)
        or pads[:rank] != pads[rank:]
        or any(d != 1 for d in attributes.get("dilations", [1]))
    ):
        raise UnsupportedError("ceil_mode, uneven padding and dilation have no kernel.")
    stride = tuple(attributes.get("strides", [1] * rank))
    axes = [merge(axis) or (Atom(1, 0, "space"),) for axis in x.axes[2:]]
    extents = tuple(prod(a.size for a in axis) for axis in axes)
    out_extents = tuple(
        (e + 2 * p - k) // s + 1 for e, p, k, s in zip(extents, pads[:rank], kernel, stride, strict=True)
    )
    channel = merge(x.axes[1])
    if any(len(axis) != 1 for axis in axes) or len(channel) > 1:
        raise UnsupportedError("pooling needs spatial and channel axes that each lie behind one another.")
    out_axes = (x.axes[0], x.axes[1], *[(Atom(extent, 1, "space"),) for extent in out_extents])
    out = store(node.outputs[0], out_axes, x.buffer.dtype, limit=x.buffer.limit)
    out.buffer.density = largest(x.buffer.density, prod(kernel)) if x.buffer.density else None
    pairs = [pair for pair in zip(x.axes[0], out.axes[0], strict=True) if pair[0].stride]
    spec = PoolSpec(
        window=Window(extents, kernel, stride, pads[:rank]),
        out_extents=out_extents,
        outer=tuple(pair[0].size for pair in pairs),
        channels=channel[0].size if channel else 1,
        in_strides=tuple(axis[0].stride for axis in axes),
        in_outer=tuple(pair[0].stride for pair in pairs),
        in_channel=channel[0].stride if channel else 1,
        in_offset=x.offset,
        in_elements=x.buffer.elements,
        out_strides=loop_strides([a for axis in out.axes[2:] for a in axis], out_extents),
        out_outer=tuple(pair[1].stride for pair in pairs),
        out_elements=out.buffer.elements,
        dtype=x.buffer.dtype,
    )
    work = out.buffer.elements * spec.window.taps
    state.call(node.name, "max_pool", spec, build_pool, [x.buffer, out.buffer], work=work)
    state.values[node.outputs[0]] = out
