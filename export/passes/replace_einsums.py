"""Turns ``Einsum`` of two tensors into a matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from svitkit.export.build_nodes import compute, constant, stand_in


def replace_einsums(model: ir.Model) -> None:
    """Rewrites every product of two tensors as Transpose, Reshape, MatMul, Reshape and Transpose.

    Axes that both tensors and the result have are the batch; those that both have and the result has not are summed.
    What is no such product (one tensor, three, an axis twice or summed alone, an ellipsis) stays, and is refused by the
    check of operators.
    """
    for node in list(model.graph):
        if node.domain == "" and node.op_type == "Einsum":
            _rewrite(model.graph, node)


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    terms = _terms(node.attributes.get_string("equation", ""))
    shapes = [value.shape for value in node.inputs if value is not None]
    dtype = node.outputs[0].dtype
    if terms is None or dtype is None or len(shapes) != 2 or not all(shape and shape.is_static() for shape in shapes):
        return
    left, right, out = terms
    extents = {
        letter: int(extent)
        for term, shape in zip((left, right), shapes, strict=True)
        for letter, extent in zip(term, shape.numpy() if shape else (), strict=True)
    }
    batch = [letter for letter in out if letter in left and letter in right]
    summed = [letter for letter in left if letter not in out]
    rows, columns = ([x for x in out if x in term and x not in batch] for term in (left, right))
    step = _Steps(graph, node, extents, dtype)
    a = step.arrange(node.inputs[0], left, [batch, rows, summed], "left")
    b = step.arrange(node.inputs[1], right, [batch, summed, columns], "right")
    shape = [extents[x] for x in batch] + [prod(extents[x] for x in part) for part in (rows, columns)]
    product = compute(graph, node, "MatMul", [a, b], name=f"{node.name}.product", shape=shape, dtype=dtype)
    stand_in(graph, node, step.restore(product, [*batch, *rows, *columns], out))


def _terms(equation: str) -> tuple[str, str, str] | None:
    """The letters of both tensors and of the result; None if it is no matrix product."""
    given, arrow, out = equation.replace(" ", "").partition("->")
    left, comma, right = given.partition(",")
    terms = (left, right, out)
    if not arrow or not comma or not all(term.isalpha() and len(set(term)) == len(term) for term in terms):
        return None
    both = set(left) & set(right)
    return terms if set(left) ^ set(right) <= set(out) <= set(left) | set(right) and both - set(out) else None


class _Steps:
    """Puts what surrounds the product in front of the node that is replaced."""

    def __init__(self, graph: ir.Graph, node: ir.Node, extents: dict[str, int], dtype: ir.DataType) -> None:
        self.graph, self.node, self.extents, self.dtype = graph, node, extents, dtype

    def arrange(self, value: ir.Value | None, letters: str, parts: Sequence[Sequence[str]], side: str) -> ir.Value:
        """Brings a tensor into the order (*batch, rows, columns), each of the latter one axis."""
        batch, *matrix = parts
        moved = self._transpose(value, letters, [x for part in parts for x in part], side)
        return self._reshape(moved, [*([x] for x in batch), *matrix], side)

    def restore(self, value: ir.Value, letters: Sequence[str], out: str) -> ir.Value:
        """Gives the product the result's axes."""
        return self._transpose(self._reshape(value, [[x] for x in letters], "result"), letters, list(out), "result")

    def _transpose(self, value: ir.Value | None, have: Sequence[str], want: Sequence[str], side: str) -> ir.Value:
        order = [have.index(letter) for letter in want]
        attributes = {"perm": order}
        shape, name = [self.extents[x] for x in want], f"{self.node.name}.{side}_order"
        return compute(
            self.graph, self.node, "Transpose", [value], name=name, shape=shape, dtype=self.dtype, attributes=attributes
        )

    def _reshape(self, value: ir.Value, parts: Sequence[Sequence[str]], side: str) -> ir.Value:
        shape, name = [prod(self.extents[x] for x in part) for part in parts], f"{self.node.name}.{side}_shape"
        to = constant(self.graph, self.node, np.array(shape, np.int64))
        return compute(self.graph, self.node, "Reshape", [value, to], name=name, shape=shape, dtype=self.dtype)
