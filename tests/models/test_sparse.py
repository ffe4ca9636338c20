"""Weights without their zeros: the format, the checkpoint that holds it, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from svitkit.errors import ConfigError
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import (
    WEIGHTS_NAME,
    Checkpoint,
    build_model,
    checkpoint_sha256,
    load_checkpoint,
    save_checkpoint,
)
from svitkit.models.quantized import QuantizedWeight, stored_bytes
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters, parameter_bytes, sparse_layers
from svitkit.models.sparse import join, sparse_bytes, split
from svitkit.models.spec import InputQuantization, ModelSpec, QuantizationSpec

FLOAT, BYTES, BITS = "blocks.0.mlp.fc1.0", "blocks.0.mlp.fc2.0", "head"
WIDTHS = {BYTES: 8, BITS: 3}
Tensors = dict[str, torch.Tensor]


def test_the_lowest_bit_of_the_first_byte_is_the_first_weight() -> None:
    weights = np.array([[5, 0, 0, -1, 0], [0, 0, 0, 0, 7]], np.int8)
    bitmap, values = split(weights)
    assert bitmap.tolist() == [0b00001001, 0b10]
    assert values.tolist() == [5, -1, 7]
    assert sparse_bytes(10, 3, 8) == 2 + 3
    np.testing.assert_array_equal(join(bitmap, values, (2, 5), "here"), weights)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (16, 4)])
def test_what_is_split_is_joined(dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    weights = (rng.integers(-9, 9, shape) * (rng.random(shape) < 0.3)).astype(dtype)
    joined = join(*split(weights), shape, "here")
    assert joined.dtype == dtype
    np.testing.assert_array_equal(joined, weights)


@pytest.fixture
def checkpoint() -> Checkpoint:
    """A network with weights of three widths of which 80 % are 0."""
    arguments = {"T": 2, "in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 3, "embed_dims": 32}
    quantization = QuantizationSpec(layers=WIDTHS, input=InputQuantization(scale=0.25, zero_point=128))
    spec = ModelSpec(
        family="spikformer",
        arguments={**arguments, "num_heads": 4, "depths": 1},
        timesteps=2,
        input_shape=(1, 16, 16),
        static_input=True,
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=("a", "b", "c"),
        quantization=quantization,
        original_parameter_bytes=1000,
    )
    model, rng, quantized = build_model(spec), np.random.default_rng(0), {}
    for name in (FLOAT, BYTES, BITS):
        weight = model.get_submodule(name).get_parameter("weight")
        top = 2 ** (WIDTHS.get(name, 4) - 1) - 1
        integers = rng.integers(1, top + 1, tuple(weight.shape)) * (rng.random(tuple(weight.shape)) < 0.2)
        scale = rng.uniform(1e-3, 1, len(weight)).astype(np.float32)
        rounded = QuantizedWeight(bits=WIDTHS.get(name, 4), integers=integers.astype(np.int8), scale=scale)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(rounded.dequantize()))
        if name in WIDTHS:
            quantized[name] = rounded
    spec = replace(spec, sparse=tuple(sparse_layers(model, quantization)))
    return Checkpoint(model=model, spec=spec, quantized=quantized)


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, checkpoint.model, checkpoint.spec, quantized=checkpoint.quantized)
    return path


def test_the_layers_that_are_smaller_so_are_sparse(checkpoint: Checkpoint) -> None:
    assert set(checkpoint.spec.sparse) == {FLOAT, BYTES, BITS}


def test_a_network_comes_back_as_it_was_saved(checkpoint: Checkpoint, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert checkpoint_sha256(loaded) == checkpoint_sha256(checkpoint)
    for name, weight in checkpoint.quantized.items():
        np.testing.assert_array_equal(loaded.quantized[name].integers, weight.integers)


def test_bitmap_and_values_are_what_is_stored(checkpoint: Checkpoint, saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved / WEIGHTS_NAME)
    for name, bits in {FLOAT: 32, **WIDTHS}.items():
        weight = checkpoint.model.get_submodule(name).get_parameter("weight")
        nonzero = int(weight.count_nonzero())
        parts = [tensors[f"{name}.weight"], tensors[f"{name}.weight_bitmap"]]
        assert sum(part.nbytes for part in parts) == sparse_bytes(weight.numel(), nonzero, bits)


def test_parameter_bytes_count_what_is_stored(checkpoint: Checkpoint) -> None:
    dense = parameter_bytes(checkpoint.model, example_input(checkpoint.spec), checkpoint.spec.quantization)
    saved = 0
    for name, bits in {FLOAT: 32, **WIDTHS}.items():
        weight = checkpoint.model.get_submodule(name).get_parameter("weight")
        saved += stored_bytes(weight.numel(), bits) - sparse_bytes(weight.numel(), int(weight.count_nonzero()), bits)
    assert checkpoint.parameter_bytes() == dense - saved


def test_zeros_of_sparse_layers_are_no_parameters(checkpoint: Checkpoint) -> None:
    zeros = sum(
        int((checkpoint.model.get_submodule(name).get_parameter("weight") == 0).sum()) for name in (FLOAT, *WIDTHS)
    )
    every = sum(layer_parameters(checkpoint.model, example_input(checkpoint.spec)).values())
    assert checkpoint.parameter_count() == every - zeros
    dense = replace(checkpoint, spec=replace(checkpoint.spec, sparse=()))
    assert dense.parameter_count() == every


def test_half_precision_halves_the_values(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / "half", checkpoint.model, checkpoint.spec, dtype="float16", quantized=checkpoint.quantized
    )
    assert safetensors.torch.load_file(tmp_path / "half" / WEIGHTS_NAME)[f"{FLOAT}.weight"].dtype == torch.float16
    loaded = load_checkpoint(tmp_path / "half").model.get_submodule(FLOAT).get_parameter("weight")
    wanted = checkpoint.model.get_submodule(FLOAT).get_parameter("weight").half().float()
    assert torch.equal(loaded, wanted)


def test_a_network_with_few_zeros_has_no_sparse_layer(checkpoint: Checkpoint) -> None:
    model = build_model(replace(checkpoint.spec, sparse=()))
    assert sparse_layers(model, checkpoint.spec.quantization) == []


def flip(tensors: Tensors, name: str, byte: int, bits: int) -> None:
    tensors[f"{name}.weight_bitmap"][byte] ^= bits


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(f"{FLOAT}.weight_bitmap"), "lacks the bitmap or the values of the sparse layer"),
        (lambda t: t.pop(f"{BITS}.weight"), "lacks the bitmap or the values of the sparse layer"),
        (lambda t: flip(t, FLOAT, 3, 0b100), "but the bitmap has"),
        (lambda t: flip(t, BYTES, 0, 1), "wanted torch.int8"),
        (lambda t: t.update({f"{FLOAT}.weight_bitmap": t[f"{FLOAT}.weight_bitmap"][1:]}), "the bitmap is uint8"),
        (lambda t: t.update({f"{FLOAT}.weight_bitmap": t[f"{FLOAT}.weight_bitmap"].char()}), "the bitmap is int8"),
        (lambda t: t.update({f"{FLOAT}.weight": t[f"{FLOAT}.weight"][1:]}), "got values of shape"),
        (lambda t: t.update({f"{FLOAT}.weight": t[f"{FLOAT}.weight"].int()}), "wanted float32 or float16"),
        (lambda t: t[f"{FLOAT}.weight"].index_fill_(0, torch.tensor([5]), 0.0), "a value is 0, though"),
        (lambda t: t[f"{FLOAT}.weight"].index_fill_(0, torch.tensor([5]), float("nan")), "not finite"),
        (lambda t: t.update({f"{BITS}.weight": t[f"{BITS}.weight"][1:]}), "wanted torch.uint8"),
    ],
)
def test_damaged_weights_are_refused(saved: Path, change: Callable[[Tensors], object], says: str) -> None:
    tensors = safetensors.torch.load_file(saved / WEIGHTS_NAME)
    change(tensors)
    safetensors.torch.save_file(tensors, saved / WEIGHTS_NAME)
    with pytest.raises(ConfigError, match=says):
        load_checkpoint(saved)


def test_bits_behind_the_last_weight_are_refused() -> None:
    with pytest.raises(ConfigError, match="bits behind its last weight, 3"):
        join(np.array([0b1001], np.uint8), np.array([1.0, 2.0], np.float32), (3,), "here")


def test_a_layer_that_does_not_exist_is_not_sparse(checkpoint: Checkpoint, tmp_path: Path) -> None:
    spec = replace(checkpoint.spec, sparse=("blocks.7",))
    with pytest.raises(ConfigError, match=r"stores without zeros layer 'blocks.7', which is nothing"):
        save_checkpoint(tmp_path / "c", checkpoint.model, spec, quantized=checkpoint.quantized)
