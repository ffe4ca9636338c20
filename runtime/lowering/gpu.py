"""Rules for GPUs, where they differ from those for the CPU: layers with constant weights, and attention."""

from __future__ import annotations

from collections.abc import Sequence

from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.attention import AttentionSpec
from svitkit.runtime.kernels.gpu_attention import (
    GpuAttentionSpec,
    KeyValueSpec,
    build_gpu_attention,
    build_key_values,
)
from svitkit.runtime.kernels.gpu_linear import (
    WeightType,
    build_gpu_linear,
    gpu_linear_spec,
    pack_gpu_linear,
)
from svitkit.runtime.kernels.linear import LinearShape
from svitkit.runtime.lowering.layers import (
    Fused,
    Linear,
    density_of,
    finish,
    kernel_name,
    shape_of,
    stored,
    weight_of,
)
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.program import Chosen, Precision
from svitkit.runtime.view import PACKED, WORD, Buffer, View

REASONS = {
    PACKED: "packed spikes: the weights of every spike are added",
    "uint8": "counts: inputs of 0 are passed over",
}


def emit_gpu_linear(state: Lowering, linear: Linear, out: Buffer, fused: Fused | None) -> None:
    """Appends the call of a layer with constant weights, with its neurons over all time steps."""
    assert state.gpu is not None
    shape, target = shape_of(linear, out, fused)
    spec = gpu_linear_spec(shape, _weight_dtype(shape, state.gpu.precision))
    weights = stored(state, linear, f"{linear.node.inputs[1]}.columns", pack_gpu_linear(spec, weight_of(linear)))
    kernel = kernel_name("event" if shape.in_dtype == PACKED else "dense", shape)
    layer = fused.name if fused else linear.node.name
    buffers = [linear.x.buffer, weights, *finish(state, linear, fused, target)]
    state.call(layer, kernel, spec, build_gpu_linear, buffers)
    density = density_of(shape, linear.x.buffer)
    state.program.kernels.append(
        Chosen(
            layer=layer,
            kernel=kernel,
            reason=REASONS.get(shape.in_dtype, "the input is dense") + f"; {spec.weight_dtype} weights",
            call=len(state.program.calls) - 1,
            weights=linear.node.name,
            macs=shape.macs,
            input_density=density.active if density else None,
        )
    )


def _weight_dtype(shape: LinearShape, precision: Precision) -> WeightType:
    """Type of the stored weights; real inputs, which most often are the image, keep float32 weights."""
    if shape.integer:
        return "int8"
    return "float16" if precision == "fp16" and shape.limit is not None else "float32"


def emit_gpu_attention(
    state: Lowering,
    node: Node,
    shape: AttentionSpec,
    factors: Sequence[View],
    potential: Buffer | None,
    out: View,
) -> bool:
    """Appends the two calls of an attention of spikes with its neurons.

    Args:
        state: the network on its way.
        node: the LIF node.
        shape: of the attention.
        factors: q, k and v.
        potential: the neurons' state in step mode.
        out: the spikes.

    Returns:
        Whether there is a kernel for this layout: a row of packed spikes must hold the heads of one token side by side.
    """
    if out.buffer.dtype == PACKED and not _holds_heads(shape):
        return False
    q, k, v = (factor.buffer for factor in factors)
    spec = GpuAttentionSpec(shape, q.dtype, k.dtype, v.dtype, out.buffer.dtype)
    products = Buffer(f"{node.name}.kv", shape.kv_dtype, (spec.products,))
    state.call(node.name, "key_values", KeyValueSpec(spec), build_key_values, [k, v, products])
    states = [potential] if potential else []
    state.call(node.name, "attention", spec, build_gpu_attention, [q, products, *states, out.buffer])
    reason, call = "two products of spikes before the neurons", len(state.program.calls) - 1
    state.program.kernels.append(Chosen(layer=node.name, kernel="attention", reason=reason, call=call))
    return True


def _holds_heads(shape: AttentionSpec) -> bool:
    """Whether a row of the result is all that the heads have for one token."""
    out = shape.out
    side_by_side = shape.heads == 1 or out.head == shape.width
    steps = [out.time] * (shape.timesteps > 1) + [out.token] * (shape.queries > 1)
    return side_by_side and all(step % WORD == 0 for step in steps)
