"""One network, four computations: torch, ONNX Runtime, the bundle on this machine, the bundle on an emulated board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from svitkit.boards.board import load_board
from svitkit.boards.transports import open_transport
from svitkit.data import load_data
from svitkit.data.dataset import normalize
from svitkit.errors import ConfigError
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Manifest, Normalization, read_manifest
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.models.liven import liven
from svitkit.models.run import forward_spikes
from svitkit.models.spec import ModelSpec
from svitkit.onnx_reference import ReferenceSession
from svitkit.runtime.build import build_bundle
from svitkit.runtime.runner_process import Runner
from svitkit.runtime.session import Session

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
class Result:
    """Logits (N, classes), and spikes (N, ...) by layer, flattened over time and neurons."""

    logits: Array
    spikes: dict[str, Array]


@dataclass(frozen=True)
class Network:
    """An exported network with what torch says about its inputs."""

    onnx: Path
    images: Array
    frames: Array
    torch: Result


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
    return Network(path, images, frames, Result(logits.numpy(), by_image))


def stack(runs: list[tuple[Array, dict[str, Array]]]) -> Result:
    return Result(
        np.stack([logits.reshape(-1) for logits, _ in runs]),
        {name: np.stack([spikes[name].reshape(-1) for _, spikes in runs]) for name in runs[0][1]},
    )


def assert_agree(wanted: Result, got: Result) -> None:
    assert (got.logits.argmax(1) == wanted.logits.argmax(1)).all()
    assert set(got.spikes) == set(wanted.spikes)
    for name, spikes in wanted.spikes.items():
        agreement = (got.spikes[name].reshape(spikes.shape) == spikes).mean()
        assert agreement >= SPIKE_AGREEMENT, f"{name}: {agreement:.4%}"


def on_host(bundle: Path, images: Array) -> Result:
    with Session(bundle) as session:
        return stack([session.run_with_spikes(image[None]) for image in images])


def in_graph_order(bundle: Path, manifest: Manifest, records: Array) -> dict[str, Array]:
    """Splits the bytes of ``svit-run --spikes`` into layers and undoes the storage order."""
    lines = [line.split() for line in (bundle / "program.txt").read_text().splitlines()]
    shapes = {words[1]: [int(word) for word in words[7:]] for words in lines if words[0] == "tensor"}
    taps = {words[1]: shapes[words[2]] for words in lines if words[0] == "tap"}
    orders = {words[1]: [int(word) for word in words[3:]] for words in lines if words[0] == "taporder"}
    ends = np.cumsum([np.prod(shape) for shape in taps.values()])
    pieces = np.split(records.reshape(len(records), -1), ends[:-1], axis=1)
    assert manifest.model.mode == "sequence"
    return {
        name: piece.reshape(-1, *shape).transpose(0, *(axis + 1 for axis in orders[name])).reshape(len(records), -1)
        for (name, shape), piece in zip(taps.items(), pieces, strict=True)
    }


@pytest.fixture
def emulated_bundle(network: Network, tmp_path: Path) -> Iterator[tuple[Path, Runner]]:
    board = load_board("qemu-cortex-a72")
    bundle = tmp_path / "bundle"
    with ExitStack() as stack:
        try:
            transport = stack.enter_context(open_transport(board))
        except ConfigError as error:
            pytest.skip(str(error))
        manifest = build_bundle(network.onnx, board, bundle, golden=network.images[:GOLDEN, None])
        yield (
            bundle,
            Runner(
                transport=transport,
                bundle=transport.push(bundle),
                mode=manifest.model.mode,
                timesteps=TIMESTEPS,
                classes=10,
                work=tmp_path,
                timeout_s=300,
            ),
        )


def test_every_layer_fires_and_classes_differ(network: Network) -> None:
    rates = {name: spikes.mean() for name, spikes in network.torch.spikes.items()}
    assert all(0.001 < rate < 0.99 for rate in rates.values()), rates
    assert len(set(network.torch.logits.argmax(1))) > 1


def test_onnx_runtime_agrees_with_torch(network: Network) -> None:
    session = ReferenceSession(network.onnx, spikes=True)
    runs = [session.run(image) for image in network.images]
    assert_agree(network.torch, stack([(run.logits, run.spikes) for run in runs]))


def test_the_bundle_on_this_machine_agrees_with_torch(network: Network, tmp_path: Path) -> None:
    build_bundle(network.onnx, load_board("host"), tmp_path / "bundle", golden=network.images[:GOLDEN, None])
    assert_agree(network.torch, on_host(tmp_path / "bundle", network.images))


def test_the_bundle_on_an_emulated_cortex_a72_agrees_with_torch(
    network: Network, emulated_bundle: tuple[Path, Runner]
) -> None:
    bundle, runner = emulated_bundle
    logits, spikes = runner.infer_with_spikes(network.images[:, None])
    records = spikes.reshape(len(network.images), -1)
    assert_agree(network.torch, Result(logits, in_graph_order(bundle, read_manifest(bundle), records)))
