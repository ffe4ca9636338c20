"""Lets layers of neurons compute in integers, from the sums of integer layers on.

    X = floor((M q + B) / 2^r)      M = round(2^(n+r) scale), B = round(2^(n+r) bias) + 2^(r-1)     for the sums q

takes the place of ``scale q + bias``; n is :data:`svitkit.lif_integer.CURRENT_FRACTION` everywhere, so that residual
streams add up as integers too, and r is 0 unless factors are too fine for n bits. ONNX divides towards zero: what is
divided is made positive before. Where something else stands between the sums and the neurons, or a sum could leave
int32, these round their currents themselves (:mod:`svitkit.onnx_lif`).

Source of the form: integer rescaling of Jacob et al., CVPR 2018 (arXiv 1712.05877), section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.export.build_nodes import compute, constant
from svitkit.export.passes.fold_batch_norm import initializer
from svitkit.export.passes.hoist_means import mean_axes
from svitkit.export.ranges import VIEWS, extents, integer_limits
from svitkit.lif_integer import CURRENT_FRACTION, INT32_MAX, IntegerLIF, Membrane
from svitkit.models.quantized import LARGEST_BYTE
from svitkit.onnx_lif import LIF_DOMAIN, integer_attributes, lif_overload, read_lif

EXACT_FLOAT = 1 << 24
"""Up to here float32, in which ONNX pools, holds every integer."""
CLOSE = 1e-6
"""A factor counts as a whole number of steps if it is off by less than this share."""
STEPS = 2.0**CURRENT_FRACTION
_TYPES = ir.DataType
_SUMS = frozenset({"ConvInteger", "MatMulInteger"})
Reach = NDArray[np.float64]
"""Largest magnitude of a value, in a shape that broadcasts to the value's."""


class _RealError(Exception):
    """A value is no sum of integers times constants."""


def integer_neurons(model: ir.Model, *, membranes: Mapping[str, Membrane]) -> None:
    """Rewrites the neurons of the named layers.

    Args:
        model: the graph, its layers already in integers.
        membranes: the grid of the potentials by layer.

    Raises:
        UnsupportedError: a layer is missing.
    """
    nodes = {str(node.name): node for node in model.graph if node.domain == LIF_DOMAIN}
    missing = sorted(set(membranes) - set(nodes))
    if missing:
        raise UnsupportedError(f"membranes of {', '.join(missing)} are quantized, but the graph has no such neurons.")
    reaches = _Reaches(model.graph)
    currents = _Currents(model.graph, reaches)
    for name, membrane in membranes.items():
        params = read_lif(ir.to_proto(nodes[name]))
        layer = IntegerLIF(params=params, membrane=membrane, current_fraction=CURRENT_FRACTION)
        bound = reaches.bound(nodes[name].inputs[0])
        fits = bound is not None and layer.room(bound) <= INT32_MAX
        _rewrite(model.graph, nodes[name], layer, currents if fits else None)


class _Reaches:
    """How large values can become, whatever the input.

    Attributes:
        limits: the values that are counts.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.limits = integer_limits(graph)

    def bound(self, value: ir.Value | None) -> float | None:
        """Returns the largest magnitude of a current; None if it is no sum of integers times constants."""
        try:
            return float(self._reach(value).max())
        except _RealError:
            return None

    def steps_of(self, layer: _Layer, steps: float) -> float:
        """Returns the largest magnitude of a layer's result in integers, its constants rounded to them."""
        scaled = self._reach(layer.sums) * np.abs(np.rint(_floats(layer.factor) * steps))
        biased = scaled if layer.bias is None else scaled + np.abs(np.rint(_floats(layer.bias) * steps))
        return float(biased.max())

    def _reach(self, value: ir.Value | None) -> Reach:
        if value is None:
            raise _RealError
        if value in self.limits:
            return np.array(float(self.limits[value]))
        if _is_constant(value):
            return np.abs(_floats(value))
        node = value.producer()
        if node is None or node.domain != "":
            raise _RealError
        if node.op_type in _SUMS:
            return self._sums(node)
        if node.op_type == "Concat":
            return np.array(max(float(self._reach(each).max()) for each in node.inputs))
        if node.op_type == "Cast" or node.op_type == "Gather" or node.op_type in VIEWS:
            inner = self._reach(node.inputs[0])
            return inner if node.op_type == "Cast" else _largest(inner)
        if node.op_type == "MaxPool":
            return self._pooled(node)
        if mean_axes(node) is not None:
            inner, count = _largest(self._reach(node.inputs[0])), _summed(node)
            if inner * count * STEPS >= INT32_MAX:
                raise _RealError
            return inner if node.op_type == "ReduceMean" else np.asarray(inner * count)
        if node.op_type == "Add":
            return self._reach(node.inputs[0]) + self._reach(node.inputs[1])
        layer = _find_layer(value, self.limits)
        if layer is None:
            raise _RealError
        return np.asarray(self._reach(layer.sums) * np.abs(_floats(layer.factor)))

    def _pooled(self, node: ir.Node) -> Reach:
        """Of a pooling: float32, in which it is done, must hold what is pooled."""
        inner = _largest(self._reach(node.inputs[0]))
        layer = pooled_layer(node, self.limits)
        largest = inner * STEPS if layer is None else self._reach(layer.sums).max()
        if largest >= EXACT_FLOAT:
            raise _RealError
        return inner

    def _sums(self, node: ir.Node) -> Reach:
        """Of an integer layer: for every output channel, in a shape that broadcasts."""
        levels, weight = node.inputs[0], node.inputs[1]
        integers = None if weight is None else _integers(weight)
        if levels is None or integers is None:
            raise _RealError
        producer = levels.producer()
        counted = producer.inputs[0] if producer is not None and producer.op_type == "Cast" else None
        limit = self.limits.get(counted, LARGEST_BYTE) if counted is not None else LARGEST_BYTE
        magnitudes = np.abs(integers) * limit
        if node.op_type == "MatMulInteger":
            return np.asarray(magnitudes.sum(axis=0))
        channels = np.asarray(magnitudes.reshape(len(magnitudes), -1).sum(axis=1))
        return channels.reshape(-1, *[1] * (integers.ndim - 2))


def _largest(reach: Reach) -> Reach:
    return np.array(float(reach.max()))


def pooled_layer(node: ir.Node, limits: Mapping[ir.Value, int]) -> _Layer | None:
    """The layer whose sums can be pooled in the place of its currents: positive factors keep their order."""
    source = node.inputs[0]
    layer = None if source is None else _find_layer(source, limits)
    return layer if layer is not None and bool((_floats(layer.factor) > 0).all()) else None


def _summed(node: ir.Node) -> int:
    """How many values a sum or mean over axes adds up."""
    source = node.inputs[0]
    return 1 if source is None else math.prod(extents(source)[axis] for axis in mean_axes(node) or ())


def is_whole(value: ir.Value | None, limits: Mapping[ir.Value, int]) -> bool:
    """Whether a float value is a count or the sum of an integer layer, before any factor."""
    producer = None if value is None else value.producer()
    if value is None or value in limits:
        return value is not None
    return producer is not None and producer.op_type == "Cast" and producer.domain == ""


def _integers(weight: ir.Value) -> NDArray[np.float64] | None:
    """The weights of an integer layer, of 4 bits or 8."""
    producer = weight.producer()
    source = producer.inputs[0] if producer is not None and producer.op_type == "Cast" else weight
    return None if source is None or not _is_constant(source) else _floats(source)


@dataclass(frozen=True)
class _Layer:
    """``sums * factor + bias``: a count or the sums of a layer, and constants."""

    sums: ir.Value
    factor: ir.Value
    bias: ir.Value | None


def _find_layer(value: ir.Value, limits: Mapping[ir.Value, int]) -> _Layer | None:
    """Recognizes what an integer layer was made of (:mod:`svitkit.export.passes.quantize_layers`)."""
    node, bias = value.producer(), None
    if node is not None and node.op_type == "Add":
        inner, bias = _with_constant(node)
        node = None if inner is None else inner.producer()
    if node is None or node.op_type != "Mul":
        return None
    sums, factor = _with_constant(node)
    return _Layer(sums, factor, bias) if sums is not None and factor is not None and is_whole(sums, limits) else None


def _drop(layer: _Layer, bound: float) -> int:
    """Returns r: the smallest with which all factors are whole numbers of steps, or the largest that int32 allows."""
    factors = np.abs(_floats(layer.factor)) * STEPS
    drop = 0
    while 4.0 * (bound * STEPS + 1) * 2.0**drop < INT32_MAX:
        scaled = factors * 2.0**drop
        if bool((np.abs(np.rint(scaled) - scaled) <= CLOSE * scaled).all()):
            return drop
        drop += 1
    return max(drop - 1, 0)


def _with_constant(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The two inputs of a node, the second of them constant; None twice if neither is, or both are."""
    for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        if value is not None and other is not None and _is_constant(other) and not _is_constant(value):
            return value, other
    return None, None


def _is_constant(value: ir.Value) -> bool:
    return ir.convenience.get_const_tensor(value) is not None


def _floats(value: ir.Value) -> NDArray[np.float64]:
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy().astype(np.float64)


class _Currents:
    """Currents as int32 in steps of 2^-n; what several layers read is written once."""

    def __init__(self, graph: ir.Graph, reaches: _Reaches) -> None:
        self.graph, self.reaches = graph, reaches
        self.known: dict[ir.Value, ir.Value] = {}

    def of(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """Returns a float current as integers."""
        if value not in self.known:
            self.known[value] = self._made(value, before)
        return self.known[value]

    def _made(self, value: ir.Value, before: ir.Node) -> ir.Value:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return self._constant(value, STEPS)
        if is_whole(value, self.reaches.limits):
            steps = constant(self.graph, before, np.array(STEPS, np.int32))
            return self._compute("Mul", [self._whole(value, before), steps], value, before)
        layer = _find_layer(value, self.reaches.limits)
        if layer is not None:
            return self._layer(layer, self._whole(layer.sums, before), value, before)
        node = value.producer()
        assert node is not None
        pooled = pooled_layer(node, self.reaches.limits) if node.op_type == "MaxPool" else None
        if pooled is not None:
            sums = self._pooled(self._whole(pooled.sums, before), node, value, before)
            return self._layer(pooled, sums, value, before)
        if node.op_type == "Concat":
            parts: list[ir.Value | None] = [self.of(each, before) for each in node.inputs if each is not None]
            return self._compute("Concat", parts, value, before, like=node)
        given = node.inputs[: 2 if node.op_type == "Add" else 1]
        inner: list[ir.Value | None] = [self.of(each, before) for each in given if each]
        if node.op_type == "Add":
            return self._compute("Add", inner, value, before)
        if node.op_type == "MaxPool":
            assert inner[0] is not None
            return self._pooled(inner[0], node, value, before)
        if mean_axes(node) is not None:
            return self._added_up([*inner, *node.inputs[1:]], node, value, before)
        return self._compute(node.op_type, [*inner, *node.inputs[1:]], value, before, like=node)

    def _pooled(self, integers: ir.Value, node: ir.Node, value: ir.Value, before: ir.Node) -> ir.Value:
        """The largest of some integers; ONNX pools no int32, but float32 holds these exactly."""
        real = self._cast(integers, _TYPES.FLOAT, f"{value.name}.exact", before)
        largest = self._compute("MaxPool", [real], value, before, dtype=_TYPES.FLOAT, like=node, suffix="largest")
        return self._cast(largest, _TYPES.INT32, f"{value.name}.integers", before)

    def _added_up(self, inputs: list[ir.Value | None], node: ir.Node, value: ir.Value, before: ir.Node) -> ir.Value:
        """A sum over axes, or a mean, less what is behind the point."""
        if node.op_type == "ReduceSum":
            return self._compute("ReduceSum", inputs, value, before, like=node)
        total = self._compute("ReduceSum", inputs, value, before, like=node, suffix="total")
        count = constant(self.graph, before, np.array(_summed(node), np.int32))
        return self._compute("Div", [total, count], value, before)

    def _layer(self, layer: _Layer, sums: ir.Value, value: ir.Value, before: ir.Node) -> ir.Value:
        """Factor, bias and, if the factor needs it, a division."""
        drop = _drop(layer, float(self.reaches.bound(value) or 0.0))
        steps = STEPS * 2.0**drop
        lift = math.ceil(self.reaches.steps_of(layer, steps) / (1 << drop)) + 1 if drop else 0
        scaled = self._compute("Mul", [sums, self._constant(layer.factor, steps)], value, before, suffix="scaled")
        plus = (lift << drop) + (1 << drop) // 2
        if layer.bias is not None:
            bias = self._constant(layer.bias, steps, plus=plus)
        elif drop:
            bias = constant(self.graph, before, np.array(plus, np.int32))
        else:
            return scaled
        biased = self._compute("Add", [scaled, bias], value, before, suffix="biased")
        if not drop:
            return biased
        divisor = constant(self.graph, before, np.array(1 << drop, np.int32))
        quotient = self._compute("Div", [biased, divisor], value, before, suffix="quotient")
        return self._compute("Add", [quotient, constant(self.graph, before, np.array(-lift, np.int32))], value, before)

    def _constant(self, value: ir.Value, steps: float, *, plus: int = 0) -> ir.Value:
        """A constant as an integer."""
        whole = (np.rint(_floats(value) * steps) + plus).astype(np.int32)
        return initializer(self.graph, ir.tensor(whole), f"{value.name}.steps")

    def _whole(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """A count or a sum as int32."""
        node = value.producer()
        if node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
            return node.inputs[0]
        return self._cast(value, _TYPES.INT32, f"{value.name}.integers", before)

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str, before: ir.Node) -> ir.Value:
        to = {"to": int(dtype)}
        return compute(self.graph, before, "Cast", [value], name=name, shape=extents(value), dtype=dtype, attributes=to)

    def _compute(
        self,
        op: str,
        inputs: list[ir.Value | None],
        value: ir.Value,
        before: ir.Node,
        *,
        dtype: ir.DataType = _TYPES.INT32,
        like: ir.Node | None = None,
        suffix: str = "steps",
    ) -> ir.Value:
        attributes = None if like is None else dict(like.attributes)
        name, shape = f"{value.name}.{suffix}", extents(value)
        return compute(self.graph, before, op, inputs, name=name, shape=shape, dtype=dtype, attributes=attributes)


def _rewrite(graph: ir.Graph, node: ir.Node, layer: IntegerLIF, currents: _Currents | None) -> None:
    """Gives a node of neurons its integers: attributes, overload, currents and potentials."""
    source, potential = node.inputs[0], node.inputs[1]
    assert source is not None
    assert potential is not None
    for name, value in integer_attributes(layer, real=currents is None).items():
        node.attributes[name] = ir.AttrFloat32(name, value) if isinstance(value, float) else ir.AttrInt64(name, value)
    node.overload = lif_overload(layer.params, layer, real=currents is None)
    dtype = ir.DataType[layer.state_dtype.upper()]
    if currents is not None:
        node.replace_input_with(0, currents.of(source, node))
    if potential in graph.inputs:
        potential.dtype = dtype
    else:
        rest = np.zeros(extents(potential), layer.state_dtype)
        node.replace_input_with(1, constant(graph, node, rest))
    node.outputs[1].dtype = dtype
