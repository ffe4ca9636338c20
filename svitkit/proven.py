"""Export and build, each with its proof: spikes as in torch, and golden inputs for the board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.boards.devices import with_gpu
from svitkit.boards.gpu import Device
from svitkit.errors import ConfigError, VerificationError
from svitkit.manifest import Manifest, Mode, ModelMetadata

if TYPE_CHECKING:
    import torch

    from svitkit.data.dataset import Dataset
    from svitkit.models.checkpoint import Checkpoint

CALIBRATION_IMAGES = 64
VERIFIED_IMAGES = 16
GOLDEN_IMAGES = 8
TRIAL_IMAGES = 64


def export_proven(
    checkpoint: Checkpoint, path: Path, *, dataset: Dataset | None, mode: Mode = "sequence"
) -> ModelMetadata:
    """Writes the ONNX file, with firing rates from the training split, and proves it on the validation split.

    Args:
        checkpoint: the network.
        path: the file to write.
        dataset: data that fit the network; without them no rates are measured and random input proves the file.
        mode: ``sequence`` or ``step``.

    Raises:
        UnsupportedError: the network cannot be expressed.
        VerificationError: spikes or classes differ from torch's; the file is not kept.
    """
    from svitkit.export.pipeline import export_onnx
    from svitkit.export.verify import verify

    calibration = None if dataset is None else calibration_images(checkpoint, dataset)
    metadata = export_onnx(checkpoint, path, mode=mode, calibration=calibration)
    proof = _random_input(checkpoint) if dataset is None else _take(checkpoint, dataset, "validation", VERIFIED_IMAGES)
    try:
        verify(path, checkpoint, proof.numpy())
    except VerificationError:
        path.unlink(missing_ok=True)
        raise
    return metadata


def build_proven(
    onnx: Path,
    board: Board,
    out: Path,
    dataset: Dataset | None,
    *,
    single_file: bool = False,
    device: Device = "cpu",
) -> Manifest:
    """Builds a bundle that carries golden inputs from the validation split, or random ones without data.

    Args:
        onnx: the exported file.
        board: the board to build for.
        out: the directory, or the single file, to write.
        dataset: data that fit the network.
        single_file: whether one program is built instead of a directory.
        device: what it runs on, the CPU or the GPU of the board.

    Raises:
        ConfigError: the board has no GPU, or none that a single file can use.
        SvitError: the file cannot be compiled for the board.
    """
    target = check_device_choice(board, device, single_file=single_file)
    from svitkit.export.metadata import read_metadata
    from svitkit.runtime.build import build_bundle
    from svitkit.runtime.single_file import build_single_file

    model = read_metadata(onnx)
    if dataset is None:
        golden = random_samples(model, count=GOLDEN_IMAGES, seed=0)
    else:
        golden = samples(dataset, "validation", model, limit=GOLDEN_IMAGES)
    if single_file:
        return build_single_file(onnx, target, out, golden=golden)
    trial = None
    if device == "gpu" and dataset is not None:
        trial = samples(dataset, "validation", model, limit=TRIAL_IMAGES)
    return build_bundle(onnx, target, out, golden=golden, device=device, trial=trial)


def check_device_choice(board: Board, device: Device, *, single_file: bool) -> Board:
    """Returns the board to build for, with its GPU where that is wanted.

    Raises:
        ConfigError: the board has no GPU, or a single file is wanted, which cannot use one.
    """
    if device == "cpu":
        return board
    if single_file:
        raise ConfigError(
            "a single file is a static program, which cannot load the driver of a GPU. Build a folder: leave "
            "--single-file out; or build for the CPU: leave --device gpu out."
        )
    return with_gpu(board)


def calibration_images(checkpoint: Checkpoint, dataset: Dataset) -> torch.Tensor:
    """Returns the training images on which firing rates are measured, (T, N, C, H, W) float32."""
    return _take(checkpoint, dataset, "train", CALIBRATION_IMAGES)


def _take(checkpoint: Checkpoint, dataset: Dataset, split: str, limit: int) -> torch.Tensor:
    """Returns (T, N, C, H, W) float32, samples spread over a split."""
    from svitkit.data.dataset import batches

    x, _ = next(batches(dataset, split, batch_size=limit, timesteps=checkpoint.spec.timesteps, limit=limit))
    return x.contiguous()


def _random_input(checkpoint: Checkpoint) -> torch.Tensor:
    import torch

    spec = checkpoint.spec
    frames = 1 if spec.static_input else spec.timesteps
    x = torch.randn(frames, VERIFIED_IMAGES, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    return x.expand(spec.timesteps, -1, -1, -1, -1).contiguous()


def samples(dataset: Dataset, split: str, model: ModelMetadata, *, limit: int) -> NDArray[np.float32]:
    """Turns a part of a split into inputs of a graph.

    Args:
        dataset: data that fit the network, with its normalization.
        split: ``train``, ``validation`` or ``test``.
        model: what the network is.
        limit: samples at most, spread over the split.

    Returns:
        x: (N, 1, C, H, W) float32, images; or (N, T, 1, C, H, W) float32, recordings.
    """
    from svitkit.data.dataset import sample_order, sequence

    order = sample_order(dataset, split, seed=None, limit=limit)
    x = sequence(dataset.split(split).x[order], dataset, timesteps=model.timesteps).swapaxes(0, 1)
    return np.ascontiguousarray(x[:, :1] if model.static_input else x[:, :, None])


def random_samples(model: ModelMetadata, *, count: int, seed: int) -> NDArray[np.float32]:
    """Draws ``count`` inputs from a normal distribution, shaped like those of :func:`samples`."""
    leading = (count, 1) if model.static_input else (count, model.timesteps, 1)
    return np.random.default_rng(seed).normal(size=(*leading, *model.input.shape[-3:])).astype(np.float32)
