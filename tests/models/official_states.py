"""Random state dicts with the names and shapes of the authors' code, whose neurons fire."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tests.models.official_reference import (
    Forward,
    Reference,
    State,
    qkformer,
    spike_driven_transformer,
    spikformer,
)

CLASSES, WIDTH, BLOCKS = 5, 32, 2
Shapes = dict[str, tuple[int, ...]]


def _spikformer(kind: str, extra: Shapes, channels: int) -> Shapes:
    shapes = _four_convolutions(channels)
    ones = {"linear": (), "conv1d": (1,), "conv2d": (1, 1)}[kind]
    name = "linear" if kind == "linear" else "conv"
    for i in range(BLOCKS):
        attn, mlp = f"block.{i}.attn", f"block.{i}.mlp"
        for part in ("q", "k", "v", "proj"):
            shapes[f"{attn}.{part}_{name}.weight"] = (WIDTH, WIDTH, *ones[:1])
            shapes[f"{attn}.{part}_bn"] = ()
            if kind == "linear" or part == "proj":
                shapes[f"{attn}.{part}_{name}.bias"] = (WIDTH,)
        shapes |= _mlp(f"{mlp}.fc1_{name}", f"{mlp}.fc2_{name}", f"{mlp}.fc1_bn", f"{mlp}.fc2_bn", WIDTH, ones)
        for norm in ("norm1", "norm2"):
            shapes |= {f"block.{i}.{norm}.weight": (WIDTH,), f"block.{i}.{norm}.bias": (WIDTH,)}
    return shapes | extra


def _four_convolutions(channels: int) -> Shapes:
    shapes: Shapes = {}
    widths = (channels, WIDTH // 8, WIDTH // 4, WIDTH // 2, WIDTH)
    for n, given, made in zip(("", "1", "2", "3"), widths, widths[1:], strict=False):
        shapes |= {f"patch_embed.proj_conv{n}.weight": (made, given, 3, 3), f"patch_embed.proj_bn{n}": ()}
    return shapes | {"patch_embed.rpe_conv.weight": (WIDTH, WIDTH, 3, 3), "patch_embed.rpe_bn": ()}


def _mlp(fc1: str, fc2: str, bn1: str, bn2: str, width: int, ones: tuple[int, ...]) -> Shapes:
    return {
        f"{fc1}.weight": (3 * width, width, *ones),
        f"{fc1}.bias": (3 * width,),
        bn1: (),
        f"{fc2}.weight": (width, 3 * width, *ones),
        f"{fc2}.bias": (width,),
        bn2: (),
    }


def _spike_driven_transformer() -> Shapes:
    shapes = _four_convolutions(3)
    for i in range(BLOCKS):
        attn, mlp = f"block.{i}.attn", f"block.{i}.mlp"
        for part in ("q", "k", "v", "proj"):
            shapes |= {f"{attn}.{part}_conv.weight": (WIDTH, WIDTH, 1, 1), f"{attn}.{part}_bn": ()}
        shapes |= {f"{attn}.proj_conv.bias": (WIDTH,), f"{attn}.talking_heads.weight": (4, 4, 1)}
        shapes |= _mlp(f"{mlp}.fc1_conv", f"{mlp}.fc2_conv", f"{mlp}.fc1_bn", f"{mlp}.fc2_bn", WIDTH, (1, 1))
    return shapes


def _qkformer(cifar: bool) -> Shapes:
    shapes: Shapes = {}
    widths = (WIDTH // 8, WIDTH // 4, WIDTH // 2, WIDTH)
    for stage, given, width in zip((1, 2, 3), widths, widths[1:], strict=False):
        embed = f"patch_embed{stage}"
        names = ("proj3", "proj4") if stage > 1 else ("proj", "proj1") if cifar else ("proj", "proj1", "proj2")
        inputs = (given, width) if stage > 1 else (3, given, width)
        outputs = (width, width) if stage > 1 else (given, width, width)
        for name, fan_in, made in zip(names, inputs, outputs, strict=False):
            shapes |= {f"{embed}.{name}_conv.weight": (made, fan_in, 3, 3), f"{embed}.{name}_bn": ()}
        shapes |= {f"{embed}.proj_res_conv.weight": (width, given, 1, 1), f"{embed}.proj_res_bn": ()}
        blocks = 1 if stage == 1 else 2
        for i in range(blocks):
            attn = f"stage{stage}.{i}.{'tssa' if stage < 3 else 'ssa' if cifar else 'attn'}"
            for part in ("q", "k", "proj") if stage < 3 else ("q", "k", "v", "proj"):
                shapes |= {f"{attn}.{part}_conv.weight": (width, width, 1), f"{attn}.{part}_bn": ()}
            mlp = f"stage{stage}.{i}.mlp.{'mlp' if cifar else 'fc'}"
            shapes |= {f"{attn}.proj_conv.bias": (width,)}
            shapes |= _mlp(f"{mlp}1_conv", f"{mlp}2_conv", f"{mlp}1_bn", f"{mlp}2_bn", width, (1, 1))
    return shapes


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of the authors' classes.

    Attributes:
        family: svitkit's name of it.
        shapes: of its tensors; () marks a batch norm.
        forward: its equations.
        given: arguments that the tensors do not tell.
        told: some that they do.
        frame: (C, H, W).
        shifts: see :class:`Reference`; they keep every layer of neurons between silence and permanent fire.
    """

    family: str
    shapes: Shapes
    forward: Forward
    given: dict[str, Any]
    told: dict[str, Any]
    frame: tuple[int, int, int]
    shifts: dict[str, float]


DVS_EXTRA: Shapes = {"pos_embed": (1, 4, WIDTH), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
SDT_SHIFTS = {r"bn3|rpe_bn": -0.5, r"attn.proj_bn|fc2_bn": -0.7}
SMALL, LARGE = (3, 16, 16), (3, 32, 32)
CASES = {
    "spikformer-cifar": Case(
        family="spikformer",
        shapes=_spikformer("linear", {}, 3),
        forward=partial(spikformer, count=4, scale=0.125, kind="linear", pools="0011"),
        given={"num_heads": 4},
        told={"patch_size": 4, "depths": 2, "embed_dims": 32, "mlp_ratio": 3.0},
        frame=SMALL,
        shifts={r"[qkv]_bn": 0.5},
    ),
    "spikformer-imagenet": Case(
        family="spikformer",
        shapes=_spikformer("conv2d", {}, 3),
        forward=partial(spikformer, count=2, scale=0.125, kind="conv", pools="1111"),
        given={"num_heads": 2},
        told={"patch_size": 16, "pool_after_lif": True},
        frame=LARGE,
        shifts={r"[qkv]_bn": 0.8},
    ),
    "spikformer-dvs": Case(
        family="spikformer",
        shapes=_spikformer("conv1d", DVS_EXTRA, 2),
        forward=partial(spikformer, count=4, scale=0.25, kind="conv", pools="1111"),
        given={"num_heads": 4},
        told={"patch_size": 16, "in_channels": 2, "attention_scale": 0.25},
        frame=(2, 32, 32),
        shifts={r"[qkv]_bn": 0.7},
    ),
    "sdt-cifar": Case(
        family="spike-driven-transformer",
        shapes=_spike_driven_transformer(),
        forward=partial(spike_driven_transformer, count=4, pooling_stat="0011"),
        given={"pooling_stat": "0011"},
        told={"num_heads": 4, "depths": 2, "num_classes": CLASSES},
        frame=SMALL,
        shifts=SDT_SHIFTS,
    ),
    "sdt-imagenet": Case(
        family="spike-driven-transformer",
        shapes=_spike_driven_transformer(),
        forward=partial(spike_driven_transformer, count=4, pooling_stat="1111"),
        given={"pooling_stat": 1111},
        told={"num_heads": 4},
        frame=LARGE,
        shifts=SDT_SHIFTS,
    ),
    "qkformer-imagenet": Case(
        family="qkformer",
        shapes=_qkformer(cifar=False),
        forward=partial(qkformer, count=2, cifar=False),
        given={"num_heads": 2},
        told={"patch_size": 16, "depths": (1, 2, 2), "embed_dims": 32},
        frame=LARGE,
        shifts={r"3\..*[qkv]_bn": 1.0, r"(1.proj|1.proj1|3)_bn": -0.7},
    ),
    "qkformer-cifar": Case(
        family="qkformer",
        shapes=_qkformer(cifar=True),
        forward=partial(qkformer, count=8, cifar=True),
        given={},
        told={"patch_size": 4, "depths": (1, 2, 2), "num_heads": 8},
        frame=SMALL,
        shifts={r"3\..*[qkv]_bn": 1.3, r"4_bn": -0.7},
    ),
}


def images(case: Case, *, timesteps: int = 4, batch: int = 3, seed: int = 0) -> Tensor:
    """(T, B, C, H, W) float64, other frames at every step."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(timesteps, batch, *case.frame, generator=generator, dtype=torch.float64)


@cache
def fitted(name: str) -> Reference:
    """The reference of a case, with random weights and batch norms fitted so that neurons fire; do not change it."""
    case = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        state: State = {}
        for tensor, shape in (case.shapes | {"head.weight": (CLASSES, WIDTH), "head.bias": (CLASSES,)}).items():
            if shape:
                spread = 1.5 / max(torch.Size(shape[1:]).numel(), 1) ** 0.5 if len(shape) > 1 else 0.5
                state[tensor] = spread * torch.randn(shape, dtype=torch.float64)
        net = Reference(state, fresh=True, shifts=case.shifts)
        case.forward(net, images(case, batch=8, seed=1))
    return Reference(state)
