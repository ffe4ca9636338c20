"""One network, four computations: torch, ONNX Runtime, the bundle on this machine, the bundle on an emulated board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from svitkit.boards.board import load_board
from svitkit.data import load_data
from svitkit.data.dataset import normalize
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.models.liven import liven
from svitkit.models.run import forward_spikes
from svitkit.models.spec import ModelSpec
from svitkit.runtime.build import build_bundle
from tests.runtime.recordings import Recording, assert_lively, by_board, by_onnx_runtime, by_session, emulated

TIMESTEPS, IMAGES, GOLDEN = 4, 200, 4
SPIKE_AGREEMENT = 0.999
SMALL = {"T": TIMESTEPS, "in_channels": 1, "num_classes": 10, "img_size_h": 16, "img_size_w": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "spikformer": {**SMALL, "patch_size": 4, "embed_dims": 48, "num_heads": 4, "depths": 1},
    "spike-driven-transformer": {**SMALL, "embed_dims": 48, "num_heads": 4, "depths": 1, "pooling_stat": "0011"},
    "qkformer": {
        **SMALL,
        "img_size_h": 32,
        "img_size_w": 32,
        "embed_dims": 64,
        "num_heads": (2, 4, 4),
        "depths": (1, 1, 1),
    },
}
Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """An exported network with what torch says about its inputs."""

    onnx: Path
    images: Array
    frames: Array
    torch: Recording


def digits(size: int) -> Array:
    """(N, 1, size, size) float32, normalized test images of the digits."""
    dataset = load_data("digits")
    images = normalize(dataset.test.x[:IMAGES], dataset)
    return images.repeat(size // 16, axis=2).repeat(size // 16, axis=3).astype(np.float32)


@pytest.fixture(scope="module", params=list(FAMILIES))
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Network:
    torch.manual_seed(0)
    images = digits(32 if request.param == "qkformer" else 16)
    frames = np.broadcast_to(images, (TIMESTEPS, *images.shape))
    model = build_family(request.param, FAMILIES[request.param])
    liven(model, torch.from_numpy(frames[:, :64].copy()))
    logits, _ = forward_spikes(model, torch.from_numpy(frames.copy()))
    model.head.bias.data -= logits.mean(0)
    spec = ModelSpec(
        family=request.param,
        arguments=FAMILIES[request.param],
        timesteps=TIMESTEPS,
        input_shape=images.shape[1:],
        static_input=True,
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=tuple("0123456789"),
        original_parameter_bytes=0,
    )
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export_onnx(Checkpoint(model=model, spec=spec), path)
    logits, spikes = forward_spikes(model, torch.from_numpy(frames.copy()))
    by_image = {name: s.transpose(0, 1).flatten(1).numpy() for name, s in spikes.items()}
    return Network(path, images, frames, Recording(logits.numpy(), by_image))


def assert_agree(wanted: Recording, got: Recording) -> None:
    assert (got.logits.argmax(1) == wanted.logits.argmax(1)).all()
    assert set(got.spikes) == set(wanted.spikes)
    for name, spikes in wanted.spikes.items():
        agreement = (got.spikes[name].reshape(spikes.shape) == spikes).mean()
        assert agreement >= SPIKE_AGREEMENT, f"{name}: {agreement:.4%}"


def test_every_layer_fires_and_classes_differ(network: Network) -> None:
    assert_lively(network.torch)
    assert len(set(network.torch.logits.argmax(1))) > 1


def test_onnx_runtime_agrees_with_torch(network: Network) -> None:
    assert_agree(network.torch, by_onnx_runtime(network.onnx, network.images[:, None]))


def test_the_bundle_on_this_machine_agrees_with_torch(network: Network, tmp_path: Path) -> None:
    build_bundle(network.onnx, load_board("host"), tmp_path / "bundle", golden=network.images[:GOLDEN, None])
    assert_agree(network.torch, by_session(tmp_path / "bundle", network.images[:, None]))


def test_the_bundle_on_an_emulated_cortex_a72_agrees_with_torch(network: Network, tmp_path: Path) -> None:
    board, bundle = "qemu-cortex-a72", tmp_path / "bundle"
    with emulated(board) as transport:
        build_bundle(network.onnx, load_board(board), bundle, golden=network.images[:GOLDEN, None])
        assert_agree(network.torch, by_board(bundle, network.images[:, None], transport, tmp_path))
