"""A network of smaller widths out of an exported one, to count the work of: pruned, without exporting it again.

Only extents matter, so weights lose their last rows instead of the right ones. The sizes in ``Reshape``, ``Split``,
``Slice`` and ``Expand`` follow: of the extents that a reshape makes out of one, the innermost that can takes up the
change, so heads become narrower, not fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.runtime.cost_model import CostModel
from svitkit.runtime.import_onnx import Constants, Graph, Node, split_sizes
from svitkit.runtime.lowering.rules import RULES, Rule, begin, translate
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.lowering.views import slice_ranges
from svitkit.runtime.program import Program
from svitkit.runtime.vector_unit import VectorUnit

Shape = tuple[int, ...]
Removed = Mapping[tuple[str, int], AbstractSet[int]]
LINEAR = {"Conv", "ConvInteger", "Gemm", "MatMul", "MatMulInteger"}


@dataclass(frozen=True, kw_only=True)
class Template:
    """An exported network with the shape of every value.

    Attributes:
        graph: the network.
        unit: the vector unit that it is lowered for.
        costs: of that CPU.
        parts: most threads of its program.
        shapes: by name.
    """

    graph: Graph
    unit: VectorUnit
    costs: CostModel
    parts: int
    shapes: Mapping[str, Shape]


def template(graph: Graph, *, unit: VectorUnit, costs: CostModel, parts: int) -> Template:
    """Prepares a network to be lowered at other widths; the arguments are those of ``lower``."""
    state = begin(graph, unit=unit, costs=costs, parts=parts)
    state.writes_kernels = False
    translate(state, RULES)
    shapes = {name: view.shape for name, view in state.values.items()}
    return Template(graph=graph, unit=unit, costs=costs, parts=parts, shapes=shapes)


def lower_resized(known: Template, removed: Removed) -> Program:
    """Lowers a network of smaller widths. Its program has no functions: its work can be counted, no more.

    Args:
        known: the network as it is.
        removed: the indices that a tensor loses along an axis, by its name and axis in the trained network. Names of
            which the exported network has no weights, as those of batch norms that were folded, say nothing more.

    Raises:
        UnsupportedError: a size in the network does not follow from the widths.
    """
    graph = replace(known.graph, constants=resized_constants(known.graph, removed), shapes={})
    state = begin(graph, unit=known.unit, costs=known.costs, parts=known.parts)
    state.writes_kernels = False
    resize = _Resize(known, removed)
    return translate(state, {**RULES, **resize.rules()})


def resized_constants(graph: Graph, removed: Removed) -> dict[str, NDArray[Any]]:
    """Cuts weights, scales and biases."""
    constants = Constants(graph.constants)
    for node in graph.nodes:
        if node.op not in LINEAR or node.inputs[1] not in graph.constants:
            continue
        weight = trained_name(node)
        outputs, inputs = len(removed.get((weight, 0), ())), len(removed.get((weight, 1), ()))
        lies_as_trained = node.op in ("Conv", "ConvInteger") or bool(node.attributes.get("transB", 0))
        cuts = (outputs, inputs) if lies_as_trained else (inputs, outputs)
        constants[node.inputs[1]] = _cut(graph.constants[node.inputs[1]], cuts)
        layer = weight.removesuffix(".weight")
        behind = {f"{layer}.bias", f"{layer}.weight_scale", *(node.inputs[2:] if node.op in ("Conv", "Gemm") else ())}
        for name in behind & set(graph.constants):
            constants[name] = _cut(graph.constants[name], (outputs,))
    return constants


def trained_name(node: Node) -> str:
    """Returns what the trained network calls the weights of a linear node."""
    return node.inputs[1].removesuffix(".transpose")


def _cut(array: NDArray[Any], removed: Sequence[int]) -> NDArray[Any]:
    """Leaves so many indices fewer along the first axes."""
    return array[tuple(slice(extent - gone) for extent, gone in zip(array.shape, removed, strict=False))]


def resized_shape(before: Shape, after: Shape, now: Shape) -> Shape:
    """What a reshape of ``before`` to ``after`` makes of ``now``, a shape of as many axes.

    Raises:
        UnsupportedError: no extent can take up the change.
    """
    shape = list(after)
    for taken, made in _factor_groups(before, after):
        if not made:
            continue
        size = prod(now[axis] for axis in taken)
        if size == prod(after[axis] for axis in made):
            continue
        rest = {axis: prod(after[other] for other in made if other != axis) for axis in made}
        fitting = [axis for axis in made if size % rest[axis] == 0 and after[axis] > 1]
        if not fitting:
            raise UnsupportedError(f"{now} cannot be reshaped as {before} is to {after}.")
        shape[fitting[-1]] = size // rest[fitting[-1]]
    return tuple(shape)


def _factor_groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Matches the axes of two shapes of one size: the smallest groups of neighbours that have equal products."""
    groups: list[tuple[list[int], list[int]]] = []
    left, right = list(range(len(before))), list(range(len(after)))
    while left or right:
        taken, made = left[:1], right[:1]
        del left[:1], right[:1]
        while (sizes := (prod(before[axis] for axis in taken), prod(after[axis] for axis in made))) and (
            sizes[0] != sizes[1]
        ):
            side, rest = (taken, left) if sizes[0] < sizes[1] else (made, right)
            side.append(rest.pop(0))
        groups.append((taken, made))
    return groups


@dataclass(frozen=True)
class _Resize:
    """The rules that know sizes, with the network as it was and what it loses."""

    known: Template
    removed: Removed

    def rules(self) -> dict[str, Rule]:
        """Returns them by operator."""
        return {"Reshape": self.reshape, "Split": self.split, "Slice": self.slice, "Expand": self.expand}

    def reshape(self, state: Lowering, node: Node) -> None:
        view = state.values[node.inputs[0]]
        before, after = self.known.shapes[node.inputs[0]], self.known.shapes[node.outputs[0]]
        state.values[node.outputs[0]] = view.reshape(resized_shape(before, after, view.shape))

    def split(self, state: Lowering, node: Node) -> None:
        view, before = state.read(node.inputs[0]), self.known.shapes[node.inputs[0]]
        axis = int(node.attributes.get("axis", 0)) % len(before)
        first = last = 0
        for name, size in zip(node.outputs, split_sizes(node, state.graph, before[axis]), strict=True):
            first, last = last, last + size
            state.values[name] = view.slice(axis, *self._kept(node, (first, last), before[axis], view.shape[axis]))

    def slice(self, state: Lowering, node: Node) -> None:
        view, before = state.read(node.inputs[0]), self.known.shapes[node.inputs[0]]
        for axis, first, last in slice_ranges(node, state.graph, before):
            view = view.slice(axis, *self._kept(node, (first, last), before[axis], view.shape[axis]))
        state.values[node.outputs[0]] = view

    def expand(self, state: Lowering, node: Node) -> None:
        view, after = state.values[node.inputs[0]], self.known.shapes[node.outputs[0]]
        new_axes = len(after) - len(view.shape)
        before, now = (1,) * new_axes + self.known.shapes[node.inputs[0]], (1,) * new_axes + view.shape
        shape = [own if old == extent else extent for old, extent, own in zip(before, after, now, strict=True)]
        state.values[node.outputs[0]] = view.expand(shape, "time")

    def _kept(self, node: Node, ends: tuple[int, int], before: int, now: int) -> tuple[int, int]:
        """Returns where a range of an axis begins and ends, of which the layer before it lost channels.

        If the axis is something else than these channels, every range loses the same share.
        """
        layer = self._layer(node)
        gone = self.removed.get((trained_name(layer), 0), set()) if layer and now < before else set()
        if now + len(gone) == before:
            first, last = (end - sum(index < end for index in gone) for end in ends)
            return first, last
        if any(end * now % before for end in ends):
            raise UnsupportedError(f"the range {ends} of an axis of {before} has no equal in one of {now}.")
        return ends[0] * now // before, ends[1] * now // before

    def _layer(self, node: Node) -> Node | None:
        """Returns the linear node whose result a node is given, through neurons and views; None if there is none."""
        makers = {output: maker for maker in self.known.graph.nodes for output in maker.outputs}
        found = makers.get(node.inputs[0])
        while found is not None and found.op not in LINEAR:
            found = makers.get(found.inputs[0])
        return found
