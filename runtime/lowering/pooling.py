"""The rule for max pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from svitkit.errors import UnsupportedError
from svitkit.runtime.density import largest
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.pool import PoolNeuronSpec, PoolSpec, build_pool, build_pool_neurons
from svitkit.runtime.lowering.layers import Fused, Linear, finish, loop_strides, sum_dtype
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.program import Chosen
from svitkit.runtime.view import Atom, Buffer, View, merge, store

MAX_WINDOW = 1 << 16


def lower_pool(state: Lowering, node: Node) -> None:
    """MaxPool over the spatial axes; spikes stay spikes (an OR of bits)."""
    if any(node.outputs[1:]):
        raise UnsupportedError("the places of the largest have no kernel, only the largest themselves.")
    x = _input(state, node)
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
    if prod(kernel) > MAX_WINDOW or any(pad >= size for pad, size in zip(pads[:rank], kernel, strict=True)):
        raise UnsupportedError(f"a window {kernel} with padding {pads} has no kernel, only up to {MAX_WINDOW} values.")
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
    state.values[node.outputs[0]] = out
    pooled = Pooled(node, node.outputs[0], x, out, spec)
    if x.buffer in state.waiting:
        state.waiting[out.buffer] = pooled
    else:
        pooled.emit(state, out.buffer)


@dataclass
class Pooled:
    """A pooling of an integer layer's currents that waits for its consumer.

    Attributes:
        node: where it comes from.
        output: name of the result.
        x: the currents; they wait themselves.
        out: the result as it would lie.
        spec: the pooling by itself.
    """

    node: Node
    output: str
    x: View
    out: View
    spec: PoolSpec

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Computes the pooled currents by themselves."""
        state.settle(self.x)
        work = out.elements * self.spec.window.taps
        state.call(self.node.name, "max_pool", self.spec, build_pool, [self.x.buffer, out], work=work)


def _input(state: Lowering, node: Node) -> View:
    """What is pooled; it goes on waiting where the sums may be pooled instead: positive scales and no other reader.

    Integer factors and biases may also stand behind the pooling (:func:`svitkit.runtime.lowering.products.absorb`).
    """
    x = state.values[node.inputs[0]]
    linear = state.waiting.get(x.buffer)
    if not isinstance(linear, Linear) or not linear.integer:
        return state.read(node.inputs[0])
    stored = all(atom.stride for atom in x.atoms if atom.size > 1)
    alone = state.consumers[linear.output] == 1
    rising = linear.scale is None or bool((linear.scale > 0).all())
    return x if stored and alone and rising else state.read(node.inputs[0])


def emit_pooled(state: Lowering, pooled: Pooled, source: View, fused: Fused) -> bool:
    """Emits a layer that stores its sums, and one kernel for pooling, scale, bias and neurons.

    Args:
        state: the network on its way.
        pooled: the pooling.
        source: the pooled currents as the neurons read them.
        fused: the neurons.

    Returns:
        Whether the spikes lie as the pooled currents would; if not, nothing is emitted.
    """
    linear = state.waiting[pooled.x.buffer]
    lies = [atom.stride for atom in source.atoms if atom.size > 1]
    if lies != [atom.stride for atom in fused.out.atoms if atom.size > 1] or not isinstance(linear, Linear):
        return False
    if linear.scale is None:
        return False
    del state.waiting[pooled.x.buffer], state.waiting[pooled.out.buffer]
    sums = Buffer(f"{pooled.x.buffer.name}.sums", sum_dtype(linear), pooled.x.buffer.shape)
    state.emit_layer(state, replace(linear, scale=None, bias=None, drop=0, lift=0), sums, None)
    spec = PoolNeuronSpec(
        replace(pooled.spec, dtype=sums.dtype),
        linear.bias is not None,
        fused.params,
        fused.state is not None,
        out_dtype=fused.out.buffer.dtype,
        fixed=linear.fixed,
        drop=linear.drop,
        lift=linear.lift,
    )
    out = fused.out.buffer
    buffers = [sums, *finish(state, linear, fused, out)]
    work = out.elements * pooled.spec.window.taps
    state.call(fused.name, "max_pool_lif", spec, build_pool_neurons, buffers, work=work)
    reason, call = "sums of integers are pooled before scale and bias", len(state.program.calls) - 1
    state.program.kernels.append(Chosen(layer=fused.name, kernel="max_pool_lif", reason=reason, call=call))
    return True
