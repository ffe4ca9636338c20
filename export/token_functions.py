"""How ``torch.onnx.export`` writes the operators on tokens (:mod:`svitkit.models.token_ops`).

A graph holds one input, so that the numbers of the tokens are a vector. Tokens are put back by a permutation: behind
the computed tokens stand all that there were, and every place takes the one of its number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnxscript import opset18
from onnxscript.values import Op, Opset

import svitkit.models.token_ops  # noqa: F401  registers the operators
from svitkit.onnx_tokens import SCORE_OP, TOKENS_DOMAIN, TOKENS_VERSION

TOKEN_AXIS = 3
op: Any = opset18  # its types do not know traced values


def _schema() -> onnx.defs.OpSchema:
    schema, parameter = onnx.defs.OpSchema, onnx.defs.OpSchema.FormalParameter
    return schema(
        SCORE_OP,
        TOKENS_DOMAIN,
        TOKENS_VERSION,
        inputs=[parameter("X", "T")],
        outputs=[parameter("S", "T")],
        type_constraints=[("T", ["tensor(float)"], "32-bit floats")],
        attributes=[schema.Attribute("criterion", schema.AttrType.STRING, required=True)],
    )


_SCORE = Op(Opset(TOKENS_DOMAIN, TOKENS_VERSION), SCORE_OP, op_schema=_schema())


def _choose(x: Any, kept: int, criterion: str) -> Any:
    return _top(_SCORE(x, criterion=criterion), kept)


def _top(score: Any, kept: int) -> Any:
    _, index = op.TopK(score, op.Constant(value_ints=[kept]), axis=-1)
    return index


def _take(x: Any, index: Any) -> Any:
    return op.Gather(x, op.Squeeze(index, op.Constant(value_ints=[0])), axis=TOKEN_AXIS)


def _put(x: Any, index: Any, tokens: Any) -> Any:
    kept, extent = int(tokens.shape[TOKEN_AXIS]), int(x.shape[TOKEN_AXIS])
    order = op.Constant(value_ints=list(range(kept, kept + extent)))
    first = op.Constant(value_ints=list(range(kept)))
    order = op.ScatterElements(order, op.Squeeze(index, op.Constant(value_ints=[0])), first, axis=0)
    return op.Gather(op.Concat(tokens, x, axis=TOKEN_AXIS), order, axis=TOKEN_AXIS)


def token_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns what ``torch.onnx.export`` must know to write the operators on tokens."""
    return {
        torch.ops.svitkit.choose_tokens.default: _choose,
        torch.ops.svitkit.top_tokens.default: _top,
        torch.ops.svitkit.take_tokens.default: _take,
        torch.ops.svitkit.put_tokens.default: _put,
    }
