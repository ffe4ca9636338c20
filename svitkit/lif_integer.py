"""The leaky integrate-and-fire neuron in integers, the same wherever it is computed.

Currents and potentials are multiples of powers of two, x = 2^-n X and v = 2^-m V with n >= m, and tau is 2^p. Charging
needs no division then, firing looks at the exact potential before the reset, and only what is kept until the next time
step is rounded to the membrane's few bits:

    U  = gain X + keep V                        gain = 1 if decay_input else 2^p,  keep = (2^p - 1) 2^(n-m)
    s  = U >= threshold                         U is the potential in steps of 2^-(n+p)
    R  = 0 where s else U                       hard reset (v_reset is 0)
    R  = U - threshold s                        soft reset
    V' = clip(floor((R + 2^(n+p-m-1)) / 2^(n+p-m)), -2^(bits-1), 2^(bits-1) - 1)

Everything fits in 32 bits. The equations are those of :mod:`svitkit.lif` with rounded constants; grids of powers of two
for the membrane are those of PTQ4SNN (arXiv 2608.07066), here one for a whole layer, whose channels share a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from math import frexp
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from svitkit.lif import LIFParams

MembraneBits = Literal[16, 8, 4]
MEMBRANE_BITS: tuple[MembraneBits, ...] = (16, 8, 4)
LARGEST_FRACTION = 14
CURRENT_FRACTION = 16
"""Bits behind the point of a current, the same in the whole of a network."""
LARGEST_TAU = 16
THRESHOLDS = (2.0**-8, 8.0)
"""With these and taus up to ``LARGEST_TAU``, currents up to 1024 leave every sum in 32 bits."""
STATE_DTYPES = {16: "int16", 8: "int8", 4: "int8"}
INT32_MAX = 2**31 - 1
Integers = NDArray[Any]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Membrane:
    """How the potentials of a layer are kept from one time step to the next.

    Attributes:
        bits: of a potential, two's complement.
        fraction: potentials are multiples of 2^-fraction.
    """

    bits: MembraneBits
    fraction: int = Field(ge=0, le=LARGEST_FRACTION)

    @property
    def low(self) -> int:
        """The smallest potential, in steps."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """The largest potential, in steps."""
        return (1 << (self.bits - 1)) - 1


def why_not_integer(params: LIFParams) -> str | None:
    """Returns what keeps a layer of neurons from being computed in integers, or None."""
    if frexp(params.tau)[0] != 0.5 or params.tau > LARGEST_TAU:
        return f"tau is {params.tau:g}, which is no power of two up to {LARGEST_TAU}"
    if params.v_reset:
        return f"v_reset is {params.v_reset:g}, wanted 0 or a soft reset"
    low, high = THRESHOLDS
    if not low <= params.v_threshold <= high:
        return f"v_threshold is {params.v_threshold:g}, wanted {low:g} to {high:g} above the resting potential 0"
    return None


@plain_dataclass(frozen=True, kw_only=True)
class IntegerLIF:
    """One layer of neurons in integers.

    Attributes:
        params: the constants, those of :func:`why_not_integer` None.
        membrane: the grid of the potentials.
        current_fraction: n; currents are multiples of 2^-n.
    """

    params: LIFParams
    membrane: Membrane
    current_fraction: int

    @property
    def shift(self) -> int:
        """The binary logarithm of tau."""
        return frexp(self.params.tau)[1] - 1

    @property
    def gain(self) -> int:
        """What a current is multiplied by."""
        return 1 if self.params.decay_input else 1 << self.shift

    @property
    def keep(self) -> int:
        """What a potential is multiplied by."""
        return ((1 << self.shift) - 1) << (self.current_fraction - self.membrane.fraction)

    @cached_property
    def threshold(self) -> int:
        """The sum from which a neuron fires."""
        return round(self.params.v_threshold * 2.0**self.current_fraction) << self.shift

    @property
    def drop(self) -> int:
        """By how many bits a sum is shifted to become a potential again."""
        return self.shift + self.current_fraction - self.membrane.fraction

    @property
    def state_dtype(self) -> str:
        """The type of a potential between two calls."""
        return STATE_DTYPES[self.membrane.bits]

    def room(self, current: float) -> float:
        """Returns the largest sum by magnitude, for currents up to ``current``, in steps of 2^-n."""
        potential = (1 << (self.membrane.bits - 1)) * self.keep
        return self.gain * current * 2.0**self.current_fraction + potential + self.threshold + (1 << self.drop)


def integer_lif_step(x: Integers, v: Integers, neuron: IntegerLIF) -> tuple[NDArray[np.bool_], Integers]:
    """Advances a layer by one time step.

    Args:
        x: (...) int32 or int64, currents in steps of 2^-n.
        v: (...) of the same type, potentials in steps of 2^-m.
        neuron: the layer.

    Returns:
        s: (...) bool, where a neuron fired.
        v: (...) as before, potentials after the step.
    """
    u = neuron.gain * x + neuron.keep * v
    s = u >= neuron.threshold
    rest = u - neuron.threshold * s if neuron.params.v_reset is None else np.where(s, 0, u)
    rounded = (rest + (1 << (neuron.drop - 1))) >> neuron.drop
    return s, rounded.clip(neuron.membrane.low, neuron.membrane.high).astype(v.dtype)
