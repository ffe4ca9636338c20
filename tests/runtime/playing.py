"""Plays a program inside this process: the same kernels as a bundle's, called one by one on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import tvm
from numpy.typing import NDArray

from svitkit.manifest import ModelMetadata, Normalization, TensorSpec
from svitkit.runtime.cost_model import CostModel, Method
from svitkit.runtime.cost_tables import COSTS
from svitkit.runtime.import_onnx import Graph, Node
from svitkit.runtime.lowering import translation
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.program import Program, tap_order
from svitkit.runtime.vector_unit import VectorUnit

Array = NDArray[Any]
# Panels so narrow that small layers have several, and segments so small that they are cut.
SMALL = VectorUnit(
    float_lanes=8,
    integer_lanes=16,
    dense_lanes=8,
    dense_rows=4,
    chunk=8,
    word_chunk=4,
    group=2,
    narrow_group=8,
    near_bytes=2048,
    segment_bytes=1024,
    search="table",
    dot=None,
)
# What work costs matters where a test asks for no method.
COSTS_HERE = CostModel(table=COSTS["x86-64-v4"], clock_mhz=1000.0)


def graph(
    nodes: Sequence[Node],
    *,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    constants: Mapping[str, Array],
    states: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """A network by hand; its input is ``input`` and its output ``logits``."""
    metadata = ModelMetadata(
        family="test",
        mode="step" if states else "sequence",
        timesteps=4,
        static_input=False,
        input=TensorSpec(name="input", shape=input_shape),
        output=TensorSpec(name="logits", shape=output_shape),
        lif_layers=(),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=(),
        parameter_bytes=0,
        original_parameter_bytes=0,
        checkpoint_sha256="",
        plan_sha256=None,
        producer="test",
    )
    return Graph(tuple(nodes), {"input": input_shape, **(states or {})}, {"logits": output_shape}, constants, metadata)


def node(op: str, inputs: str, output: str, **attributes: Any) -> Node:
    """A node; ``inputs`` are separated by blanks. Its name is that of its output."""
    return Node(op, output, tuple(inputs.split()), tuple(output.split()), attributes)


class Player:
    """A compiled program with its memory. Calls that can be split are, in ``parts``, of which the last comes first."""

    def __init__(
        self,
        network: Graph,
        *,
        unit: VectorUnit = SMALL,
        parts: int = 3,
        prefer: Method | None = "rows",
        target: str | dict[str, Any] = "llvm",
    ) -> None:
        self.parts = parts
        with patch.object(translation, "SPLIT_WORK", 1):
            self.program: Program = lower(network, unit=unit, costs=COSTS_HERE, parts=parts, prefer=prefer)
        functions = {name: f.with_attr("global_symbol", name) for name, f in self.program.functions.items()}
        executable = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(target))
        self.source = str(executable.mod.inspect_source("ll"))
        self.library = executable.jit()
        self.memory = {
            buffer: tvm.runtime.tensor(np.zeros(buffer.elements, buffer.dtype)) for buffer in self.program.buffers()
        }
        for buffer, content in self.program.weights.items():
            self.memory[buffer].copyfrom(np.frombuffer(content, buffer.dtype))
        for buffer, initial in self.program.states.items():
            self.memory[buffer].copyfrom(np.full(buffer.elements, initial, np.float32))

    def run(self, x: Array) -> Array:
        """Plays every call and returns the output, flat."""
        self.memory[self.program.input].copyfrom(np.ascontiguousarray(x, np.float32).ravel())
        self.spikes: dict[str, Array] = {}
        for index, call in enumerate(self.program.calls):
            arguments = [self.memory[buffer] for buffer in call.buffers]
            parts = self.parts if call.split else 1
            for part in reversed(range(parts)):
                self.library[call.symbol](*arguments, part, parts)
            for tap in self.program.taps:
                if tap.call == index:
                    stored = self.memory[tap.view.buffer].numpy().reshape(tap.view.buffer.shape)
                    self.spikes[tap.layer] = stored.transpose(tap_order(tap.view))
        return np.asarray(self.memory[self.program.output].numpy()).copy()

    def kernels(self) -> list[str]:
        """Names of the kernels called, without their numbers."""
        return [call.symbol.rsplit("_", 1)[0] for call in self.program.calls]
