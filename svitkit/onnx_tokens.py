"""Scores of tokens as an ONNX operator, ``ai.svitkit.tokens::Score`` version 1.

    Score (X[T, 1, C, H, W]) -> (S[1, H W])

``X`` holds spikes or their counts, ``S`` is what :func:`svitkit.models.token_ops.score_tokens` says; the overload is
the criterion. The body is standard ONNX. Standard operators on its result (``TopK``, ``Gather``, ``ScatterElements``,
``Concat``) choose tokens, take them out and put them back.
"""

from __future__ import annotations

import functools

import onnx
from onnx import parser

from svitkit.errors import UnsupportedError
from svitkit.onnx_lif import ONNX_OPSET

TOKENS_DOMAIN = "ai.svitkit.tokens"
TOKENS_VERSION = 1
SCORE_OP = "Score"

_BODIES = {
    "activity": """
  apart = ReduceSum <keepdims = 0> (X, axes)
  S = Flatten <axis = 1> (apart)
""",
    "difference": """
  zero = Constant <value = int64[1] {0}> ()
  one = Constant <value = int64[1] {1}> ()
  two = Constant <value = int64[1] {2}> ()
  end = Constant <value = int64[1] {9223372036854775807}> ()
  last = Constant <value = int64[1] {-1}> ()
  second = Constant <value = int64[1] {-2}> ()
  height = Constant <value = int64[1] {3}> ()
  width = Constant <value = int64[1] {4}> ()
  nine = Constant <value = float {9.0}> ()
  pads = Constant <value = int64[10] {0, 0, 0, 1, 1, 0, 0, 0, 1, 1}> ()
  padded = Pad <mode = "edge"> (X, pads)
  upper = Slice (padded, zero, second, height)
  middle = Slice (padded, one, last, height)
  lower = Slice (padded, two, end, height)
  rows_above = Add (upper, middle)
  rows = Add (rows_above, lower)
  left = Slice (rows, zero, second, width)
  centre = Slice (rows, one, last, width)
  right = Slice (rows, two, end, width)
  columns_before = Add (left, centre)
  around = Add (columns_before, right)
  ninefold = Mul (nine, X)
  off = Sub (ninefold, around)
  off_size = Abs (off)
  apart = ReduceSum <keepdims = 0> (off_size, axes)
  later = Slice (X, one, end, zero)
  earlier = Slice (X, zero, last, zero)
  change = Sub (later, earlier)
  change_size = Abs (change)
  changed = ReduceSum <keepdims = 0> (change_size, axes)
  weighted = Mul (nine, changed)
  total = Add (apart, weighted)
  S = Flatten <axis = 1> (total)
""",
}
CRITERIA = tuple(_BODIES)


@functools.cache
def _functions(opset: int) -> dict[str, onnx.FunctionProto]:
    functions = {}
    for criterion, body in _BODIES.items():
        axes = "axes = Constant <value = int64[2] {0, 2}> ()"
        head = f'<domain: "{TOKENS_DOMAIN}", opset_import: ["" : {opset}]>'
        function = parser.parse_function(f"{head}\n{SCORE_OP} (X) => (S) {{\n  {axes}{body}}}")
        function.overload = criterion
        functions[criterion] = function
    return functions


def score_function(overload: str, opset: int = ONNX_OPSET) -> onnx.FunctionProto:
    """Returns a fresh copy of the function body for a criterion, in a file of that version of the standard operators.

    Raises:
        UnsupportedError: there is no such criterion.
    """
    functions = _functions(opset)
    if overload not in functions:
        raise UnsupportedError(
            f"{TOKENS_DOMAIN}::{SCORE_OP} has no overload '{overload}'. Known: {', '.join(sorted(functions))}. "
            f"Write the file again with 'svitkit export'."
        )
    copy = onnx.FunctionProto()
    copy.CopyFrom(functions[overload])
    return copy
