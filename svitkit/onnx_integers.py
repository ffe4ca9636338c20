"""Type rules of the integer operators that ``svitkit export`` writes.

bytes   = QuantizeLinear(x float, scale float scalar, zero point uint8 scalar)    or Cast(counts float -> uint8)
sums    = ConvInteger or MatMulInteger(bytes uint8, weights int8 constant [, zero point uint8 scalar])    int32
current = Cast(sums int32 -> float)
weights = initializer int8, or Cast(initializer int4 -> int8)
counts  = Cast(counts float -> int32)
spikes  = LIF(current float, potential float)    or LIF(current int32 or float, potential int16 or int8), float
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.onnx_lif import LIF_DOMAIN, read_integer_lif, rounds_currents

INTEGER_OPS = frozenset({"Cast", "ConvInteger", "MatMulInteger", "QuantizeLinear"})
_FLOAT, _UINT8, _INT8, _INT4, _INT32 = (
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT4,
    TensorProto.INT32,
)
_CASTS = ((_FLOAT, _UINT8), (_FLOAT, _INT32), (_INT32, _FLOAT), (_INT4, _INT8))


def check_integer_nodes(graph: onnx.GraphProto, source: str) -> None:
    """Checks the types of every integer operator's inputs and outputs.

    Args:
        graph: a graph whose tensors were checked and whose values have declared types.
        source: where it came from, for the error message.

    Raises:
        ConfigError: a node has another number of inputs, or a type is missing.
        UnsupportedError: a type is not one of those that ``svitkit export`` writes there.
    """
    checker = _Checker(graph, source)
    for node in graph.node:
        if node.op_type in INTEGER_OPS and node.domain in ("", "ai.onnx"):
            checker.check(node)
        elif node.domain == LIF_DOMAIN:
            checker.check_neurons(node)


class _Checker:
    """Types and constants of one graph."""

    def __init__(self, graph: onnx.GraphProto, source: str) -> None:
        self.source = source
        values = (*graph.input, *graph.output, *graph.value_info)
        self.types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in values}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants.update(dict.fromkeys(node.output, node.attribute[0].t))
        self.types.update({name: tensor.data_type for name, tensor in self.constants.items()})
        casts = [node for node in graph.node if node.op_type == "Cast" and set(node.input) <= set(self.constants)]
        self.short = {name for node in casts for name in node.output}

    def check(self, node: onnx.NodeProto) -> None:
        where = f"{self.source}: node '{node.name or '?'}' ({node.op_type})"
        if node.op_type == "Cast":
            self._check_cast(node, where)
        elif node.op_type == "QuantizeLinear":
            self._check_quantize(node, where)
        else:
            self._check_product(node, where)

    def check_neurons(self, node: onnx.NodeProto) -> None:
        """Checks the types of a layer of neurons."""
        where = f"{self.source}: node '{node.name or '?'}' ({node.op_type})"
        integer = read_integer_lif(node)
        kind = _FLOAT if integer is None else int(TensorProto.DataType.Value(integer.state_dtype.upper()))
        self._wants(where, "the current", node.input[0], _FLOAT if integer is None or rounds_currents(node) else _INT32)
        self._wants(where, "the potential", node.input[1], kind)
        self._wants(where, "the output", node.output[0], _FLOAT)
        self._wants(where, "the potential after the last step", node.output[1], kind)

    def _check_cast(self, node: onnx.NodeProto, where: str) -> None:
        self._count(node, where, (1,))
        target = next(attribute.i for attribute in node.attribute if attribute.name == "to")
        pair = (self._type(node.input[0], where), target)
        if pair not in _CASTS or (pair[0] == _INT4) != (node.input[0] in self.constants):
            known = ", ".join(f"{_name(start)} to {_name(end)}" for start, end in _CASTS)
            raise UnsupportedError(
                f"{where} casts {_name(pair[0])} to {_name(pair[1])}; known: {known}, the last of initializers alone."
            )

    def _check_quantize(self, node: onnx.NodeProto, where: str) -> None:
        self._count(node, where, (3,))
        self._wants(where, "the input", node.input[0], _FLOAT)
        self._scalar(where, "the scale", node.input[1], _FLOAT)
        self._scalar(where, "the zero point", node.input[2], _UINT8)

    def _check_product(self, node: onnx.NodeProto, where: str) -> None:
        self._count(node, where, (2, 3))
        self._wants(where, "the input", node.input[0], _UINT8)
        self._wants(where, "the weight", node.input[1], _INT8)
        if node.input[1] not in self.constants and node.input[1] not in self.short:
            raise UnsupportedError(f"{where} has no constant weight.")
        if len(node.input) > 2:
            self._scalar(where, "the zero point", node.input[2], _UINT8)
        self._wants(where, "the output", node.output[0], _INT32)

    def _count(self, node: onnx.NodeProto, where: str, wanted: tuple[int, ...]) -> None:
        if len(node.input) not in wanted or len(node.output) != 1 or not all(node.input):
            counts = " or ".join(str(count) for count in wanted)
            raise ConfigError(f"{where} has {len(node.input)} inputs, wanted {counts}, and one output.")

    def _type(self, value: str, where: str) -> int:
        if value not in self.types:
            raise ConfigError(f"{where}: value '{value}' has no declared type.")
        return self.types[value]

    def _wants(self, where: str, what: str, value: str, kind: int) -> None:
        got = self._type(value, where)
        if got != kind:
            raise UnsupportedError(f"{where}: {what} '{value}' is {_name(got)}, wanted {_name(kind)}.")

    def _scalar(self, where: str, what: str, value: str, kind: int) -> None:
        self._wants(where, what, value, kind)
        if value not in self.constants or tuple(self.constants[value].dims) not in ((), (1,)):
            raise UnsupportedError(f"{where}: {what} '{value}' is no constant scalar.")


def _name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else f"type {kind}"
