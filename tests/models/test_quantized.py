"""Checkpoints with integer weights, and the bytes of the image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from svitkit.errors import ConfigError
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import (
    SPEC_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    build_model,
    checkpoint_sha256,
    load_checkpoint,
    save_checkpoint,
)
from svitkit.models.quantized import (
    QuantizedWeight,
    QuantizeInput,
    input_quantization,
    pack,
    quantize_input,
    stored_bytes,
    unpack,
)
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import InputQuantization, ModelSpec, QuantizationSpec

LAYERS = {"patch_embed.stages.0.conv_bn.block.0": 8, "blocks.0.mlp.fc1.0": 4, "head": 3}


def random_weights(model: torch.nn.Module) -> dict[str, QuantizedWeight]:
    """Gives layers integers and puts their products into the network."""
    rng, made = np.random.default_rng(0), {}
    for name, bits in LAYERS.items():
        weight = model.get_submodule(name).get_parameter("weight")
        top = 2 ** (bits - 1) - 1
        integers = rng.integers(-top, top + 1, tuple(weight.shape)).astype(np.int8)
        scale = rng.uniform(1e-3, 1, len(weight)).astype(np.float32)
        made[name] = QuantizedWeight(bits=bits, integers=integers, scale=scale)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(made[name].dequantize()))
    return made


@pytest.fixture
def checkpoint() -> Checkpoint:
    arguments = {"T": 2, "in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 3, "embed_dims": 32}
    spec = ModelSpec(
        family="spikformer",
        arguments={**arguments, "num_heads": 4},
        timesteps=2,
        input_shape=(1, 16, 16),
        static_input=True,
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        class_names=("a", "b", "c"),
        quantization=QuantizationSpec(layers=LAYERS, input=InputQuantization(scale=0.03125, zero_point=128)),
        original_parameter_bytes=123,
    )
    model = build_model(spec)
    return Checkpoint(model=model, spec=spec, quantized=random_weights(model))


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    save_checkpoint(path, checkpoint.model, checkpoint.spec, quantized=checkpoint.quantized)
    return path


def test_saving_what_was_loaded_gives_the_same_bytes(checkpoint: Checkpoint, saved: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(saved)
    again = tmp_path / "again"
    save_checkpoint(again, loaded.model, loaded.spec, quantized=loaded.quantized)
    for name in (WEIGHTS_NAME, SPEC_NAME):
        assert (saved / name).read_bytes() == (again / name).read_bytes()
    assert checkpoint_sha256(checkpoint) == checkpoint_sha256(loaded) == checkpoint_sha256(again)
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
    for name, weight in checkpoint.quantized.items():
        np.testing.assert_array_equal(loaded.quantized[name].integers, weight.integers)
        np.testing.assert_array_equal(loaded.quantized[name].scale, weight.scale)


def test_integers_are_stored_as_bytes_and_short_ones_two_to_a_byte(checkpoint: Checkpoint, saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved / WEIGHTS_NAME)
    for name, bits in LAYERS.items():
        shape = checkpoint.quantized[name].integers.shape
        stored = tensors[f"{name}.weight"]
        count = np.prod(shape)
        assert (stored.dtype, stored.numel()) == (
            (torch.int8, count) if bits == 8 else (torch.uint8, -(-count * bits // 8))
        )
        assert tensors[f"{name}.weight_scale"].shape == (shape[0],)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 2, 3, 3), (0, 4)])
@pytest.mark.parametrize("bits", range(2, 9))
def test_packing_is_undone(shape: tuple[int, ...], bits: int) -> None:
    top = 2 ** (bits - 1)
    integers = np.random.default_rng(0).integers(-top, top, shape).astype(np.int8)
    packed = pack(integers, bits)
    assert packed.size == -(-integers.size * bits // 8) == stored_bytes(integers.size, bits)
    np.testing.assert_array_equal(unpack(packed, shape, bits), integers)


def test_the_lowest_bits_of_a_byte_are_the_first_integer() -> None:
    assert pack(np.array([1, -1, 7], np.int8), 4).tolist() == [0xF1, 0x07]
    assert pack(np.array([1, -1, 0, -2, 1], np.int8), 2).tolist() == [0b10001101, 0b01]
    assert pack(np.array([1, -1, -4], np.int8), 3).tolist() == [0b00111001, 0b1]


def test_parameter_bytes_count_integers_at_their_width(checkpoint: Checkpoint) -> None:
    spec = checkpoint.spec
    floats = parameter_bytes(checkpoint.model, torch.zeros(2, 1, 1, 16, 16))
    removed = 4 * (4 * 9 + 32 * 128 + 32 * 3)
    stored = 4 * 9 + 32 * 128 * 4 // 8 + 32 * 3 * 3 // 8
    assert checkpoint.parameter_bytes() == floats - removed + stored + 4 * (4 + 128 + 3)
    assert checkpoint.parameter_count() == floats // 4
    assert parameter_bytes(checkpoint.model, torch.zeros(2, 1, 1, 16, 16), spec.quantization) < floats


def edited(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = safetensors.torch.load_file(path / WEIGHTS_NAME)
    change(tensors)
    safetensors.torch.save_file(tensors, path / WEIGHTS_NAME)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("head.weight_scale"), "lacks the integers or the scale of the quantized layer 'head'"),
        (lambda t: t.pop("head.weight"), "lacks the integers"),
        (lambda t: t.update({"head.weight": t["head.weight"].float()}), "wanted torch.uint8"),
        (lambda t: t.update({"head.weight": t["head.weight"][1:].clone()}), r"wanted torch.uint8 \(36,\) for 3 bits"),
        (lambda t: t["head.weight"].fill_(0x04), "beyond 3, the largest of 3 bits"),
        (lambda t: t["blocks.0.mlp.fc1.0.weight"].fill_(0x88), "beyond 7"),
        (lambda t: t["head.weight_scale"].fill_(0), "not positive"),
        (lambda t: t["head.weight_scale"].fill_(float("nan")), "not positive"),
        (lambda t: t.update({"head.weight_scale": torch.ones(4)}), r"wanted float32 \(3,\)"),
        (lambda t: t.update({"other.weight_scale": torch.ones(4)}), "unknown"),
    ],
)
def test_damaged_integers_are_refused(saved: Path, change: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_checkpoint(edited(saved, change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q: q["layers"].update(head=9), "less than or equal to 8"),
        (lambda q: q["layers"].update(head=1), "greater than or equal to 2"),
        (lambda q: q["layers"].update(head=8), "for 8 bits"),
        (lambda q: q["layers"].update(nothing=8), "which is nothing"),
        (lambda q: q["layers"].update({"blocks.0.attn.attn_lif": 8}), "which is a LIFNode"),
        (lambda q: q["layers"].pop("head"), "does not fit the network"),
        (lambda q: q["layers"].clear(), "at least 1"),
        (lambda q: q["input"].update(scale=0.3), "no power of two"),
        (lambda q: q["input"].update(zero_point=256), "less than or equal to 255"),
        (lambda q: q.update(zero=1), "Unexpected keyword"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(saved: Path, change: Callable[[Any], Any], says: str) -> None:
    spec = json.loads((saved / SPEC_NAME).read_text())
    change(spec["quantization"])
    (saved / SPEC_NAME).write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match=says):
        load_checkpoint(saved)


def test_weights_that_moved_off_their_integers_are_not_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with torch.no_grad():
        checkpoint.model.get_submodule("head").get_parameter("weight").mul_(1.01)
    with pytest.raises(ConfigError, match="'head' is not its integers times its scale"):
        save_checkpoint(tmp_path / "x", checkpoint.model, checkpoint.spec, quantized=checkpoint.quantized)


def test_integers_that_the_description_does_not_name_are_not_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="but holds integers of"):
        save_checkpoint(tmp_path / "x", checkpoint.model, checkpoint.spec)
    spec = replace(checkpoint.spec, quantization=None)
    with pytest.raises(ConfigError, match="but holds integers of"):
        save_checkpoint(tmp_path / "x", checkpoint.model, spec, quantized=checkpoint.quantized)


@pytest.mark.parametrize(
    ("mean", "std", "static", "scale", "zero"),
    [
        ((0.3051,), (0.3759,), True, 1 / 64, 52),
        ((0.5,), (0.25,), True, 1 / 32, 64),
        ((0.0,), (1.0,), False, 1.0, 0),
        ((0.0,), (1.0,), True, 1 / 128, 0),
        ((0.49, 0.48, 0.45), (0.2, 0.25, 0.3), True, 1 / 32, 78),
    ],
)
def test_the_image_keeps_its_range_and_zero(
    mean: tuple[float, ...], std: tuple[float, ...], static: bool, scale: float, zero: int
) -> None:
    found = input_quantization(Normalization(mean=mean, std=std), static=static)
    assert (found.scale, found.zero_point) == (scale, zero)
    for value in (0.0, 1.0 if static else 255.0):
        for m, s in zip(mean, std, strict=True):
            level = round((value - m) / s / found.scale) + found.zero_point
            assert 0 <= level <= 255


def test_a_network_rounds_its_input_to_bytes_once() -> None:
    model = torch.nn.Identity()
    spec = QuantizationSpec(layers={"x": 8}, input=InputQuantization(scale=0.5, zero_point=4))
    quantize_input(model, spec)
    quantize_input(model, spec)
    assert len(model._forward_pre_hooks) == 1
    x = torch.tensor([-99.0, -2.2, -0.25, 0.25, 0.75, 1.1, 1e9])
    assert model(x).tolist() == [-2.0, -2.0, 0.0, 0.0, 1.0, 1.0, 125.5]
    quantize_input(model, None)
    assert not any(isinstance(hook, QuantizeInput) for hook in model._forward_pre_hooks.values())
