"""How far the membrane potentials of a quantized network drift from the original's: a quick proxy for lost accuracy.

    drift[l] = mean |h_q[l] - h[l]| / mean |h[l]|            flips[l] = mean (s_q[l] xor s[l])

over neurons, time steps and images, with the potentials h before the reset. Rounding moves potentials; where that
makes a neuron fire that did not, or the other way round, the layers behind it see it. Both networks run freely, so that
the errors of all layers before add up. A network's drift is the mean over its layers.

AQ4SViT (arXiv 2606.15523) gates candidates by the drift of membrane potentials; its formula is not public, this one is
ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from svitkit.compress.evaluate import Batch
from svitkit.compress.layer_rows import hooked, run_once
from svitkit.manifest import STRICT
from svitkit.models.membranes import membrane_of, run_neurons
from svitkit.models.neurons import lif_params, neuron_layers

LEAST_POTENTIAL = 1e-6


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Drift:
    """Of one network, the means over its layers of neurons.

    Attributes:
        potentials: relative difference of membrane potentials.
        flips: share of spikes that appear or vanish.
        accuracy: of the network on these images, in percent.
    """

    potentials: float
    flips: float
    accuracy: float


class DriftGauge:
    """Compares networks with an original on the same images."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        """Runs the original once and keeps its potentials.

        Args:
            model: the network, in evaluation mode; it is not changed.
            batch: (T, N, C, H, W) float32 and labels.
        """
        self._inputs, self._labels = batch
        self._wanted = {
            name: (h.half(), s.bool(), max(float(h.abs().mean()), LEAST_POTENTIAL))
            for name, (h, s) in _watched(model, self._inputs)[1].items()
        }

    def compare(self, model: nn.Module) -> Drift:
        """Measures a network with the same layers of neurons."""
        logits, found = _watched(model, self._inputs)
        potentials, flips = [], []
        for name, (h, s) in found.items():
            wanted, fired, mean = self._wanted[name]
            potentials.append(float((h - wanted.to(h.dtype)).abs().mean()) / mean)
            flips.append(float((s.bool() ^ fired).float().mean()))
        right = float((logits.argmax(1) == self._labels).double().mean())
        return Drift(potentials=_mean(potentials), flips=_mean(flips), accuracy=100.0 * right)


def _watched(
    model: nn.Module, inputs: torch.Tensor
) -> tuple[torch.Tensor, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Runs a network; returns its logits, and potentials and spikes by layer of neurons."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(name: str, node: nn.Module) -> torch.utils.hooks.RemovableHandle:
        params = lif_params(node, name)

        def hook(module: nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> None:
            found[name] = (run_neurons(given[0], params, membrane_of(node))[1], got)

        return node.register_forward_hook(hook)

    with hooked(watch(name, node) for name, node in neuron_layers(model).items()):
        logits = run_once(model, inputs)
    return logits, found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
