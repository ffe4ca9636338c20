"""Training of integers: straight through the rounding, with learned scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from svitkit.compress.membranes import membrane_grids, with_membranes
from svitkit.compress.pipeline import compress_model
from svitkit.compress.qat import LearnedScale, train_integers
from svitkit.compress.quantize import QuantizedNetwork, quantize_network, quantize_weight, uniform_bits
from svitkit.data import Dataset
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.membranes import membrane_of
from svitkit.models.neurons import neuron_layers
from svitkit.models.quantized import check_quantized, qmax
from svitkit.models.run import example_input


@pytest.fixture
def rounded(checkpoint: Checkpoint) -> QuantizedNetwork:
    bits = uniform_bits(checkpoint.model, example_input(checkpoint.spec), 3)
    return quantize_network(checkpoint.model, bits, checkpoint.spec.normalization, static=True)


def test_a_layer_begins_with_its_integers() -> None:
    rounded = quantize_weight(torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)).numpy(), 3)
    out = LearnedScale(rounded)(torch.from_numpy(rounded.dequantize()))
    np.testing.assert_allclose(out.detach().numpy(), rounded.dequantize(), rtol=1e-6)


def test_gradients_pass_the_rounding_inside_the_clip_and_reach_the_scale() -> None:
    weight = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    layer = LearnedScale(quantize_weight(0.6 * weight.numpy(), 3))
    latent = weight.clone().requires_grad_()
    out = layer(latent)
    out.sum().backward()
    assert latent.grad is not None
    assert layer.change.grad is not None
    inside = (weight.abs() < qmax(3) * layer.scale.detach().reshape(-1, 1, 1)).numpy()
    assert 0 < inside.sum() < inside.size
    np.testing.assert_allclose(latent.grad.numpy(), inside.astype(np.float32))
    # of s q by ln s: s q - w inside the clip, s q where the clip holds q
    wanted = np.where(inside, (out - weight).detach().numpy(), out.detach().numpy())
    np.testing.assert_allclose(layer.change.grad.numpy(), wanted.reshape(4, -1).sum(axis=1), atol=1e-5)


def test_weights_beyond_the_largest_integer_are_clipped() -> None:
    rounded = quantize_weight(np.array([[1.0, -1.0, 0.5]], np.float32), 2)
    out = LearnedScale(rounded)(torch.tensor([[7.0, -7.0, 0.1]]))
    np.testing.assert_allclose(out.detach().numpy(), [[1.0, -1.0, 0.0]])


def test_training_moves_integers_and_scales_and_ends_with_integers_times_scales(rounded: QuantizedNetwork) -> None:
    grids = membrane_grids(rounded.model, 8)
    network = with_membranes(rounded, [], grids)
    before = {name: weight.integers.copy() for name, weight in network.weights.items()}

    def train(model: nn.Module) -> None:
        assert all(membrane_of(node) is None for node in neuron_layers(model).values())
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            loss = sum(
                (parameter * torch.randn(parameter.shape, generator=generator)).sum()
                for name, parameter in model.named_parameters()
                if "parametrizations" in name
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[union-attr, no-untyped-call]
            optimizer.step()

    trained = train_integers(network, train)
    check_quantized(trained.model, trained.spec, trained.weights)
    assert {name: weight.bits for name, weight in trained.weights.items()} == trained.spec.layers
    assert any((trained.weights[name].integers != integers).any() for name, integers in before.items())
    assert not any("parametrizations" in name for name, _ in trained.model.named_parameters())
    assert trained.spec.membranes == {}
    for name, integers in before.items():
        np.testing.assert_array_equal(network.weights[name].integers, integers)


def test_a_search_may_be_followed_by_training(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    settings = {"calibration_images": 24, "gate_images": 8, "audit": 0, "widths": (8, 2), "membranes": (8,)}
    result = compress_model(
        checkpoint,
        digits,
        tmp_path / "t",
        method="aq4svit-greedy",
        max_drop=100.0,
        limit=24,
        finetune_epochs=1,
        settings=settings,
    )
    quantization = load_checkpoint(tmp_path / "t").spec.quantization
    assert result.report.finetune_epochs == 1
    assert quantization is not None
    assert {membrane.bits for membrane in quantization.membranes.values()} == {8}
