"""The rule for LIF layers: fused into the layer before them where its currents have no other reader."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from svitkit.errors import UnsupportedError
from svitkit.lif_integer import IntegerLIF
from svitkit.runtime.density import spikes
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.emit import Neuron, state_dtype
from svitkit.runtime.kernels.neurons import NeuronSpec, build_neurons
from svitkit.runtime.lowering.arithmetic import Scaled
from svitkit.runtime.lowering.attention import emit_attention, find_attention, forget_attention
from svitkit.runtime.lowering.layers import Fused, Linear
from svitkit.runtime.lowering.pooling import Pooled, emit_pooled
from svitkit.runtime.lowering.translation import Lowering, operand, time_extent
from svitkit.runtime.program import Chosen, Tap
from svitkit.runtime.view import STORAGE_ORDER, Atom, Axis, Buffer, View, align, store


def lower_lif(state: Lowering, node: Node) -> None:
    """LIF: one kernel with the layer before it, or with a scalar factor before it, or alone."""
    params: Neuron = node.attributes.get("integer") or node.attributes["params"]
    source = state.values[node.inputs[0]]
    waiting = state.waiting.get(source.buffer)
    if waiting is not None and state.consumers[waiting.output] > 1:
        waiting = None
    timesteps = source.shape[0]
    out_axes = (_time_axis(timesteps), *source.axes[1:])
    spread = [tuple(replace(a, stride=1) for a in axis) for axis in out_axes]
    out = store(node.outputs[0], spread, state.spike_dtype(spread), limit=1)
    out.buffer.density = spikes(_firing_rate(state, node.name), node.name)
    potential = _state_buffer(state, node, out, params) if _keeps_state(state, node, params) else None
    fused = Fused(node.name, params, out, potential)
    if isinstance(waiting, Linear) and _same_order(waiting, source, out):
        del state.waiting[source.buffer]
        state.emit_layer(state, waiting, source.buffer, fused)
    elif not isinstance(waiting, Pooled) or not emit_pooled(state, waiting, source, fused):
        _lower_alone(state, node, (source, out), params, potential)
    state.values[node.outputs[0]] = out
    state.program.taps.append(Tap(node.name, out, len(state.program.calls) - 1))


def _lower_alone(
    state: Lowering, node: Node, views: tuple[View, View], params: Neuron, potential: Buffer | None
) -> None:
    """Neurons alone, or with the factor and the attention before them that nothing else reads."""
    (source, out), scale = views, 1.0
    waiting = state.waiting.get(source.buffer)
    if isinstance(waiting, Scaled) and state.consumers[waiting.output] == 1:
        del state.waiting[source.buffer]
        source, scale = replace(source, buffer=waiting.view.buffer), waiting.factor
    attention = find_attention(state, source) if waiting and state.consumers[waiting.output] == 1 else None
    if attention and emit_attention(state, node, attention, (source, out), params, scale, potential):
        forget_attention(state, source)
        return
    state.settle(source)
    _emit_neurons(state, node, source, out, params, scale, potential)


def _firing_rate(state: Lowering, layer: str) -> float | None:
    """The rate that calibration saw in a layer of neurons."""
    return next((lif.firing_rate for lif in state.graph.metadata.lif_layers if lif.name == layer), None)


def _time_axis(timesteps: int) -> Axis:
    return (Atom(timesteps, 1, "time"),) if timesteps > 1 else ()


def _same_order(linear: Linear, source: View, out: View) -> bool:
    """Whether the spikes are stored in the order in which the linear kernel computes them."""
    pairs = [
        (a, b)
        for axes in zip(source.axes[1:], out.axes[1:], strict=True)
        for a, b in zip(*axes, strict=True)
        if a.size > 1
    ]
    computed = sorted(pairs, key=lambda pair: -pair[0].stride)
    spatial = [extent for extent in linear.out_extents if extent > 1]
    return computed == sorted(pairs, key=lambda pair: -pair[1].stride) and spatial == [
        a.size for a, _ in computed if a.role == "space"
    ]


def _initial(params: Neuron) -> float:
    """The potential before the first step."""
    return 0 if isinstance(params, IntegerLIF) else params.v_initial


def _keeps_state(state: Lowering, node: Node, params: Neuron) -> bool:
    """Whether the potential stays between inferences, as it does where the file has it as an input.

    Raises:
        UnsupportedError: it is computed, or starts as something else than the neurons' rest.
    """
    given, constants = node.inputs[1], state.graph.constants
    if given in constants and np.any(constants[given] != _initial(params)):
        raise UnsupportedError(f"potentials that start otherwise than at {_initial(params)} have no kernel.")
    if given not in constants and given not in state.graph.inputs:
        raise UnsupportedError("potentials that are computed have no kernel.")
    return given not in constants


def _state_buffer(state: Lowering, node: Node, out: View, params: Neuron) -> Buffer:
    elements = out.buffer.elements // time_extent(out)
    buffer = Buffer(f"{node.name}.v", state_dtype(params), (elements,), space="states")
    state.program.states[buffer] = _initial(params)
    return buffer


def _emit_neurons(
    state: Lowering, node: Node, x: View, out: View, params: Neuron, scale: float, potential: Buffer | None
) -> None:
    pairs = [pair for axis in align([x, out]) for pair in axis if pair[1].size > 1]
    pairs.sort(key=lambda pair: STORAGE_ORDER.index(pair[1].role))
    neurons = [pair for pair in pairs if pair[1].role != "time"]
    channels = sum(pair[1].role == "channel" for pair in neurons)
    if not neurons or (state.gpu is not None and channels == 0):
        neurons.append((Atom(1, 0, "channel"),) * 2)
    time = [pair for pair in pairs if pair[1].role == "time"]
    spec = NeuronSpec(
        extents=tuple(pair[1].size for pair in neurons),
        timesteps=prod(pair[1].size for pair in time),
        x=operand(x, [pair[0] for pair in neurons]),
        x_time=time[0][0].stride if time else 0,
        out=operand(out, [pair[1] for pair in neurons]),
        out_time=time[0][1].stride if time else 0,
        scale=scale,
        params=params,
        keeps_state=potential is not None,
        row=max(channels, 1),
    )
    states = [potential] if potential else []
    state.call(node.name, "lif", spec, build_neurons, [x.buffer, *states, out.buffer], work=out.buffer.elements)
    state.program.kernels.append(
        Chosen(
            layer=node.name,
            kernel="lif",
            reason="the input is no linear layer's result",
            call=len(state.program.calls) - 1,
        )
    )
