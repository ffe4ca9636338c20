"""Makes exact integer arithmetic of the layers whose weights are integers.

    y = k (scale q) x + b  =  (scale |k|) * sum(sign(k) q x) + b          k: the batch norm that was folded

The sum is exact in int32, and one product and one sum per output follow, rounded one after the other: whoever computes
the file gets the same bits. Source of the form: Jacob et al., CVPR 2018 (arXiv 1712.05877), section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.export.averages import Average, find_average
from svitkit.export.build_nodes import compute, constant, stand_in
from svitkit.export.passes.fold_batch_norm import CHANNEL_FACTOR, initializer, parameter
from svitkit.export.passes.name_layers import layer_name
from svitkit.export.ranges import VIEWS, extents, integer_limits
from svitkit.models.quantized import LARGEST_BYTE, QuantizedWeight, qmax
from svitkit.models.spec import InputQuantization

INT32_MAX = 2**31 - 1
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_TYPES = ir.DataType
INT4_BITS = 4


def quantize_layers(model: ir.Model, *, weights: Mapping[str, QuantizedWeight], image: InputQuantization) -> None:
    """Rewrites every layer in ``weights`` as ``ConvInteger`` or ``MatMulInteger``, ``Cast``, ``Mul`` and ``Add``.

    Args:
        model: the graph, batch norms folded, means in front of their products.
        weights: integers and scales by layer.
        image: how the network's input becomes bytes for the layer that reads it.

    Raises:
        UnsupportedError: a layer is not in the graph once; its input is neither counts up to 255, nor their mean, nor
            the network's input; or its sums could leave int32.
    """
    rewriter = _Rewriter(model.graph, image)
    left = dict(weights)
    for node in list(model.graph):
        name = layer_name(node) if node.domain == "" and node.op_type in _PRODUCTS else None
        if name in left:
            rewriter.rewrite(node, name, left.pop(name))
    if left:
        raise UnsupportedError(
            f"the weights of {', '.join(sorted(left))} are integers, but the graph has no such layer with constant "
            f"weights that is called once. Compress the network without quantizing it."
        )


@dataclass(frozen=True)
class _Levels:
    """A value as bytes: ``value = step * (levels - zero)``, ``limit`` being the largest ``|levels - zero|``."""

    levels: ir.Value
    step: float
    zero: int
    limit: int


class _Rewriter:
    """What all layers of one graph share."""

    def __init__(self, graph: ir.Graph, image: InputQuantization) -> None:
        self.graph, self.image = graph, image
        self.limits = integer_limits(graph)
        self.bytes: dict[ir.Value, ir.Value] = {}

    def rewrite(self, node: ir.Node, name: str, weight: QuantizedWeight) -> None:
        """Puts integer nodes in the place of a layer."""
        source = node.inputs[0]
        if source is None:
            raise UnsupportedError(f"layer {name} has no input.")
        average = None if node.op_type == "Conv" else find_average(source, self.limits)
        x = source if average is None else average.source
        given = self._bytes_of(x, node, name)
        count = 1 if average is None else average.count
        integers, scale = _folded(weight, node)
        if given.limit * qmax(weight.bits) * (integers.size // len(integers)) * count > INT32_MAX:
            raise UnsupportedError(f"the sums of layer {name} can leave the range of int32; it is too wide.")
        if node.op_type == "Conv":
            constant_weight = self._weight(node, name, integers, weight.bits)
            sums = self._convolve(node, name, given, constant_weight)
        else:
            constant_weight = self._weight(node, name, np.ascontiguousarray(integers.T), weight.bits)
            sums = self._multiply(node, name, given, constant_weight, average)
        self._finish(node, name, sums, scale * given.step / count)

    def _bytes_of(self, value: ir.Value, node: ir.Node, name: str) -> _Levels:
        """Returns a layer's input as uint8."""
        limit = self.limits.get(value)
        if limit is not None and limit <= LARGEST_BYTE:
            if value not in self.bytes:
                self.bytes[value] = self._cast(value, node, f"{value.name}.bytes", _TYPES.UINT8)
            return _Levels(self.bytes[value], 1.0, 0, limit)
        if self._is_image(value):
            image = self.image
            return _Levels(self._image_bytes(value, node), image.scale, image.zero_point, LARGEST_BYTE)
        got = "real numbers" if limit is None else f"counts up to {limit}"
        raise UnsupportedError(
            f"the weights of layer {name} are integers, but its input is {got}; wanted spikes or counts up to "
            f"{LARGEST_BYTE}, or the network's input. Put a LIF layer in front of it, or keep float32 weights."
        )

    def _is_image(self, value: ir.Value) -> bool:
        producer = value.producer()
        if producer is None:
            return value is self.graph.inputs[0]
        source = producer.inputs[0] if producer.domain == "" and producer.op_type in VIEWS else None
        return source is not None and self._is_image(source)

    def _image_bytes(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """Quantizes the network's input where it enters, and repeats what moves it on the bytes."""
        if value in self.bytes:
            return self.bytes[value]
        producer = value.producer()
        if producer is None or producer.inputs[0] is None:
            step = constant(self.graph, before, np.array(self.image.scale, np.float32))
            zero = constant(self.graph, before, np.array(self.image.zero_point, np.uint8))
            inputs: list[ir.Value | None] = [value, step, zero]
            op, attributes = "QuantizeLinear", None
        else:
            inputs = [self._image_bytes(producer.inputs[0], before), *producer.inputs[1:]]
            op, attributes = producer.op_type, dict(producer.attributes)
        self.bytes[value] = compute(
            self.graph,
            before,
            op,
            inputs,
            name=f"{value.name}.bytes",
            shape=extents(value),
            dtype=_TYPES.UINT8,
            attributes=attributes,
        )
        return self.bytes[value]

    def _cast(self, value: ir.Value, before: ir.Node, name: str, dtype: ir.DataType) -> ir.Value:
        attributes = {"to": int(dtype)}
        return compute(
            self.graph, before, "Cast", [value], name=name, shape=extents(value), dtype=dtype, attributes=attributes
        )

    def _weight(self, node: ir.Node, name: str, integers: NDArray[np.int8], bits: int) -> ir.Value:
        """Registers the integers; up to 4 bits they are stored in 4, and cast to int8 by a node that readers fold."""
        packed = bits <= INT4_BITS
        array = integers.astype(_TYPES.INT4.numpy()) if packed else integers
        tensor = ir.Tensor(array, dtype=_TYPES.INT4 if packed else _TYPES.INT8)
        value = initializer(self.graph, tensor, f"{name}.weight", replaces=node.inputs[1])
        return self._cast(value, node, f"{name}.weight.int8", _TYPES.INT8) if packed else value

    def _operands(self, node: ir.Node, given: _Levels, levels: ir.Value, weight: ir.Value) -> list[ir.Value]:
        zero = [constant(self.graph, node, np.array(given.zero, np.uint8))] if given.zero else []
        return [levels, weight, *zero]

    def _convolve(self, node: ir.Node, name: str, given: _Levels, weight: ir.Value) -> ir.Value:
        return compute(
            self.graph,
            node,
            "ConvInteger",
            self._operands(node, given, given.levels, weight),
            name=name,
            shape=extents(node.outputs[0]),
            dtype=_TYPES.INT32,
            attributes=dict(node.attributes),
        )

    def _multiply(
        self, node: ir.Node, name: str, given: _Levels, weight: ir.Value, average: Average | None
    ) -> ir.Value:
        """Writes the product; of a mean, the products of all its parts and their sum."""
        graph, levels, shape = self.graph, given.levels, extents(given.levels)
        if average is not None and average.channel != len(shape) - 1:
            order = [axis for axis in range(len(shape)) if axis != average.channel] + [average.channel]
            shape, perm = tuple(shape[axis] for axis in order), {"perm": order}
            levels = compute(
                graph,
                node,
                "Transpose",
                [levels],
                name=f"{name}.rows",
                shape=shape,
                dtype=_TYPES.UINT8,
                attributes=perm,
            )
        shape = (*shape[:-1], extents(weight)[-1])
        operands = self._operands(node, given, levels, weight)
        sums = compute(graph, node, "MatMulInteger", operands, name=name, shape=shape, dtype=_TYPES.INT32)
        return sums if average is None else self._add_up(node, name, sums, average)

    def _add_up(self, node: ir.Node, name: str, sums: ir.Value, average: Average) -> ir.Value:
        """Sums products over the axes that were averaged over, and gives them the shape of the layer's output."""
        graph, shape, wanted = self.graph, extents(sums), extents(node.outputs[0])
        summed = [axis - (axis > average.channel) for axis in average.axes]
        if summed:
            shape = tuple(extent for axis, extent in enumerate(shape) if axis not in summed)
            sums = compute(
                graph,
                node,
                "ReduceSum",
                [sums, constant(graph, node, np.array(summed, np.int64))],
                name=f"{name}.total",
                shape=shape,
                dtype=_TYPES.INT32,
                attributes={"keepdims": 0, "noop_with_empty_axes": 0},
            )
        if shape == wanted:
            return sums
        target = constant(graph, node, np.array(wanted, np.int64))
        return compute(graph, node, "Reshape", [sums, target], name=f"{name}.shaped", shape=wanted, dtype=_TYPES.INT32)

    def _finish(self, node: ir.Node, name: str, sums: ir.Value, scale: NDArray[np.float64]) -> None:
        """Multiplies by the scale, adds the layer's bias if it has one, and takes the layer's place."""
        shape = extents(node.outputs[0])
        columns = (-1, *[1] * (len(shape) - 2)) if node.op_type == "Conv" else (-1,)
        real = self._cast(sums, node, f"{name}.real", _TYPES.FLOAT)
        factor = parameter(self.graph, scale.reshape(columns), f"{name}.weight_scale")
        value = compute(self.graph, node, "Mul", [real, factor], name=f"{name}.scaled", shape=shape, dtype=_TYPES.FLOAT)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        tensor = None if bias is None else ir.convenience.get_const_tensor(bias)
        if tensor is not None:
            content = tensor.numpy().astype(np.float64).reshape(columns)
            summand = parameter(self.graph, content, f"{name}.bias", replaces=bias)
            value = compute(
                self.graph, node, "Add", [value, summand], name=f"{name}.biased", shape=shape, dtype=_TYPES.FLOAT
            )
        stand_in(self.graph, node, value)


def _folded(weight: QuantizedWeight, node: ir.Node) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Returns integers and positive scales with the batch norm's factor in them."""
    factor = np.broadcast_to(np.asarray(node.meta.get(CHANNEL_FACTOR, 1.0), np.float64), weight.scale.shape)
    scale = weight.scale * np.abs(factor)
    dead = scale.astype(np.float32) == 0
    sign = np.where(dead, 0, np.sign(factor)).astype(np.int8)
    integers = weight.integers * sign.reshape(-1, *[1] * (weight.integers.ndim - 1))
    return integers, np.where(dead, 1.0, scale)
