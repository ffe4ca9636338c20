"""Rounding that makes good its errors: exact on small cases, and better than the nearest where inputs correlate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from svitkit.compress.quantize import quantize_weight
from svitkit.compress.rounding import round_weight
from svitkit.models.quantized import QuantizedWeight, qmax


def moments(features: int, *, shared: float, seed: int = 0) -> torch.Tensor:
    """Second moments of inputs that share a part of their variance."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(500, features, generator=generator, dtype=torch.float64)
    inputs += shared * torch.randn(500, 1, generator=generator, dtype=torch.float64)
    return inputs.T @ inputs / 500


def error(weight: torch.Tensor, rounded: QuantizedWeight, second: torch.Tensor) -> float:
    apart = torch.from_numpy(rounded.dequantize()).double().flatten(1) - weight.double().flatten(1)
    return float(((apart @ second) * apart).sum())


def random_weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_that_are_zero_stay_zero_however_much_their_inputs_correlate(bits: int) -> None:
    weight = random_weight(16, 40) * (torch.rand(16, 40, generator=torch.Generator().manual_seed(2)) < 0.3)
    rounded = round_weight(weight, moments(40, shared=3.0), bits)
    assert not rounded.integers[(weight == 0).numpy()].any()
    assert rounded.integers.any()


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_output_errs_less_than_with_rounding_to_the_nearest(bits: int, shared: float) -> None:
    weight, second = random_weight(16, 40), moments(40, shared=shared)
    nearest = quantize_weight(weight.numpy(), bits)
    assert error(weight, round_weight(weight, second, bits), second) < error(weight, nearest, second)


def test_two_bits_come_near_to_the_best_of_all_integers() -> None:
    weight, second = random_weight(6, 5), moments(5, shared=1.0)
    found = round_weight(weight, second, 2)
    choices = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=5)), dtype=torch.float64)
    apart = choices[None] * torch.from_numpy(found.scale).double()[:, None, None] - weight.double()[:, None]
    best = ((apart @ second) * apart).sum(2).amin(1).sum()
    assert error(weight, found, second) < 1.5 * float(best)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_integers_are_in_range_and_scales_positive(bits: int) -> None:
    weight = random_weight(7, 3, 2, 2)
    found = round_weight(weight, moments(12, shared=0.5), bits)
    assert found.bits == bits
    assert found.integers.shape == weight.shape
    assert found.integers.dtype == np.int8
    assert np.abs(found.integers).max() <= qmax(bits)
    assert (found.scale > 0).all()


def test_channels_of_zeros_and_inputs_that_never_come_are_no_trouble() -> None:
    weight, second = random_weight(4, 6), torch.zeros(6, 6, dtype=torch.float64)
    weight[2] = 0
    found = round_weight(weight, second, 4)
    assert not found.integers[2].any()
    assert found.scale[2] == 1
    assert np.isfinite(found.dequantize()).all()


def test_more_inputs_than_a_block_are_rounded_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, second = random_weight(5, 150), moments(150, shared=1.0)
    blocks = round_weight(weight, second, 3)
    monkeypatch.setattr("svitkit.compress.rounding.BLOCK", 1000)
    whole = round_weight(weight, second, 3)
    assert np.mean(blocks.integers != whole.integers) < 0.01
