"""Reading ONNX files from anyone: everything is checked before anything is allocated or computed.

Accepted is exactly what ``svitkit export`` writes: standard operators of a short list, ``ai.svitkit::LIF`` with its own
body, static shapes, tensors inside the file. Everything else is refused by name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.lif import LIFParams
from svitkit.manifest import METADATA_KEY, ModelMetadata, from_json
from svitkit.onnx_integers import INTEGER_OPS, check_integer_nodes
from svitkit.onnx_lif import (
    INT4_OPSET,
    IR_VERSION,
    LIF_DOMAIN,
    LIF_OP,
    LIF_VERSION,
    ONNX_OPSET,
    integer_grid,
    lif_function,
    read_integer_lif,
    read_lif,
)
from svitkit.onnx_tokens import CRITERIA, SCORE_OP, TOKENS_DOMAIN, TOKENS_VERSION, score_function

_FUNCTIONS = {(LIF_DOMAIN, LIF_OP): lif_function, (TOKENS_DOMAIN, SCORE_OP): score_function}
MAX_FILE_BYTES = 1 << 30
MAX_TENSOR_BYTES = 1 << 30
MAX_NODES = 20_000
MAX_RANK = 8
MAX_ATTRIBUTE = 1 << 31
ALLOWED_OPS = frozenset(
    {"Add", "AveragePool", "Concat", "Constant", "Conv", "Div", "Expand", "Flatten", "Gemm", "MatMul", "MaxPool", "Mul"}
    | {"ReduceMean", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
    | {"Gather", "ScatterElements", "TopK"}
    | INTEGER_OPS
)
_ITEM_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.INT64: 64,
    TensorProto.INT32: 32,
    TensorProto.INT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT4: 4,
    TensorProto.BOOL: 8,
}
_REQUIRED_ATTRIBUTES = {
    "Conv": {"kernel_shape", "strides", "pads", "dilations", "group"},
    "ConvInteger": {"kernel_shape", "strides", "pads", "dilations", "group"},
    "Cast": {"to"},
    "MaxPool": {"kernel_shape", "strides", "pads", "dilations"},
    "AveragePool": {"kernel_shape", "strides", "pads"},
    "Transpose": {"perm"},
    "TopK": {"axis"},
    "Gather": {"axis"},
    "Concat": {"axis"},
    "ScatterElements": {"axis"},
}
Shape = tuple[int, ...]


def load_checked(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file that may come from anyone.

    Raises:
        ConfigError: the file is missing, too large, damaged, or not self-contained.
        UnsupportedError: it holds an operator, function, type or shape that ``svitkit export`` never writes.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is no file. Make one with 'svitkit export'.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError, RecursionError):
        raise ConfigError(f"{path} is no ONNX file, or it is cut off. Write it again with 'svitkit export'.") from None
    check_model(model, source=str(path))
    return model


def check_model(model: onnx.ModelProto, *, source: str) -> None:
    """Checks a model as :func:`load_checked` does, without a file."""
    if not model.HasField("graph") or not model.graph.node:
        raise ConfigError(f"{source} is no ONNX file: it has no graph. Write it with 'svitkit export'.")
    if len(model.graph.node) > MAX_NODES:
        raise ConfigError(f"{source} has {len(model.graph.node)} nodes; at most {MAX_NODES} are read.")
    shapes = _declared_shapes(model.graph, source)
    _check_ports(model.graph, source)
    tensors = list(model.graph.initializer)
    if model.graph.sparse_initializer:
        raise UnsupportedError(f"{source}: sparse initializers are not supported; store them dense.")
    for node in model.graph.node:
        check_operator(node, source)
        tensors.extend(attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)
    for tensor in tensors:
        _check_tensor(tensor, source)
    _check_versions(model, source)
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer})
    _check_functions(model, source)
    for node in model.graph.node:
        _check_node_shapes(node, shapes, source)
    check_integer_nodes(model.graph, source)
    _run_onnx_checker(model, source)


def metadata_of(model: onnx.ModelProto, *, source: str) -> ModelMetadata:
    """Returns what a checked model says about itself.

    Raises:
        ConfigError: the metadata are missing, damaged, or speak of another graph.
    """
    texts = [prop.value for prop in model.metadata_props if prop.key == METADATA_KEY]
    if len(texts) != 1:
        raise ConfigError(f"{source} carries no metadata of svitkit. Write it with 'svitkit export'.")
    metadata = from_json(texts[0], ModelMetadata, source=f"the metadata of {source}")
    shapes = _declared_shapes(model.graph, source)
    nodes = {node.name: node for node in model.graph.node if node.domain == LIF_DOMAIN}
    told = {layer.name: (_as_float32(layer.params), layer.integer, layer.state_shape) for layer in metadata.lif_layers}
    found = {
        name: (_as_float32(read_lif(node)), integer_grid(read_integer_lif(node)), shapes[node.input[0]][1:])
        for name, node in nodes.items()
    }
    ports = [model.graph.input[0].name, model.graph.output[0].name]
    if told != found or [metadata.input.name, metadata.output.name] != ports:
        raise ConfigError(f"the metadata of {source} describe another graph. Write it again with 'svitkit export'.")
    for spec in (metadata.input, metadata.output):
        if shapes[spec.name] != spec.shape:
            raise ConfigError(f"the metadata of {source} give {spec.name} another shape than the graph: {spec.shape}.")
    return metadata


def _as_float32(params: LIFParams) -> tuple[float | None, ...]:
    """Returns the constants as an ONNX attribute can hold them."""
    values = (params.tau, params.v_threshold, params.v_reset, params.decay_input)
    return tuple(None if value is None else float(np.float32(value)) for value in values)


def _check_versions(model: onnx.ModelProto, source: str) -> None:
    if model.ir_version > IR_VERSION:
        raise UnsupportedError(f"{source} has ONNX IR version {model.ir_version}, wanted at most {IR_VERSION}.")
    known = {"": (ONNX_OPSET, INT4_OPSET), LIF_DOMAIN: (LIF_VERSION,), TOKENS_DOMAIN: (TOKENS_VERSION,)}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if entry.version not in known.get(domain, ()):
            raise UnsupportedError(
                f"{source} uses version {entry.version} of the operators '{domain or 'ai.onnx'}', "
                f"known: ai.onnx {ONNX_OPSET} and {INT4_OPSET}, {LIF_DOMAIN} {LIF_VERSION}. "
                f"Write it again with 'svitkit export'."
            )
    if model.training_info:
        raise UnsupportedError(f"{source} carries training graphs; svitkit reads inference graphs only.")


def _declared_shapes(graph: onnx.GraphProto, source: str) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor, known = value.type.tensor_type, value.type.HasField("tensor_type")
        fixed = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value") and dim.dim_value > 0]
        if not known or not tensor.HasField("shape") or len(fixed) != len(tensor.shape.dim):
            raise UnsupportedError(f"{source}: value '{value.name}' has no static shape. Export it with fixed sizes.")
        _check_rank(value.name, len(fixed), source)
        if tensor.elem_type not in _ITEM_BITS:
            raise UnsupportedError(f"{source}: value '{value.name}' has element type {_type_name(tensor.elem_type)}.")
        _check_size(value.name, _tensor_bytes(fixed, tensor.elem_type), source)
        shapes[value.name] = tuple(fixed)
    return shapes


def _check_ports(graph: onnx.GraphProto, source: str) -> None:
    """One tensor of real numbers goes in and one comes out; what else does must be a state of neurons."""
    neurons = [node for node in graph.node if node.domain == LIF_DOMAIN]
    states = {"input": {name for node in neurons for name in node.input[1:]}}
    states["output"] = {name for node in neurons for name in node.output[1:]}
    constants = {tensor.name for tensor in graph.initializer}
    for what, ports in (("input", graph.input), ("output", graph.output)):
        if not ports or ports[0].type.tensor_type.elem_type != TensorProto.FLOAT or ports[0].name in constants:
            got = f"'{ports[0].name}', {_type_name(ports[0].type.tensor_type.elem_type)}" if ports else "nothing"
            raise UnsupportedError(f"{source}: the first {what} is {got}; wanted a float32 tensor that is no constant.")
        other = [value.name for value in ports[1:] if value.name not in states[what] - constants]
        if other:
            raise UnsupportedError(
                f"{source} has the {what} '{other[0]}' besides '{ports[0].name}'; only states of neurons may be."
            )


def _tensor_bytes(extents: Iterable[int], kind: int) -> int:
    return -(-math.prod(extents) * _ITEM_BITS[kind] // 8)


def _check_size(name: str, size: int, source: str) -> None:
    if size > MAX_TENSOR_BYTES:
        raise ConfigError(f"{source}: tensor '{name}' declares {size} bytes; at most {MAX_TENSOR_BYTES} are accepted.")


def _check_rank(name: str, rank: int, source: str) -> None:
    if rank > MAX_RANK:
        raise UnsupportedError(f"{source}: tensor '{name}' has {rank} axes; at most {MAX_RANK} are accepted.")


def _check_tensor(tensor: TensorProto, source: str) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ConfigError(
            f"{source}: tensor '{tensor.name}' lies in another file; svitkit reads self-contained files only. "
            f"Save the model without external data."
        )
    if tensor.data_type not in _ITEM_BITS or tensor.HasField("segment"):
        raise UnsupportedError(f"{source}: tensor '{tensor.name}' has element type {_type_name(tensor.data_type)}.")
    if any(not 0 <= extent <= MAX_TENSOR_BYTES for extent in tensor.dims):
        size = _tensor_bytes(tensor.dims, tensor.data_type)
        _check_size(tensor.name, size, source)
        raise ConfigError(f"{source}: tensor '{tensor.name}' has a negative extent, or one that no tensor has.")
    _check_rank(tensor.name, len(tensor.dims), source)
    wanted = _tensor_bytes(tensor.dims, tensor.data_type)
    _check_size(tensor.name, wanted, source)
    if len(tensor.raw_data) != wanted:
        raise ConfigError(
            f"{source}: tensor '{tensor.name}' declares {wanted} bytes, but the file holds {len(tensor.raw_data)}. "
            f"Write it again with 'svitkit export'."
        )


def _type_name(number: int) -> str:
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"number {number}"


def check_operator(node: onnx.NodeProto, source: str) -> None:
    """Checks one node by itself: operator, domain and attributes.

    Raises:
        ConfigError: a number is absurd.
        UnsupportedError: ``svitkit export`` never writes such a node.
    """
    where = f"{source}: node '{node.name or '?'}'"
    if node.domain == LIF_DOMAIN and node.op_type == LIF_OP:
        read_lif(node)
        if len(node.input) != 2 or len(node.output) != 2:
            raise UnsupportedError(f"{where}: LIF takes 2 inputs and gives 2 outputs.")
        return
    if node.domain == TOKENS_DOMAIN and node.op_type == SCORE_OP:
        if node.overload not in CRITERIA or node.attribute or len(node.input) != 1 or len(node.output) != 1:
            raise UnsupportedError(
                f"{where}: Score takes 1 input, gives 1 output, and has the overload {' or '.join(CRITERIA)} and no "
                f"attribute. Write the file again with 'svitkit export'."
            )
        return
    if node.domain not in ("", "ai.onnx") or node.op_type not in ALLOWED_OPS:
        _refuse_operator(where, f"{node.domain}::{node.op_type}" if node.domain else f"{node.op_type}")
    names = set()
    for attribute in node.attribute:
        names.add(attribute.name)
        nested = attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor")
        if nested or attribute.sparse_tensors or attribute.tensors or attribute.ref_attr_name:
            raise UnsupportedError(f"{where} ({node.op_type}) has no plain value in '{attribute.name}'.")
        if attribute.name == "auto_pad" and attribute.s != b"NOTSET":
            raise UnsupportedError(f"{where} ({node.op_type}) leaves its padding open; write it as pads.")
        _check_numbers(node, attribute, where)
    if node.op_type == "Constant" and names != {"value"}:
        raise UnsupportedError(f"{where}: a Constant must hold a tensor, got {', '.join(sorted(names)) or 'nothing'}.")
    missing = _REQUIRED_ATTRIBUTES.get(node.op_type, set()) - names
    if missing:
        raise UnsupportedError(f"{where} ({node.op_type}) must say {', '.join(sorted(missing))}.")


def _check_numbers(node: onnx.NodeProto, attribute: onnx.AttributeProto, where: str) -> None:
    """Checks what ONNX's own check allocates or indexes by before it looks."""
    largest = max((abs(number) for number in (attribute.i, *attribute.ints)), default=0)
    if largest > MAX_ATTRIBUTE or len(attribute.ints) > 2 * MAX_RANK:
        raise ConfigError(f"{where} ({node.op_type}) has numbers in '{attribute.name}' that no tensor has.")
    if attribute.name == "num_outputs" and attribute.i != len(node.output):
        raise ConfigError(f"{where} ({node.op_type}) has {len(node.output)} outputs, but num_outputs {attribute.i}.")


def _refuse_operator(where: str, got: str) -> NoReturn:
    known: Iterable[str] = sorted([*ALLOWED_OPS, *(f"{domain}::{name}" for domain, name in _FUNCTIONS)])
    near = difflib.get_close_matches(got.rpartition("::")[2], known, n=1, cutoff=0.4)
    hint = f" The nearest known one is {near[0]}." if near else ""
    raise UnsupportedError(f"{where} has the unknown operator {got}.{hint} Known: {', '.join(known)}.")


def _check_functions(model: onnx.ModelProto, source: str) -> None:
    used = [(node.domain, node.overload) for node in model.graph.node if (node.domain, node.op_type) in _FUNCTIONS]
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), ONNX_OPSET)
    for function in model.functions:
        name = f"{function.domain}::{function.name}"
        body = _FUNCTIONS.get((function.domain, function.name))
        if body is None:
            known = " and ".join(f"{domain}::{name}" for domain, name in _FUNCTIONS)
            raise UnsupportedError(f"{source} brings the function {name}; only {known} are accepted.")
        if _bytes(function) != _bytes(body(function.overload, opset)):
            raise UnsupportedError(f"{source}: the body of {name} '{function.overload}' is not the one svitkit writes.")
    given = [(function.domain, function.overload) for function in model.functions]
    if sorted(given) != sorted(set(used)):
        raise ConfigError(f"{source} uses the bodies {sorted(set(used))}, but brings {sorted(given)}.")


def _bytes(function: onnx.FunctionProto) -> bytes:
    return bytes(function.SerializeToString(deterministic=True))


def _check_node_shapes(node: onnx.NodeProto, shapes: dict[str, Shape], source: str) -> None:
    for name in node.output:
        if name not in shapes:
            raise UnsupportedError(f"{source}: value '{name}' of node '{node.name}' has no declared shape.")
    if node.domain == TOKENS_DOMAIN:
        x, score = (shapes.get(name, ()) for name in (*node.input, *node.output))
        if len(x) != 5 or score != (x[1], x[3] * x[4]):
            raise ConfigError(
                f"{source}: node '{node.name}' declares X {x} and scores {score}; wanted (T, B, C, H, W) and (B, H W)."
            )
    if node.domain != LIF_DOMAIN:
        return
    x, v, s, v_next = (shapes.get(name, (-1,)) for name in (*node.input, *node.output))
    if not x or s != x or v_next != x[1:] or v not in ((), x[1:]):
        raise ConfigError(
            f"{source}: LIF node '{node.name}' declares X {x}, V0 {v}, S {s}, VT {v_next}; wanted S like X, VT like X "
            f"without its first axis, V0 like VT or a scalar."
        )


def _run_onnx_checker(model: onnx.ModelProto, source: str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"{source} fails ONNX's own check: {lines[0][:300]}") from None
