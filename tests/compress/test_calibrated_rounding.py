"""Rounding with calibration images: what becomes of whole networks."""

from __future__ import annotations

import pytest
import torch

from svitkit.compress.evaluate import accuracy, load_batches
from svitkit.compress.quantize import CalibratedRounding, QuantizedNetwork, quantize_network, uniform_bits
from svitkit.data import load_data
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.quantized import check_quantized, qmax
from svitkit.models.resolve import resolve_model
from svitkit.models.run import example_input, forward_logits
from tests.compress.networks import FAMILIES, firing_checkpoint


def images(checkpoint: Checkpoint, count: int = 8) -> torch.Tensor:
    example = example_input(checkpoint.spec)
    return torch.randn(example.shape[0], count, *example.shape[2:], generator=torch.Generator().manual_seed(3))


def quantized(checkpoint: Checkpoint, bits: int) -> QuantizedNetwork:
    spec = checkpoint.spec
    rounding = CalibratedRounding(checkpoint.model, images(checkpoint), spec.normalization, static=spec.static_input)
    return rounding.quantize(uniform_bits(checkpoint.model, example_input(spec), bits))


def test_two_bits_are_enough_for_digits_where_the_nearest_integers_fail() -> None:
    checkpoint, digits = resolve_model("digits-spikformer"), load_data("digits")
    spec, timesteps = checkpoint.spec, checkpoint.spec.timesteps
    calibration = load_batches(digits, "train", timesteps=timesteps, limit=192, batch_size=192)[0][0]
    validation = load_batches(digits, "validation", timesteps=timesteps, limit=108)
    bits = uniform_bits(checkpoint.model, calibration[:, :1], 2)
    rounding = CalibratedRounding(checkpoint.model, calibration, spec.normalization, static=spec.static_input)
    nearest = quantize_network(checkpoint.model, bits, spec.normalization, static=spec.static_input)
    assert accuracy(nearest.model, validation) < 60
    assert accuracy(rounding.quantize(bits).model, validation) > 97


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [2, 6])
def test_every_layer_of_every_family_is_rounded(family: str, bits: int) -> None:
    checkpoint = firing_checkpoint(family)
    small = quantized(checkpoint, bits)
    check_quantized(small.model, small.spec, small.weights)
    assert list(small.weights) == list(small.spec.layers)
    inner = list(small.weights.values())[1:-1]
    assert all(abs(weight.integers).max() <= qmax(bits) for weight in inner)
    with torch.no_grad():
        assert torch.isfinite(forward_logits(small.model, images(checkpoint))).all()


def test_outputs_have_the_means_of_the_original() -> None:
    checkpoint = firing_checkpoint("spikformer")
    small, seen = quantized(checkpoint, 2), {}

    def watch(model: torch.nn.Module, key: str) -> None:
        norm = model.get_submodule("blocks.0.mlp.fc1.1")
        norm.register_forward_hook(lambda _m, _x, y: seen.__setitem__(key, y.transpose(-1, -2).flatten(0, -2).mean(0)))
        with torch.no_grad():
            forward_logits(model, images(checkpoint))

    watch(checkpoint.model, "before")
    watch(small.model, "after")
    spread = seen["before"].std()
    assert (seen["after"] - seen["before"]).abs().max() < 0.05 * spread


def test_the_same_images_give_the_same_integers_and_the_network_is_not_changed() -> None:
    checkpoint = firing_checkpoint("qkformer")
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    once, again = quantized(checkpoint, 3), quantized(checkpoint, 3)
    assert all((once.weights[name].integers == again.weights[name].integers).all() for name in once.weights)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
