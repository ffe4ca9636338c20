"""Which rule translates which operator, and the walk over a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from svitkit.errors import UnsupportedError
from svitkit.runtime.cost_model import CostModel, Method
from svitkit.runtime.import_onnx import Graph, Node
from svitkit.runtime.lowering.arithmetic import lower_binary, lower_cast, lower_quantize, lower_reduce
from svitkit.runtime.lowering.fuse import fuse
from svitkit.runtime.lowering.gpu import emit_gpu_linear
from svitkit.runtime.lowering.layers import emit_linear
from svitkit.runtime.lowering.matmul import lower_matmul
from svitkit.runtime.lowering.neurons import lower_lif
from svitkit.runtime.lowering.pooling import lower_pool
from svitkit.runtime.lowering.products import lower_conv, lower_conv_integer, lower_gemm, lower_matmul_integer
from svitkit.runtime.lowering.tokens import lower_concat, lower_gather, lower_places, lower_score, lower_top
from svitkit.runtime.lowering.translation import Lowering, Values, count_consumers, input_view
from svitkit.runtime.lowering.views import (
    lower_expand,
    lower_flatten,
    lower_reshape,
    lower_slice,
    lower_split,
    lower_squeeze,
    lower_transpose,
    lower_unsqueeze,
)
from svitkit.runtime.program import GpuTarget, Program
from svitkit.runtime.vector_unit import VectorUnit

Rule = Callable[[Lowering, Node], None]
RULES: Mapping[str, Rule] = {
    "Reshape": lower_reshape,
    "Flatten": lower_flatten,
    "Transpose": lower_transpose,
    "Squeeze": lower_squeeze,
    "Unsqueeze": lower_unsqueeze,
    "Expand": lower_expand,
    "Split": lower_split,
    "Slice": lower_slice,
    "Conv": lower_conv,
    "MatMul": lower_matmul,
    "Gemm": lower_gemm,
    "ConvInteger": lower_conv_integer,
    "MatMulInteger": lower_matmul_integer,
    "Cast": lower_cast,
    "QuantizeLinear": lower_quantize,
    "LIF": lower_lif,
    "MaxPool": lower_pool,
    "Add": lower_binary("add"),
    "Sub": lower_binary("sub"),
    "Mul": lower_binary("mul"),
    "Div": lower_binary("div"),
    "Score": lower_score,
    "TopK": lower_top,
    "Gather": lower_gather,
    "Concat": lower_concat,
    "ScatterElements": lower_places,
    "ReduceSum": lower_reduce(mean=False),
    "ReduceMean": lower_reduce(mean=True),
}


def lower(
    graph: Graph,
    *,
    unit: VectorUnit,
    costs: CostModel,
    parts: int,
    prefer: Method | None = None,
    stores_sparse: bool = True,
    gpu: GpuTarget | None = None,
) -> Program:
    """Translates a network.

    Args:
        graph: the imported network.
        unit: the vector unit of the target.
        costs: what work costs on the target: of the methods for a layer, the one that costs least is taken.
        parts: most threads that the program may run on.
        prefer: a method that is taken wherever it can be, whatever it costs.
        stores_sparse: whether weights of which most are 0 are stored without zeros.
        gpu: the GPU that it is for; None for the CPU.

    Raises:
        UnsupportedError: a node has no kernel; the message names it.
    """
    state = begin(graph, unit=unit, costs=costs, parts=parts, prefer=prefer, gpu=gpu)
    state.stores_sparse = stores_sparse
    return translate(state, RULES)


def begin(
    graph: Graph,
    *,
    unit: VectorUnit,
    costs: CostModel,
    parts: int,
    prefer: Method | None = None,
    gpu: GpuTarget | None = None,
) -> Lowering:
    """Returns a network of which nothing is translated yet; see :func:`lower`."""
    name = graph.metadata.input.name
    x = input_view(name, graph.inputs[name])
    program = Program(x.buffer, x.buffer, parts if gpu is None else 1, gpu=gpu)
    layer = emit_linear if gpu is None else emit_gpu_linear
    consumers = count_consumers(graph)
    return Lowering(graph, unit, costs, prefer, program.threads, consumers, program, layer, Values({name: x}))


def translate(state: Lowering, rules: Mapping[str, Rule]) -> Program:
    """Translates every node by the rule of its operator.

    Raises:
        UnsupportedError: a node has no kernel; the message names it.
    """
    for node in state.graph.nodes:
        if node.op not in rules:
            raise UnsupportedError(
                f"operator {node.op} of node '{node.name}' has no kernel. Known: {', '.join(sorted(rules))}."
            )
        try:
            rules[node.op](state, node)
        except UnsupportedError as error:
            raise UnsupportedError(f"node '{node.name}' ({node.op}): {error}") from None
        _check_shapes(state, node)
    logits = state.contiguous(state.read(state.graph.metadata.output.name))
    computed = logits.buffer.space == "workspace" and logits.buffer is not state.program.input
    state.program.output = (logits if computed else state.copied(logits)).buffer
    if state.gpu is not None:
        fuse(state.program)
    return state.program


def _check_shapes(state: Lowering, node: Node) -> None:
    """Raises UnsupportedError where a rule understood a node otherwise than who wrote the file."""
    for name in set(node.outputs) & state.values.keys() & state.graph.shapes.keys():
        made, declared = state.values[name].shape, state.graph.shapes[name]
        if made != declared:
            raise UnsupportedError(
                f"node '{node.name}' ({node.op}) gives '{name}' the shape {made}, the file declares {declared}."
            )
