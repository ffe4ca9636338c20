"""A network on its way to kernel calls, and what every rule needs of it: read values, place weights, call kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.runtime.cost_model import CostModel, Method
from svitkit.runtime.import_onnx import Graph
from svitkit.runtime.kernels.launch import for_gpu
from svitkit.runtime.kernels.pointwise import ElementwiseSpec, Operand, build_elementwise
from svitkit.runtime.program import Call, Expansion, GpuTarget, Program
from svitkit.runtime.sparse import sparse_array
from svitkit.runtime.vector_unit import VectorUnit
from svitkit.runtime.view import PACKED, Atom, Axis, Buffer, Role, View

# Operations from which a call is divided among threads. Vector units make 4 to 16 of them in a nanosecond, so that a
# smaller call takes a microsecond or two: not much more than threads need to tell each other that they are done.
SPLIT_WORK = 16384
FREE = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice", "Expand", "Cast"}
Spec = TypeVar("Spec")


class Waiting(Protocol):
    """A value whose kernel is chosen once its consumer is known."""

    @property
    def output(self) -> str:
        """Name of the graph value."""

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Computes the value by itself into ``out``."""


class Values(dict[str, View]):
    """Values by their names of the graph; what no rule has computed is refused."""

    def __missing__(self, name: str) -> View:
        """Raises UnsupportedError."""
        raise UnsupportedError(f"'{name}' is a constant, or an output of a node that is not computed.")


class LayerRule(Protocol):
    """Chooses the kernel of a layer with constant weights, and appends its calls."""

    def __call__(self, state: Lowering, linear: Any, out: Buffer, fused: Any) -> None:
        """Computes a :class:`svitkit.runtime.lowering.layers.Linear` into ``out``, or its neurons' spikes."""


@dataclass
class Lowering:
    """A network on its way to a program.

    Attributes:
        graph: the imported network.
        unit: the vector unit of the target.
        costs: what work costs on the target.
        prefer: the method that is taken wherever it can be, or None for the one that costs least.
        parts: most parts that a call is divided into; kernels with memory for each part have it for so many.
        consumers: how many computing nodes read each value, directly or through views.
        program: what was translated so far.
        values: views by the names of the graph.
        waiting: values whose kernel is not chosen yet, by their buffer.
        symbols: kernels by everything that shapes them; layers of one shape share one function.
        lists: indices and counts of the event lists that exist, by the value's buffer and their shape.
        emit_layer: the rule for layers with constant weights.
        stores_sparse: whether weights of which most are 0 are stored without zeros.
        writes_kernels: whether the functions are made, not only described.
    """

    graph: Graph
    unit: VectorUnit
    costs: CostModel
    prefer: Method | None
    parts: int
    consumers: dict[str, int]
    program: Program
    emit_layer: LayerRule
    values: Values = field(default_factory=lambda: Values())
    waiting: dict[Buffer, Waiting] = field(default_factory=dict)
    symbols: dict[Any, str] = field(default_factory=dict)
    lists: dict[Any, tuple[Buffer, Buffer]] = field(default_factory=dict)
    stores_sparse: bool = True
    writes_kernels: bool = True

    def read(self, name: str) -> View:
        """Returns a value as a view; computes it first if it waits, and turns a constant into weights."""
        if name in self.graph.constants:
            return self.constant_view(name)
        self.settle(self.values[name])
        return self.values[name]

    def settle(self, view: View) -> None:
        """Computes a value if it waits."""
        waiting = self.waiting.pop(view.buffer, None)
        if waiting is not None:
            waiting.emit(self, view.buffer)

    def constant_view(self, name: str) -> View:
        """Returns a constant as weights in the file's own order."""
        given = self.graph.constants[name]
        array = np.ascontiguousarray(given, np.int32 if given.dtype == np.int32 else np.float32)
        strides = [prod(array.shape[index + 1 :]) for index in range(array.ndim)]
        axes = tuple(
            (Atom(size, stride, "channel"),) if size > 1 else ()
            for size, stride in zip(array.shape, strides, strict=True)
        )
        return View(self.weights(name, array), axes)

    def weights(self, name: str, array: NDArray[Any], *, sparse_of: str | None = None) -> Buffer:
        """Places an array in the weights file, once.

        Args:
            name: of the buffer.
            array: the weights.
            sparse_of: the layer whose weights they are, if many of them are 0: they are stored without zeros then,
                where that is smaller, and the buffer is where they are expanded to.
        """
        for buffer in (*self.program.weights, *(each.out for each in self.program.expansions)):
            if buffer.name == name:
                return buffer
        found = sparse_array(array) if sparse_of is not None and self.stores_sparse else None
        if found is not None and sparse_of is not None:
            bitmap, values = self.weights(f"{name}.bitmap", found.bitmap), self.weights(f"{name}.values", found.values)
            out = Buffer(name, str(array.dtype), array.shape)
            self.program.expansions.append(Expansion(sparse_of, out, bitmap, values, found.background))
            return out
        buffer = Buffer(name, str(array.dtype), array.shape or (1,), space="weights")
        self.program.weights[buffer] = np.ascontiguousarray(array).tobytes()
        return buffer

    def call(
        self,
        layer: str,
        kernel: str,
        spec: Spec,
        build: Callable[[Spec], Any],
        buffers: Sequence[Buffer],
        *,
        work: int = 0,
        prepares: bool = False,
    ) -> None:
        """Appends a kernel call; layers of one shape share one function.

        Args:
            layer: the layer's name.
            kernel: the kernel's name.
            spec: all that shapes the function.
            build: makes the function.
            buffers: its arguments.
            work: operations of the call if its function divides them into parts, else 0.
            prepares: whether one call does for all inferences; only a GPU keeps its result apart.
        """
        if spec not in self.symbols:
            self.symbols[spec] = f"{kernel}_{len(self.symbols)}"
            self.program.specs[self.symbols[spec]] = spec
            if self.writes_kernels:
                self._build(self.symbols[spec], spec, build)
        split, prepares = work >= SPLIT_WORK and self.gpu is None, prepares and self.gpu is not None
        self.program.calls.append(Call(self.symbols[spec], layer, tuple(buffers), split=split, prepares=prepares))

    @property
    def gpu(self) -> GpuTarget | None:
        """The GPU that the program is for, None for the CPU."""
        return self.program.gpu

    def _build(self, symbol: str, spec: Spec, build: Callable[[Spec], Any]) -> None:
        if self.gpu is None:
            self.program.functions[symbol] = build(spec)
            return
        with for_gpu(self.gpu.api) as kernel:
            self.program.functions[symbol] = build(spec)
        assert kernel.launch is not None
        self.program.launches[symbol] = kernel.launch

    def spike_dtype(self, axes: Sequence[Axis]) -> str:
        """How the spikes of neurons are stored: a GPU packs them where all channels of a row follow each other."""
        roles = [atom.role for axis in axes for atom in axis if atom.size > 1]
        channels = [index for index, role in enumerate(roles) if role == "channel"]
        together = not channels or channels[-1] - channels[0] == len(channels) - 1
        return PACKED if self.gpu is not None and together else "uint8"

    def contiguous(self, view: View) -> View:
        """Copies a value into the graph's own order unless it lies so already."""
        return view if view.is_contiguous() and view.buffer.dtype == "float32" else self.copied(view)

    def copied(self, view: View) -> View:
        """Copies a value into the graph's own order, as float32."""
        atoms = [atom for atom in view.atoms if atom.size > 1]
        strides = [prod(atom.size for atom in atoms[index + 1 :]) for index in range(len(atoms))]
        left = iter(strides)
        axes = tuple(tuple(replace(atom, stride=next(left)) for atom in axis if atom.size > 1) for axis in view.axes)
        buffer = Buffer(f"{view.buffer.name}.ordered", "float32", tuple(atom.size for atom in atoms) or (1,))
        out = View(buffer, axes)
        target = Operand(tuple(strides), 0, out.buffer.elements, "float32")
        spec = ElementwiseSpec("copy", tuple(atom.size for atom in atoms), (operand(view, atoms),), None, target)
        work = out.buffer.elements
        self.call(view.buffer.name, "copy", spec, build_elementwise, [view.buffer, out.buffer], work=work)
        return out


def count_consumers(graph: Graph) -> dict[str, int]:
    """How many computing nodes read each value, directly or through views."""
    counts: dict[str, int] = dict.fromkeys(graph.outputs, 1)
    for node in reversed(graph.nodes):
        weight = sum(counts.get(name, 0) for name in node.outputs) if node.op in FREE else 1
        for name in node.inputs[:1] if node.op in FREE else node.inputs:
            counts[name] = counts.get(name, 0) + weight
    return counts


def input_view(name: str, shape: tuple[int, ...]) -> View:
    """The data input lies in memory as the file declares it: ([T,] B, C, H, W)."""
    spatial: list[Role] = ["space"] * (min(len(shape), 4) - 2)
    leading: list[Role] = ["time"] * (len(shape) - len(spatial) - 1)
    roles: list[Role] = [*leading, "channel", *spatial] if shape else []
    strides = [prod(shape[index + 1 :]) for index in range(len(shape))]
    axes = tuple(
        (Atom(size, stride, role),) if size > 1 else ()
        for size, stride, role in zip(shape, strides, roles, strict=True)
    )
    return View(Buffer(name, "float32", shape), axes)


def operand(view: View, atoms: Sequence[Atom]) -> Operand:
    """How a kernel whose loops run over ``atoms`` reads a view."""
    return Operand(tuple(atom.stride for atom in atoms), view.offset, view.buffer.elements, view.buffer.dtype)


def time_extent(view: View) -> int:
    """Number of time steps of a value, broadcast ones included."""
    return prod(atom.size for atom in view.atoms if atom.role == "time")


def common_atom(atoms: Sequence[Atom]) -> Atom:
    """Size and role of a result's atom; broadcast only if it is so in every operand."""
    return Atom(
        atoms[0].size, max(atom.stride for atom in atoms), next((a.role for a in atoms if a.stride), atoms[0].role)
    )
