"""Drift of membrane potentials against the neurons of spikingjelly."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from svitkit.compress.drift import DriftGauge
from svitkit.lif import LIFParams, lif
from svitkit.models.membranes import run_neurons
from svitkit.models.run import example_input
from tests.compress.networks import firing_checkpoint

PARAMS = [
    LIFParams(),
    LIFParams(tau=3.0, v_threshold=0.7, v_reset=None, decay_input=False),
    LIFParams(tau=1.5, v_reset=-0.2),
    LIFParams(v_reset=0.1, decay_input=False),
]


@pytest.mark.parametrize("params", PARAMS)
def test_potentials_are_those_that_fire(params: LIFParams) -> None:
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 2
    fired, _ = lif(x.numpy(), params)
    np.testing.assert_array_equal((run_neurons(x, params)[1] >= params.v_threshold).numpy(), fired.astype(bool))


def test_a_network_does_not_drift_from_itself_and_more_the_more_it_differs() -> None:
    checkpoint = firing_checkpoint("spikformer")
    example = example_input(checkpoint.spec)
    x = torch.randn(example.shape[0], 4, *example.shape[2:], generator=torch.Generator().manual_seed(1))
    gauge = DriftGauge(checkpoint.model, (x, torch.zeros(4, dtype=torch.int64)))
    found = []
    for scale in (0.0, 0.05, 0.5):
        other = copy.deepcopy(checkpoint.model)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, weight in other.named_parameters():
                if weight.ndim > 1 and "head" not in name:
                    weight.add_(scale * weight.std() * torch.randn(weight.shape, generator=generator))
        found.append(gauge.compare(other))
    assert found[0].potentials < 1e-3
    assert found[0].flips == 0
    assert found[0].potentials < found[1].potentials < found[2].potentials
    assert found[1].flips < found[2].flips
