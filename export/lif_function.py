"""The torch operator ``svitkit::lif``: one neuron layer stays one node from ``torch.export`` to ONNX.

spikingjelly's own operator is taken apart by ``torch.onnx.export`` into some forty elementwise nodes; this one is
opaque to it and has an entry in the exporter's translation table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnxscript.values import Op, Opset

from svitkit.onnx_lif import LIF_DOMAIN, LIF_OP, LIF_VERSION


@torch.library.custom_op("svitkit::lif", mutates_args=())
def lif(
    x: torch.Tensor,
    v: torch.Tensor,
    name: str,
    tau: float,
    v_threshold: float,
    v_reset: float | None,
    decay_input: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs one layer of neurons over all time steps, with the equations of :mod:`svitkit.lif`.

    Args:
        x: (T, ...) float32, input current.
        v: (...) float32 or a scalar, membrane potential before the first step.
        name: the layer's qualified name; carried along, not used.
        tau: membrane time constant in time steps.
        v_threshold: potential at and above which a neuron fires.
        v_reset: potential after a spike, None for a soft reset.
        decay_input: whether the input decays with the membrane.

    Returns:
        s: (T, ...) float32, spikes.
        v: (...) float32, membrane potential after the last step.
    """
    v = v.expand(x.shape[1:]).clone()
    rest = 0.0 if v_reset is None else v_reset
    spikes = torch.empty_like(x, memory_format=torch.contiguous_format)
    for t, x_t in enumerate(x):
        h = v + (x_t - (v - rest)) / tau if decay_input else v - (v - rest) / tau + x_t
        s = h >= v_threshold
        spikes[t] = s
        v = h - v_threshold * s if v_reset is None else torch.where(s, rest, h)
    return spikes, v


@lif.register_fake
def _shapes(
    x: torch.Tensor,
    v: torch.Tensor,
    name: str,
    tau: float,
    v_threshold: float,
    v_reset: float | None,
    decay_input: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(x.shape[1:])


def _schema() -> onnx.defs.OpSchema:
    schema, parameter = onnx.defs.OpSchema, onnx.defs.OpSchema.FormalParameter
    kinds = schema.AttrType
    return schema(
        LIF_OP,
        LIF_DOMAIN,
        LIF_VERSION,
        inputs=[parameter("X", "T"), parameter("V0", "T")],
        outputs=[parameter("S", "T"), parameter("VT", "T")],
        type_constraints=[("T", ["tensor(float)"], "32-bit floats")],
        attributes=[
            schema.Attribute("tau", kinds.FLOAT, required=True),
            schema.Attribute("v_threshold", kinds.FLOAT, required=True),
            schema.Attribute("decay_input", kinds.INT, required=True),
            schema.Attribute("v_reset", kinds.FLOAT, required=False),
        ],
    )


_LIF = Op(Opset(LIF_DOMAIN, LIF_VERSION), LIF_OP, op_schema=_schema())


def _translate(
    x: Any, v: Any, name: str, tau: float, v_threshold: float, v_reset: float | None, decay_input: bool
) -> Any:
    reset = {} if v_reset is None else {"v_reset": v_reset}
    return _LIF(x, v, tau=tau, v_threshold=v_threshold, decay_input=int(decay_input), **reset)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns what ``torch.onnx.export`` must know to write ``svitkit::lif`` as ``ai.svitkit::LIF``."""
    return {torch.ops.svitkit.lif.default: _translate}
