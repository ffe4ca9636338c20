"""What values the inputs of a layer take, and how often: from the firing rates that calibration saw.

Elements are taken as independent of one another. That is exact for one layer's spikes, close for sums of different
layers, and an upper bound for what pooling finds, because neighbouring neurons of a trained network fire together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError

# Spikes per neuron and time step where nothing was calibrated: the upper end of what trained networks do (4 to 16 %).
DEFAULT_RATE = 0.15


@dataclass(frozen=True)
class Density:
    """How often an element of a tensor has which value.

    Attributes:
        shares: (limit + 1) probabilities of the values 0..limit.
        assumed: whether ``DEFAULT_RATE``, or nothing but the limit, stands behind them.
    """

    shares: tuple[float, ...]
    assumed: bool = False

    @property
    def active(self) -> float:
        """Share of the elements that are not 0."""
        return 1.0 - self.shares[0]

    @property
    def digits(self) -> tuple[float, ...]:
        """Share of the elements that have each binary digit set, the lowest digit first."""
        values = np.arange(len(self.shares))
        count = (len(self.shares) - 1).bit_length()
        return tuple(float(np.dot(values >> digit & 1, self.shares)) for digit in range(count))


def spikes(rate: float | None, layer: str = "") -> Density:
    """Spikes of a layer of neurons.

    Args:
        rate: spikes per neuron and time step (0..1); None where nothing was calibrated.
        layer: its name, for the message.

    Raises:
        ConfigError: the rate is no share.
    """
    if rate is None:
        return Density((1.0 - DEFAULT_RATE, DEFAULT_RATE), assumed=True)
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f"the firing rate of layer '{layer}' is {rate}; wanted 0 to 1. Export the network again.")
    return Density((1.0 - rate, rate))


def unknown(limit: int) -> Density:
    """Values of which nothing is known but that they are 0..limit: each is as likely as the others."""
    return Density((1.0 / (limit + 1),) * (limit + 1), assumed=True)


def added(a: Density, b: Density) -> Density:
    """Sum of two independent elements: the convolution of their shares."""
    return _density(np.convolve(a.shares, b.shares), a, b)


def multiplied(a: Density, b: Density) -> Density:
    """Product of two independent elements."""
    products = np.outer(np.arange(len(a.shares)), np.arange(len(b.shares))).ravel()
    weights = np.outer(a.shares, b.shares).ravel()
    return _density(np.bincount(products, weights).astype(np.float64), a, b)


def largest(a: Density, count: int) -> Density:
    """Largest of ``count`` independent elements; for neighbours that fire together an upper bound."""
    up_to = np.cumsum(a.shares).clip(0.0, 1.0) ** count  # P(all <= v)
    return _density(np.diff(up_to, prepend=0.0), a)


def mixed(a: Density, b: Density, *, share: float) -> Density:
    """An element of ``a`` by a probability of ``share``, else one of ``b``."""
    shares = np.zeros(max(len(a.shares), len(b.shares)))
    shares[: len(a.shares)] += share * np.array(a.shares)
    shares[: len(b.shares)] += (1.0 - share) * np.array(b.shares)
    return _density(shares, a, b)


def _density(shares: NDArray[np.float64], *sources: Density) -> Density:
    """Rounds off what sums of floats leave behind."""
    exact = shares.clip(0.0)
    return Density(tuple(float(share) for share in exact / exact.sum()), any(source.assumed for source in sources))
