"""How often every layer of neurons fired on the device, from the spikes that ``svit-run --spikes`` writes."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import VerificationError


def read_taps(program: str) -> dict[str, int]:
    """Returns the layers whose spikes a program shows, with the number of bytes of each, in the program's order.

    Args:
        program: content of a bundle's ``program.txt``.

    Raises:
        VerificationError: the program cannot be read.
    """
    sizes: dict[str, int] = {}
    taps: dict[str, int] = {}
    try:
        for line in program.splitlines():
            words = line.split()
            if words[:1] == ["tensor"]:
                ndim = int(words[6])
                sizes[words[1]] = prod(int(words[7 + axis]) for axis in range(ndim))
            elif words[:1] == ["tap"]:
                taps[words[1]] = sizes[words[2]]
    except (IndexError, KeyError, ValueError):
        raise VerificationError(f"program.txt has a broken line: '{line[:80]}'. Build the bundle again.") from None
    return taps


def firing_rates(spikes: NDArray[np.uint8], taps: dict[str, int]) -> dict[str, float]:
    """Averages spikes over inputs, time steps and neurons.

    Args:
        spikes: (R * N,) uint8, 0 or 1: R records (inputs, or time steps of inputs) of the N bytes of all taps.
        taps: bytes of each layer in one record, in order.

    Returns:
        Spikes per neuron and time step (0..1), by layer.

    Raises:
        VerificationError: the spikes do not divide into records.
    """
    width = sum(taps.values())
    if width == 0 or spikes.size == 0 or spikes.size % width:
        raise VerificationError(
            f"{spikes.size} bytes of spikes are no multiple of the {width} that the program's layers have. "
            "Build the bundle again."
        )
    means = spikes.reshape(-1, width).mean(axis=0, dtype=np.float64)
    ends = np.cumsum(list(taps.values()))
    return {name: float(means[end - size : end].mean()) for (name, size), end in zip(taps.items(), ends, strict=True)}
