"""Grids of potentials, and the short scales that go with them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, frexp, log2

import numpy as np
import pytest
import torch
from torch import nn

from svitkit.compress.layer_rows import LinearLayer, linear_layers
from svitkit.compress.membranes import FACTOR_BITS, membrane_grids, with_membranes
from svitkit.compress.quantize import QuantizedNetwork, quantize_network, uniform_bits
from svitkit.lif_integer import CURRENT_FRACTION, INT32_MAX, IntegerLIF, Membrane
from svitkit.models.membranes import membrane_of
from svitkit.models.neurons import lif_params, neuron_layers
from svitkit.models.quantized import check_quantized
from svitkit.models.run import example_input, forward_logits
from svitkit.models.spec import ModelSpec
from tests.compress.networks import FAMILIES, firing_checkpoint, lif, probe

REACH = {16: 8, 8: 2, 4: 1}  # in thresholds, rounded up to a power of two
Made = tuple[ModelSpec, QuantizedNetwork, tuple[LinearLayer, ...]]


def neurons(threshold: float) -> nn.Module:
    return nn.Sequential(lif(v_threshold=threshold))


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("threshold", [0.5, 1.0, 1.5, 0.3, 2.0, 4.0])
def test_a_grid_reaches_the_threshold_with_no_bit_to_spare(bits: int, threshold: float) -> None:
    model = neurons(threshold)
    (grid,) = membrane_grids(model, bits).values()
    assert grid.bits == bits
    step = 2.0**-grid.fraction
    assert threshold <= (grid.high + 1) * step
    assert grid.low * step <= -threshold
    assert -grid.low * step == 2.0 ** ceil(log2(threshold)) * REACH[bits]
    neuron = IntegerLIF(params=lif_params(model[0]), membrane=grid, current_fraction=CURRENT_FRACTION)
    assert neuron.room(8 * threshold) <= INT32_MAX


@pytest.mark.parametrize(
    ("threshold", "bits", "fraction"),
    [
        (1.0, 16, 12),
        (1.0, 8, 6),
        (1.0, 4, 3),
        (0.5, 16, 13),
        (0.5, 8, 7),
        (0.5, 4, 4),
        (1.5, 16, 11),
        (1.5, 8, 5),
        (1.5, 4, 2),
    ],
)
def test_grids_of_some_thresholds(threshold: float, bits: int, fraction: int) -> None:
    (grid,) = membrane_grids(neurons(threshold), bits).values()
    assert grid == Membrane(bits=bits, fraction=fraction)  # type: ignore[arg-type]


def test_only_neurons_that_can_compute_in_integers_get_a_grid() -> None:
    model = nn.ModuleDict(
        {
            "plain": lif(),
            "third": lif(tau=3.0),
            "lifted": lif(v_reset=0.1),
            "soft": lif(v_reset=None, tau=4.0),
            "dead": lif(v_threshold=0.0),
        }
    )
    assert list(membrane_grids(model, 8)) == ["plain", "soft"]


@pytest.fixture(scope="module", params=FAMILIES)
def quantized(request: pytest.FixtureRequest) -> Made:
    checkpoint = firing_checkpoint(request.param)
    example = example_input(checkpoint.spec)
    with torch.no_grad():
        norm = next(module for module in checkpoint.model.modules() if isinstance(module, nn.BatchNorm2d))
        norm.weight[0] = 0
        norm.weight[1].neg_()
    bits = uniform_bits(checkpoint.model, example, 4)
    network = quantize_network(checkpoint.model, bits, checkpoint.spec.normalization, static=True)
    return checkpoint.spec, network, linear_layers(checkpoint.model, example)


def factors(network: QuantizedNetwork, layer: LinearLayer) -> np.ndarray:
    """What every channel of a layer is multiplied by behind its integers: scale and batch norm, without sign."""
    scale = network.weights[layer.name].scale.astype(np.float64)
    if layer.norm is None:
        return scale
    norm = network.model.get_submodule(layer.norm)
    deviation = (norm.get_buffer("running_var").double() + norm.eps).sqrt()  # type: ignore[operator]
    return scale * abs(norm.get_parameter("weight").detach().double() / deviation).numpy()


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_scales_change_a_little_and_leave_short_factors(quantized: Made, bits: int) -> None:
    _, network, layers = quantized
    small = with_membranes(network, layers, membrane_grids(network.model, bits))
    longest = 0
    for layer in layers:
        before, after = network.weights[layer.name], small.weights[layer.name]
        np.testing.assert_array_equal(after.integers, before.integers)
        assert after.bits == before.bits
        assert (abs(after.scale / before.scale - 1) < 2.0**-FACTOR_BITS).all()
        found = factors(small, layer)
        mantissas = np.array([frexp(factor)[0] for factor in found]) * 2**FACTOR_BITS
        np.testing.assert_allclose(mantissas, np.rint(mantissas), rtol=2**-23)
        np.testing.assert_array_equal(after.scale[found == 0], before.scale[found == 0])
        before_mantissas = np.array([frexp(factor)[0] for factor in factors(network, layer)]) * 2**FACTOR_BITS
        longest += int((abs(before_mantissas - np.rint(before_mantissas)) > 1e-3).sum())
    assert longest  # there was something to do
    check_quantized(small.model, small.spec, small.weights)


def test_the_copy_keeps_its_potentials_on_grids_and_the_network_is_not_changed(quantized: Made) -> None:
    spec, network, layers = quantized
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    scales = {name: weight.scale.copy() for name, weight in network.weights.items()}
    with torch.no_grad():
        logits = forward_logits(network.model, probe(spec))
    grids = membrane_grids(network.model, 4)
    small = with_membranes(network, layers, grids)
    assert small.spec == replace(network.spec, membranes=grids)
    assert {name: membrane_of(node) for name, node in neuron_layers(small.model).items()} == grids
    assert network.spec.membranes == {}
    assert not any(membrane_of(node) for node in neuron_layers(network.model).values())
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    for name, scale in scales.items():
        np.testing.assert_array_equal(network.weights[name].scale, scale)
    with torch.no_grad():
        assert torch.equal(forward_logits(network.model, probe(spec)), logits)
        assert not torch.equal(forward_logits(small.model, probe(spec)), logits)


def test_without_grids_there_is_nothing_to_do(quantized: Made) -> None:
    _, network, layers = quantized
    assert with_membranes(network, layers, {}) is network


def test_shortening_twice_changes_nothing_more(quantized: Made) -> None:
    _, network, layers = quantized
    once = with_membranes(network, layers, membrane_grids(network.model, 8))
    twice = with_membranes(once, layers, membrane_grids(network.model, 16))
    assert twice.spec.membranes == membrane_grids(network.model, 16)
    for name, weight in once.weights.items():
        np.testing.assert_allclose(twice.weights[name].scale, weight.scale, rtol=2**-22)
