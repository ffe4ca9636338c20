"""Small living networks of every family with images of digits, which the tests of all computations share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from svitkit.data import load_data
from svitkit.data.dataset import normalize
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Mode, Normalization
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.models.liven import liven
from svitkit.models.run import forward_spikes
from svitkit.models.spec import ModelSpec
from tests.runtime.recordings import Array, Recording

TIMESTEPS, IMAGES = 4, 200
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


@dataclass(frozen=True)
class Network:
    """A network, its export in sequence mode, its images (N, 1, H, W), and what torch says about them."""

    checkpoint: Checkpoint
    onnx: Path
    images: Array
    torch: Recording

    def export(self, path: Path, mode: Mode) -> Path:
        """Exports the same network in another mode."""
        export_onnx(self.checkpoint, path, mode=mode)
        return path


def digits(size: int) -> Array:
    """(N, 1, size, size) float32, normalized test images of the digits."""
    dataset = load_data("digits")
    images = normalize(dataset.test.x[:IMAGES], dataset)
    return images.repeat(size // 16, axis=2).repeat(size // 16, axis=3).astype(np.float32)


def make_network(family: str, folder: Path) -> Network:
    """Builds a network of which every layer fires, and exports it."""
    torch.manual_seed(0)
    images = digits(FAMILIES[family]["img_size_h"])
    frames = np.broadcast_to(images, (TIMESTEPS, *images.shape))
    model = build_family(family, FAMILIES[family])
    liven(model, torch.from_numpy(frames[:, :64].copy()))
    logits, _ = forward_spikes(model, torch.from_numpy(frames.copy()))
    model.head.bias.data -= logits.mean(0)
    spec = ModelSpec(
        family=family,
        arguments=FAMILIES[family],
        timesteps=TIMESTEPS,
        input_shape=images.shape[1:],
        static_input=True,
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=tuple("0123456789"),
        original_parameter_bytes=0,
    )
    path, checkpoint = folder / "model.onnx", Checkpoint(model=model, spec=spec)
    export_onnx(checkpoint, path)
    logits, spikes = forward_spikes(model, torch.from_numpy(frames.copy()))
    by_image = {name: s.transpose(0, 1).flatten(1).numpy() for name, s in spikes.items()}
    return Network(checkpoint, path, images, Recording(logits.numpy(), by_image))
