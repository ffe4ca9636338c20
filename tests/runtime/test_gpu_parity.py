"""Networks built for GPUs, on PoCL: the same classes and spikes as ONNX Runtime and torch; integers bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svitkit.boards.board import load_board
from svitkit.manifest import Manifest, Mode, PrecisionTrial
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.runtime import gpu_build
from svitkit.runtime.build import build_bundle
from svitkit.runtime.program import Precision
from tests.export.conftest import FAMILIES as TINY
from tests.export.conftest import build, describe, liven
from tests.export.quantized import quantize, quantize_neurons
from tests.runtime.family_networks import Network
from tests.runtime.recordings import (
    Array,
    assert_agree,
    assert_lively,
    assert_same_bits,
    by_onnx_runtime,
    by_session,
)
from tests.runtime.test_integer_parity import case
from tests.runtime.test_sparse import pruned
from tests.runtime.test_token_parity import inputs_of, prepared

pytestmark = pytest.mark.usefixtures("pocl")
FEW, GOLDEN = 8, 4
BuildWith = Callable[[Path, Array, Precision], tuple[Path, Manifest]]


@pytest.fixture
def build_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildWith:
    """Builds for PoCL with weights of a precision; returns the file that computes with the same weights."""

    def make(onnx: Path, golden: Array, precision: Precision) -> tuple[Path, Manifest]:
        def tried(_: Path, rounded: Path, inputs: Array) -> PrecisionTrial:
            shutil.copy(rounded, tmp_path / "rounded.onnx")
            return PrecisionTrial(inputs=len(inputs), class_changes=int(precision == "fp32"), spike_agreement=1.0)

        monkeypatch.setattr(gpu_build, "try_rounded", tried)
        manifest = build_bundle(onnx, load_board("pocl"), tmp_path / "bundle", golden=golden, device="gpu")
        assert manifest.gpu is not None
        assert manifest.gpu.precision == precision
        return (tmp_path / "rounded.onnx" if precision == "fp16" else onnx), manifest

    return make


def build_as_chosen(onnx: Path, golden: Array, out: Path) -> Manifest:
    """Builds for PoCL; the precision is what the build chooses."""
    return build_bundle(onnx, load_board("pocl"), out, golden=golden, device="gpu")


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        ("spikformer", "fp16"),
        ("spike-driven-transformer", "fp16"),
        ("qkformer", "fp16"),
        ("spikformer", "fp32"),
        pytest.param("spike-driven-transformer", "fp32", marks=pytest.mark.slow),
        pytest.param("qkformer", "fp32", marks=pytest.mark.slow),
    ],
)
def test_all_classes_and_nearly_all_spikes_of_200_images_are_those_of_onnx_runtime(
    family: str, precision: Precision, family_network: Callable[[str], Network], build_with: BuildWith, tmp_path: Path
) -> None:
    network = family_network(family)
    images = network.images[:, None]
    assert len(images) == 200
    reference, _ = build_with(network.onnx, images[:GOLDEN], precision)
    got = by_session(tmp_path / "bundle", images)
    assert_agree(by_onnx_runtime(reference, images), got)
    if precision == "fp32":
        assert_agree(network.torch, got)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("spikformer", marks=pytest.mark.slow),
        "spike-driven-transformer",
        pytest.param("qkformer", marks=pytest.mark.slow),
    ],
)
def test_steps_agree_with_onnx_runtime(
    family: str, family_network: Callable[[str], Network], build_with: BuildWith, tmp_path: Path
) -> None:
    network = family_network(family)
    onnx, images = network.export(tmp_path / "step.onnx", "step"), network.images[:20, None]
    reference, _ = build_with(onnx, images[:GOLDEN], "fp16")
    got = by_session(tmp_path / "bundle", images)
    wanted = by_onnx_runtime(reference, images)
    assert (got.logits.argmax(1) == wanted.logits.argmax(1)).all()
    for name, spikes in wanted.spikes.items():
        assert (got.spikes[name] == spikes).mean() >= 0.999, name


@pytest.mark.parametrize(
    ("family", "bits", "static", "mode"),
    [
        pytest.param("spikformer", 4, True, "sequence", marks=pytest.mark.slow),
        ("spike-driven-transformer", 8, True, "sequence"),
        ("qkformer", 3, False, "sequence"),
        ("spikformer", 8, False, "step"),
        pytest.param("spike-driven-transformer", 2, True, "step", marks=pytest.mark.slow),
        pytest.param("qkformer", 8, True, "step", marks=pytest.mark.slow),
    ],
)
def test_integer_weights_give_the_same_bits_as_onnx_runtime(
    tmp_path: Path, family: str, bits: int, static: bool, mode: Mode
) -> None:
    network = case(quantize(build(family, static), bits), tmp_path / "model.onnx", count=FEW, mode=mode)
    assert_lively(network.wanted)
    manifest = build_as_chosen(network.onnx, network.inputs[:2], tmp_path / "bundle")
    assert manifest.gpu is not None
    assert (manifest.gpu.prepared > 0) == (bits < 8)
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


@pytest.mark.parametrize(
    ("family", "mode"), [("spikformer", "sequence"), pytest.param("qkformer", "step", marks=pytest.mark.slow)]
)
def test_integer_neurons_give_the_same_bits_as_onnx_runtime(tmp_path: Path, family: str, mode: Mode) -> None:
    network = case(quantize_neurons(build(family), 4, 8), tmp_path / "model.onnx", count=FEW, mode=mode)
    assert_lively(network.wanted)
    build_as_chosen(network.onnx, network.inputs[:2], tmp_path / "bundle")
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


@pytest.mark.parametrize(
    ("family", "criterion", "rest", "bits"),
    [
        ("spikformer", "difference", "skip", "int8"),
        pytest.param("spike-driven-transformer", "activity", "drop", "exact", marks=pytest.mark.slow),
        pytest.param("qkformer", "learned", "drop", "int4", marks=pytest.mark.slow),
    ],
)
def test_networks_of_fewer_tokens_give_the_same_bits_as_onnx_runtime(
    tmp_path: Path, family: str, criterion: str, rest: str, bits: str
) -> None:
    onnx = tmp_path / "model.onnx"
    x = inputs_of(prepared(family, criterion, rest, bits), onnx, count=FEW)  # type: ignore[arg-type]
    wanted = by_onnx_runtime(onnx, x)
    assert_lively(wanted)
    build_as_chosen(onnx, x[:2], tmp_path / "bundle")
    assert_same_bits(wanted, by_session(tmp_path / "bundle", x))


@pytest.mark.parametrize("bits", [pytest.param(32, marks=pytest.mark.slow), 4])
def test_weights_without_zeros_give_the_same_as_whole_ones(tmp_path: Path, bits: int) -> None:
    network = case(pruned(bits), tmp_path / "model.onnx", count=FEW)
    for name, way in (("sparse", True), ("dense", False)):
        manifest = build_bundle(
            network.onnx,
            load_board("pocl"),
            tmp_path / name,
            golden=network.inputs[:2],
            stores_sparse=way,
            device="gpu",
        )
        assert bool(manifest.sparse) == way
    assert_same_bits(by_session(tmp_path / "dense", network.inputs), by_session(tmp_path / "sparse", network.inputs))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("spikformer", {"embed_dims": 136, "num_heads": 8}),
        pytest.param("spike-driven-transformer", {"embed_dims": 136, "num_heads": 8}, marks=pytest.mark.slow),
        pytest.param("qkformer", {"embed_dims": 136, "num_heads": (2, 4, 8)}, marks=pytest.mark.slow),
    ],
)
def test_heads_of_17_channels_and_moving_frames_give_the_same_bits_as_onnx_runtime(
    tmp_path: Path, family: str, changes: dict[str, object]
) -> None:
    arguments = {**TINY[family], **changes}
    shape = (arguments["in_channels"], arguments["img_size_h"], arguments["img_size_w"])
    model = build_family(family, arguments)
    liven(model, torch.randn(4, 16, *shape, generator=torch.Generator().manual_seed(1)))
    checkpoint: Checkpoint = describe(model, family=family, static=False, shape=shape)
    checkpoint = replace(checkpoint, spec=replace(checkpoint.spec, arguments=arguments))
    network = case(quantize(checkpoint, 8), tmp_path / "model.onnx", count=FEW)
    assert all(spikes.any() for spikes in network.wanted.spikes.values())
    assert (network.wanted.logits != network.wanted.logits[0]).any()
    build_as_chosen(network.onnx, network.inputs[:2], tmp_path / "bundle")
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))
