"""The leaky integrate-and-fire neuron as an ONNX operator, ``ai.svitkit::LIF`` version 1.

    LIF <tau, v_threshold, v_reset, decay_input> (X[T, ...], V0) -> (S[T, ...], VT[...])

An absent ``v_reset`` means a soft reset. ONNX has no way to ask inside a function body whether an attribute is there,
so each of the four kinds of neuron has a body of its own, told apart by the function's overload; the attributes alone
say everything, and a reader may ignore the overload. ``V0`` is the state before the first step, or a scalar for all
neurons. The meaning is that of :mod:`svitkit.lif`.
"""

from __future__ import annotations

import functools

import onnx
from onnx import parser
from pydantic import ValidationError

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams

LIF_DOMAIN = "ai.svitkit"
LIF_VERSION = 1
LIF_OP = "LIF"
ONNX_OPSET = 18
INT4_OPSET = 21
"""Version of the standard operators in files with 4-bit weights, the first that can cast them."""
IR_VERSION = 10

_REQUIRED = {
    "tau": onnx.AttributeProto.FLOAT,
    "v_threshold": onnx.AttributeProto.FLOAT,
    "decay_input": onnx.AttributeProto.INT,
}
_KNOWN = {**_REQUIRED, "v_reset": onnx.AttributeProto.FLOAT}

_TEMPLATE = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <{attributes}> (X, V0) => (S, VT) {{
  tau = Constant <value_float: float = @tau> ()
  v_threshold = Constant <value_float: float = @v_threshold> ()
  {v_rest}
  one = Constant <value = float {{1.0}}> ()
  zero = Constant <value = float {{0.0}}> ()
  extent = Shape <start = 1> (X)
  v_first = Expand (V0, extent)
  VT, S = Scan <num_scan_inputs = 1, body = step (float[] v, float[] x) => (float[] v_next, float[] s) {{
    over = Sub (v, v_rest)
    {charge}
    fired = GreaterOrEqual (h, v_threshold)
    s = Where (fired, one, zero)
    {reset}
  }}> (v_first, X)
}}
"""
_CHARGE = {
    True: "drive = Sub (x, over)  change = Div (drive, tau)  h = Add (v, change)",
    False: "leak = Div (over, tau)  rest = Sub (v, leak)  h = Add (rest, x)",
}
_REST = {
    True: "v_rest = Constant <value_float: float = @v_reset> ()",
    False: "v_rest = Constant <value = float {0.0}> ()",
}
_RESET = {
    True: "v_next = Where (fired, v_rest, h)",
    False: "drop = Mul (v_threshold, s)  v_next = Sub (h, drop)",
}


def lif_overload(params: LIFParams) -> str:
    """Returns the overload that implements a layer, for example ``hard_decay`` or ``soft_plain``."""
    reset = "soft" if params.v_reset is None else "hard"
    return f"{reset}_{'decay' if params.decay_input else 'plain'}"


def lif_attributes(params: LIFParams) -> dict[str, float | int]:
    """Returns the operator's attributes; ``v_reset`` is left out for a soft reset."""
    attributes: dict[str, float | int] = {
        "tau": float(params.tau),
        "v_threshold": float(params.v_threshold),
        "decay_input": int(params.decay_input),
    }
    if params.v_reset is not None:
        attributes["v_reset"] = float(params.v_reset)
    return attributes


@functools.cache
def _functions(opset: int) -> dict[str, onnx.FunctionProto]:
    functions = {}
    for hard in (True, False):
        for decay in (True, False):
            text = _TEMPLATE.format(
                domain=LIF_DOMAIN,
                opset=opset,
                name=LIF_OP,
                attributes=", ".join(["tau", "v_threshold", "decay_input"] + ["v_reset"] * hard),
                v_rest=_REST[hard],
                charge=_CHARGE[decay],
                reset=_RESET[hard],
            )
            function = parser.parse_function(text)
            function.overload = f"{'hard' if hard else 'soft'}_{'decay' if decay else 'plain'}"
            functions[function.overload] = function
    return functions


def lif_function(overload: str, opset: int = ONNX_OPSET) -> onnx.FunctionProto:
    """Returns a fresh copy of the function body for one overload, in a file of that version of the standard operators.

    Raises:
        UnsupportedError: there is no such overload.
    """
    functions = _functions(opset)
    if overload not in functions:
        raise UnsupportedError(
            f"{LIF_DOMAIN}::{LIF_OP} has no overload '{overload}'. Known: {', '.join(sorted(functions))}. "
            f"Write the file again with 'svitkit export'."
        )
    copy = onnx.FunctionProto()
    copy.CopyFrom(functions[overload])
    return copy


def read_lif(node: onnx.NodeProto) -> LIFParams:
    """Reads the constants of a ``LIF`` node.

    Raises:
        UnsupportedError: an attribute is missing, unknown, of the wrong type or out of range, or the node's overload is
            not the one its attributes ask for.
    """
    layer = node.name or "without a name"
    values: dict[str, float | bool] = {}
    for attribute in node.attribute:
        if _KNOWN.get(attribute.name) != attribute.type or attribute.ref_attr_name:
            raise UnsupportedError(
                f"LIF node {layer} has an attribute '{attribute.name}' that version {LIF_VERSION} does not have, or "
                f"not in that type. Known: {', '.join(_KNOWN)}. Write the file again with 'svitkit export'."
            )
        values[attribute.name] = attribute.f if attribute.type == onnx.AttributeProto.FLOAT else bool(attribute.i)
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise UnsupportedError(f"LIF node {layer} lacks the attribute {', '.join(missing)}.")
    try:
        params = LIFParams(**{"v_reset": None, **values})  # type: ignore[arg-type]
    except ValidationError as error:
        raise UnsupportedError(f"LIF node {layer} has no valid constants: {error.errors()[0]['msg']}.") from None
    if node.overload != lif_overload(params):
        raise UnsupportedError(
            f"LIF node {layer} names the overload '{node.overload}', but its attributes mean '{lif_overload(params)}'. "
            f"Write the file again with 'svitkit export'."
        )
    return params
