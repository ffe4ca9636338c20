"""Small networks for the compression tests, with neurons that fire."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.compress.recalibrate import normalize_to
from svitkit.data import Dataset
from svitkit.data.dataset import Split, batches
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import Checkpoint, build_model
from svitkit.models.run import example_input, forward_logits
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import ModelSpec

COMMON = {"T": 2, "in_channels": 1, "num_classes": 10}
FAMILIES: dict[str, dict[str, Any]] = {
    "spikformer": {"img_size_h": 16, "img_size_w": 16, "embed_dims": 32, "num_heads": 4, "depths": 1, **COMMON},
    "spike-driven-transformer": {
        "img_size_h": 16,
        "img_size_w": 16,
        "embed_dims": 32,
        "num_heads": 4,
        "depths": 1,
        **COMMON,
    },
    "qkformer": {
        "img_size_h": 32,
        "img_size_w": 32,
        "embed_dims": 64,
        "num_heads": (2, 2, 4),
        "depths": (1, 1, 1),
        **COMMON,
    },
}


def spec_of(family: str, dataset: Dataset | None = None) -> ModelSpec:
    arguments = FAMILIES[family]
    return ModelSpec(
        family=family,
        arguments=arguments,
        timesteps=2,
        input_shape=(1, arguments["img_size_h"], arguments["img_size_w"]),
        static_input=True,
        normalization=dataset.normalization if dataset else Normalization(mean=(0.0,), std=(1.0,)),
        class_names=tuple(str(index) for index in range(10)),
        original_parameter_bytes=0,
    )


def probe(spec: ModelSpec) -> torch.Tensor:
    return torch.randn(spec.timesteps, 3, *spec.input_shape, generator=torch.Generator().manual_seed(1))


def firing_checkpoint(family: str, dataset: Dataset | None = None) -> Checkpoint:
    """A network with random weights whose batch norms fit random input, so that its neurons fire."""
    spec = spec_of(family, dataset)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build_model(spec)
        generator = torch.Generator().manual_seed(4)
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.1, generator=generator)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.uniform_(module.bias, 0.5, 1.2, generator=generator)
    normalize_to(model, [probe(spec)])
    size = parameter_bytes(model, example_input(spec))
    return Checkpoint(model=model, spec=replace(spec, original_parameter_bytes=size))


@cache
def groups_of(family: str, **options: bool) -> dict[str, FoundGroup]:
    """The groups of :func:`firing_checkpoint`, found once in a test run."""
    checkpoint = firing_checkpoint(family)
    groups = find_groups(checkpoint.model, example_input(checkpoint.spec), **options)
    return {found.group.name: found for found in groups}


def lif(**options: Any) -> neuron.LIFNode:
    return neuron.LIFNode(step_mode="m", detach_reset=True, **options)


class OwnNetwork(nn.Module):
    """A user's class: separate q, k and v whose head size follows from the shape, a depthwise layer, a dead layer."""

    def __init__(self, dim: int = 8, heads: int = 2, threshold: float = 1.0, head_size: int | None = None) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.stem = layer.Conv2d(1, dim, 3, padding=1, step_mode="m")
        self.stem_lif = lif()
        self.widen = layer.Conv2d(dim, 12, 1, step_mode="m")
        self.widen_bn = layer.BatchNorm2d(12, step_mode="m")
        self.widen_lif = lif(v_threshold=threshold)
        self.mix = layer.Conv2d(12, 12, 3, padding=1, groups=12, step_mode="m")
        self.mix_lif = lif(v_threshold=threshold)
        self.narrow = layer.Conv2d(12, dim, 1, step_mode="m")
        self.narrow_lif = lif()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.q_lif, self.k_lif, self.v_lif = lif(), lif(), lif()
        self.attn_lif = lif(v_threshold=0.5)
        self.out = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 10)
        self.dead = nn.Linear(dim, dim)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        size = self.head_size or x.shape[-1] // self.heads
        return x.unflatten(-1, (self.heads, size)).transpose(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem_lif(self.stem(x))
        x = x + self.narrow_lif(self.narrow(self.mix_lif(self.mix(self.widen_lif(self.widen_bn(self.widen(x)))))))
        tokens = x.flatten(3).transpose(2, 3)
        q, k, v = (
            self.split(fire(project(tokens)))
            for fire, project in ((self.q_lif, self.q), (self.k_lif, self.k), (self.v_lif, self.v))
        )
        mixed = self.attn_lif(q @ (k.transpose(-1, -2) @ v) * 0.125)
        tokens = tokens + self.out(mixed.transpose(2, 3).flatten(3))
        return self.head(tokens.mean(2))


def own_labels(checkpoint: Checkpoint, dataset: Dataset) -> Dataset:
    """The dataset with the network's own answers as labels: it is always right, and pruned it is not."""

    def answered(name: str) -> Split:
        split = dataset.split(name)
        found = batches(dataset, name, batch_size=64, timesteps=checkpoint.spec.timesteps)
        with torch.no_grad():
            y = torch.cat([forward_logits(checkpoint.model, x).argmax(1) for x, _ in found])
        return Split(x=split.x, y=y.numpy())

    return replace(dataset, train=answered("train"), validation=answered("validation"), test=answered("test"))
