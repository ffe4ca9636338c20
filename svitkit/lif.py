"""The leaky integrate-and-fire neuron: the one meaning that every stage shares.

    h  = v + (x - (v - v_reset)) / tau      if decay_input
    h  = v - (v - v_reset) / tau + x        otherwise
    s  = h >= v_threshold
    v' = v_reset where s else h             hard reset (v_reset is a number)
    v' = h - v_threshold * s                soft reset (v_reset is None)

This is spikingjelly's ``LIFNode``, which fires at ``>=``; snnTorch, norse and NIR fire at ``>``. ``tau`` is counted in
time steps. Source: Fang et al., "SpikingJelly", Science Advances 2023, equations of charging, firing and resetting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LIFParams:
    """The constants of one layer of neurons.

    Attributes:
        tau: membrane time constant in time steps, greater than 1.
        v_threshold: membrane potential at and above which the neuron fires.
        v_reset: potential after a spike (hard reset), or None for a soft reset.
        decay_input: whether the input decays with the membrane (is divided by tau).
    """

    tau: float = Field(default=2.0, gt=1.0)
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    decay_input: bool = True

    @property
    def v_initial(self) -> float:
        """The membrane potential before the first time step."""
        return 0.0 if self.v_reset is None else self.v_reset


def lif_step(x: Array, v: Array, params: LIFParams) -> tuple[Array, Array]:
    """Advances a layer by one time step.

    Args:
        x: (...) float32, input current.
        v: (...) float32, membrane potential before the step.
        params: the layer's constants.

    Returns:
        s: (...) float32, 1 where the neuron fired, else 0.
        v: (...) float32, membrane potential after the step.
    """
    dtype = x.dtype.type
    tau, v_threshold = dtype(params.tau), dtype(params.v_threshold)
    v_rest = dtype(params.v_initial)
    h = v + (x - (v - v_rest)) / tau if params.decay_input else v - (v - v_rest) / tau + x
    s = h >= v_threshold
    v_next = h - v_threshold * s.astype(h.dtype) if params.v_reset is None else np.where(s, v_rest, h)
    return s.astype(x.dtype), v_next


def lif(x: Array, params: LIFParams, v: Array | None = None) -> tuple[Array, Array]:
    """Runs a layer over all time steps.

    Args:
        x: (T, ...) float32, input current.
        params: the layer's constants.
        v: (...) float32, initial membrane potential; ``params.v_initial`` if None.

    Returns:
        s: (T, ...) float32, spikes.
        v: (...) float32, membrane potential after the last step.
    """
    v = np.full(x.shape[1:], params.v_initial, x.dtype) if v is None else v
    spikes = np.empty_like(x)
    for t, x_t in enumerate(x):
        spikes[t], v = lif_step(x_t, v, params)
    return spikes, v
