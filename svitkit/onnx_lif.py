"""The leaky integrate-and-fire neuron as an ONNX operator, ``ai.svitkit::LIF`` version 1.

    LIF <tau, v_threshold, v_reset, decay_input> (X[T, ...], V0) -> (S[T, ...], VT[...])

An absent ``v_reset`` means a soft reset. ONNX has no way to ask inside a function body whether an attribute is there,
so each of the four kinds of neuron has a body of its own, told apart by the function's overload; the attributes alone
say everything, and a reader may ignore the overload. ``V0`` is the state before the first step, or a scalar for all
neurons. The meaning is that of :mod:`svitkit.lif`.

With the attributes ``membrane_bits``, ``membrane_fraction`` and ``current_fraction`` the neuron computes in integers as
:mod:`svitkit.lif_integer` says: ``V0`` and ``VT`` are int16 or int8, ``X`` is int32, and the attributes ``gain``,
``keep``, ``threshold`` and ``divisor`` repeat what follows from the others. Where currents are no integers yet, ``X``
is float, rounded to a multiple of 2^-``current_fraction`` first, to even, within +-``limit``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import onnx
from onnx import parser
from pydantic import ValidationError

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams
from svitkit.lif_integer import (
    CURRENT_FRACTION,
    INT32_MAX,
    STATE_DTYPES,
    IntegerLIF,
    Membrane,
    why_not_integer,
)
from svitkit.manifest import IntegerGrid

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
_GRID = ("membrane_bits", "membrane_fraction", "current_fraction")
_DERIVED = ("gain", "keep", "threshold", "divisor")
_KNOWN = {
    **_REQUIRED,
    "v_reset": onnx.AttributeProto.FLOAT,
    **dict.fromkeys((*_GRID, *_DERIVED), onnx.AttributeProto.INT),
    "steps": onnx.AttributeProto.FLOAT,
    "limit": onnx.AttributeProto.FLOAT,
}
REAL_LIMIT = 1024.0
"""Beyond this, currents that are rounded by the neurons themselves are cut off."""

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
_INTEGER_TEMPLATE = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <{attributes}> (X, V0) => (S, VT) {{
  {constants}
  one = Constant <value = float {{1.0}}> ()
  zero = Constant <value = float {{0.0}}> ()
  silent = Constant <value = int32 {{0}}> ()
  two = Constant <value = int32 {{2}}> ()
  half = Div (divisor, two)
  low = Constant <value = int32 {{{low}}}> ()
  high = Constant <value = int32 {{{high}}}> ()
  {currents}
  extent = Shape <start = 1> (X)
  v_given = Cast <to = {int32}> (V0)
  v_first = Expand (v_given, extent)
  v_last, S = Scan <num_scan_inputs = 1, body = step (int32[] v, int32[] x) => (int32[] v_next, float[] s) {{
    drive = Mul (x, gain)
    kept = Mul (v, keep)
    u = Add (drive, kept)
    fired = GreaterOrEqual (u, threshold)
    s = Where (fired, one, zero)
    {reset}
    shifted = Add (rest, half)
    above = Mod (shifted, divisor)
    whole = Sub (shifted, above)
    rounded = Div (whole, divisor)
    at_least = Max (rounded, low)
    v_next = Min (at_least, high)
  }}> (v_first, currents)
  VT = Cast <to = {state}> (v_last)
}}
"""
_CURRENTS = {
    True: "scaled = Mul (X, steps)  nearest = Round (scaled)  low_limit = Neg (limit)  "
    "inside = Clip (nearest, low_limit, limit)  currents = Cast <to = {int32}> (inside)",
    False: "currents = Identity (X)",
}
_INTEGER_RESET = {
    True: "rest = Where (fired, silent, u)",
    False: "full = Sub (u, threshold)  rest = Where (fired, full, u)",
}
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


def lif_overload(params: LIFParams, integer: IntegerLIF | None = None, *, real: bool = False) -> str:
    """Returns the overload that implements a layer, for example ``hard_decay``, ``soft_plain`` or ``hard_int8``.

    Args:
        params: its constants.
        integer: how it computes in integers, or None.
        real: whether integer neurons round their currents themselves.
    """
    reset = "soft" if params.v_reset is None else "hard"
    if integer is not None:
        return f"{reset}_int{integer.membrane.bits}{'_real' if real else ''}"
    return f"{reset}_{'decay' if params.decay_input else 'plain'}"


def integer_attributes(integer: IntegerLIF, *, real: bool) -> dict[str, float | int]:
    """Returns the attributes that integer neurons have besides those of :func:`lif_attributes`."""
    attributes: dict[str, float | int] = {
        "membrane_bits": integer.membrane.bits,
        "membrane_fraction": integer.membrane.fraction,
        "current_fraction": integer.current_fraction,
        "gain": integer.gain,
        "keep": integer.keep,
        "threshold": integer.threshold,
        "divisor": 1 << integer.drop,
    }
    if real:
        attributes["steps"] = 2.0**integer.current_fraction
        attributes["limit"] = REAL_LIMIT * 2.0**integer.current_fraction
    return attributes


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
        for bits in STATE_DTYPES:
            for real in (True, False):
                function = _integer_function(opset, bits, hard=hard, real=real)
                functions[function.overload] = function
    return functions


def _integer_function(opset: int, bits: int, *, hard: bool, real: bool) -> onnx.FunctionProto:
    int32, state = onnx.TensorProto.INT32, onnx.TensorProto.DataType.Value(STATE_DTYPES[bits].upper())
    integers = [f"{name}_long = Constant <value_int: int = @{name}> ()" for name in _DERIVED]
    integers += [f"{name} = Cast <to = {int32}> ({name}_long)" for name in _DERIVED]
    floats = [f"{name} = Constant <value_float: float = @{name}> ()" for name in ("steps", "limit") if real]
    known = ["tau", "v_threshold", "decay_input", *["v_reset"] * hard, *_GRID, *_DERIVED, *["steps", "limit"] * real]
    text = _INTEGER_TEMPLATE.format(
        domain=LIF_DOMAIN,
        opset=opset,
        name=LIF_OP,
        attributes=", ".join(known),
        constants="\n  ".join(integers + floats),
        low=-(1 << (bits - 1)),
        high=(1 << (bits - 1)) - 1,
        currents=_CURRENTS[real].format(int32=int32),
        int32=int32,
        reset=_INTEGER_RESET[hard],
        state=state,
    )
    function = parser.parse_function(text)
    function.overload = f"{'hard' if hard else 'soft'}_int{bits}{'_real' if real else ''}"
    return function


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
    return _read(node)[0]


def read_integer_lif(node: onnx.NodeProto) -> IntegerLIF | None:
    """Reads how a ``LIF`` node computes in integers; None if it computes in float32.

    Raises:
        UnsupportedError: as for :func:`read_lif`.
    """
    return _read(node)[1]


def integer_grid(integer: IntegerLIF | None) -> IntegerGrid | None:
    """Returns what metadata say about neurons that compute in integers."""
    if integer is None:
        return None
    return IntegerGrid(membrane=integer.membrane, current_fraction=integer.current_fraction)


def rounds_currents(node: onnx.NodeProto) -> bool:
    """Whether integer neurons take float currents, which they round themselves."""
    return str(node.overload).endswith("_real")


def _read(node: onnx.NodeProto) -> tuple[LIFParams, IntegerLIF | None]:
    layer = node.name or "without a name"
    again = "Write the file again with 'svitkit export'."
    values: dict[str, float | int] = {}
    for attribute in node.attribute:
        if _KNOWN.get(attribute.name) != attribute.type or attribute.ref_attr_name:
            raise UnsupportedError(
                f"LIF node {layer} has an attribute '{attribute.name}' that version {LIF_VERSION} does not have, or "
                f"not in that type. Known: {', '.join(_KNOWN)}. {again}"
            )
        values[attribute.name] = attribute.f if attribute.type == onnx.AttributeProto.FLOAT else attribute.i
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise UnsupportedError(f"LIF node {layer} lacks the attribute {', '.join(missing)}.")
    constants = {name: values.pop(name) for name in (*_REQUIRED, "v_reset") if name in values}
    constants["decay_input"] = bool(constants["decay_input"])
    try:
        params = LIFParams(**{"v_reset": None, **constants})  # type: ignore[arg-type]
        integer = _integer(params, values) if values else None
    except ValidationError as error:
        raise UnsupportedError(f"LIF node {layer} has no valid constants: {error.errors()[0]['msg']}.") from None
    real = "steps" in values
    if values and (integer is None or values != integer_attributes(integer, real=real)):
        raise UnsupportedError(
            f"LIF node {layer} computes in integers, but its attributes contradict each other. {again}"
        )
    wanted = lif_overload(params, integer, real=real)
    if node.overload != wanted:
        raise UnsupportedError(
            f"LIF node {layer} names the overload '{node.overload}', but its attributes mean '{wanted}'. {again}"
        )
    return params, integer


def _integer(params: LIFParams, values: Mapping[str, float | int]) -> IntegerLIF | None:
    """Makes integer neurons of a node's attributes; None where these lack something or cannot be."""
    if any(name not in values for name in _GRID) or why_not_integer(params) is not None:
        return None
    bits, fraction, current_fraction = (int(values[name]) for name in _GRID)
    membrane = Membrane(bits=bits, fraction=fraction)  # type: ignore[arg-type]
    if not fraction <= current_fraction <= CURRENT_FRACTION:
        return None
    integer = IntegerLIF(params=params, membrane=membrane, current_fraction=current_fraction)
    return integer if integer.room(REAL_LIMIT if "steps" in values else 0.0) <= INT32_MAX else None
