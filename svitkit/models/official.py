"""State dicts of the authors' own code, made into checkpoints.

The mapping is exact: in float64 the logits are those of the authors' equations. Two differences are meant.

- The authors' QKFormer gives the neurons behind the projection of its self-attention ``(T * B, C, N)``, so that they
  integrate over the images of a batch as if these were time steps, and the logits of an image depend on its neighbours.
  Here they integrate over time alone. Both agree for one image at a time; accuracies that were measured in batches
  differ.
- Networks for ImageNet (1000 classes, three channels) get the normalization of ImageNet that the authors trained with,
  all others that of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.manifest import Normalization
from svitkit.models.families import build_family
from svitkit.models.official_layouts import LAYOUTS, MISFITS, Layout
from svitkit.models.official_weights import count_blocks, translate
from svitkit.models.weights import load_strictly, read_weights, some_names

IMAGENET_CLASSES = 1000
IMAGENET_NORMALIZATION = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class OfficialNetwork:
    """A network with the authors' weights.

    Attributes:
        model: the network in evaluation mode.
        arguments: what its family was given.
        layout: name of the authors' class.
        normalization: of the input.
    """

    model: nn.Module
    arguments: dict[str, Any]
    layout: str
    normalization: Normalization


def read_official(
    family: str, weights: Path, *, dataset: Dataset, timesteps: int | None, arguments: Mapping[str, Any]
) -> OfficialNetwork:
    """Reads a state dict of the authors' code.

    Args:
        family: a name of ``svitkit.models.families.FAMILIES``.
        weights: the file, ``.pth``, ``.pth.tar``, ``.pt`` or ``.safetensors``.
        dataset: tells the size of the images.
        timesteps: T; the tensors do not tell it.
        arguments: of the family, where the tensors do not tell them.

    Raises:
        ConfigError: the file is damaged, from another network or does not fit the data, or an argument is missing.
        UnsupportedError: the network is known, and svitkit has no class for it.
    """
    tensors, source = read_weights(weights), str(weights)
    layout = recognize(tensors, family, source)
    told = infer_arguments(tensors, layout, source)
    if told["in_channels"] != dataset.shape[0]:
        raise ConfigError(
            f"'{source}' was trained on frames with {told['in_channels']} channels, but data '{dataset.name}' have "
            f"{dataset.shape[0]}. Give the data that belong to it."
        )
    told |= {"img_size_h": dataset.shape[1], "img_size_w": dataset.shape[2]}
    complete = _complete(told, layout, timesteps, arguments, source)
    with torch.random.fork_rng(devices=[]):
        model = build_family(family, complete).eval()
    load_strictly(model, translate(tensors, layout, model.state_dict(), source), source)
    of_imagenet = told["num_classes"] == IMAGENET_CLASSES and told["in_channels"] == 3
    return OfficialNetwork(
        model=model,
        arguments=complete,
        layout=layout.name,
        normalization=IMAGENET_NORMALIZATION if of_imagenet else dataset.normalization,
    )


def recognize(tensors: Mapping[str, Tensor], family: str, source: str) -> Layout:
    """Finds out which of the authors' classes a state dict is from.

    Args:
        tensors: the state dict.
        family: the family that the user named.
        source: where it came from, for error messages.

    Raises:
        ConfigError: it is from none of them, or from another family.
        UnsupportedError: it is known, and svitkit has no class for it.
    """
    for mark, meaning in MISFITS.items():
        if mark in tensors:
            raise UnsupportedError(f"'{source}' holds {meaning}.")
    for layout in LAYOUTS:
        if all(mark in tensors for mark in layout.marks):
            if layout.family != family:
                raise ConfigError(f"'{source}' holds a {layout.name}, not a '{family}'. Name it '{layout.family}'.")
            return layout
    marks = "; ".join(f"{layout.name} {layout.marks[0]}" for layout in LAYOUTS if layout.family == family)
    raise ConfigError(
        f"'{source}' is no state dict of the authors' code for a '{family}': it has "
        f"{some_names(list(tensors)) or 'no tensors'}, but nothing that tells their classes ({marks}). "
        f"For a class of your own: module:callable --weights FILE."
    )


def infer_arguments(tensors: Mapping[str, Tensor], layout: Layout, source: str) -> dict[str, Any]:
    """Reads off the shapes and names of a state dict what they tell of the network.

    Args:
        tensors: the authors' state dict.
        layout: whose it is.
        source: where it came from, for error messages.

    Returns:
        Arguments of the family.

    Raises:
        ConfigError: a tensor that tells one is missing, or has another number of axes.
        UnsupportedError: the tensors do not tell which of two functions the network computes.
    """

    def shape(layer: str, axes: int) -> tuple[int, ...]:
        name = f"{layer}.weight"
        if name not in tensors or tensors[name].ndim < axes:
            got = f"of shape {tuple(tensors[name].shape)}" if name in tensors else "missing"
            raise ConfigError(
                f"'{source}' looks like {layout.name}, but tensor '{name}' is {got}. It must have {axes} axes at least."
            )
        return tuple(tensors[name].shape)

    classes, width = shape("head", 2)[:2]
    in_channels = shape(layout.stem[0].convs[0], 4)[1]
    counts = count_blocks(tensors, layout)
    told = {
        "embed_dims": width,
        "num_classes": classes,
        "in_channels": in_channels,
        "mlp_ratio": shape(layout.hidden, 2)[0] / max(width, 1),
        "depths": counts if len(counts) > 1 else counts[0],
    }
    if layout.family == "spike-driven-transformer":
        if in_channels == 2:
            raise UnsupportedError(
                f"'{source}' is for event recordings. The authors' network for CIFAR10-DVS also pools spikes inside of "
                f"its attention, which svitkit's does not, and the tensors do not tell it from their other networks. "
                f"Write its class with spikingjelly's layers, and name it: module:callable --weights FILE."
            )
        told["num_heads"] = shape("block.0.attn.talking_heads", 2)[0]
    return told


def _complete(
    told: dict[str, Any], layout: Layout, timesteps: int | None, given: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Joins what the tensors, the authors' class and the user say."""
    wanted = [f"--argument {name}=... ({hint})" for name, hint in layout.open.items() if name not in given]
    if timesteps is None:
        wanted.append("--timesteps T (4 in the authors' networks for images)")
    if wanted:
        raise ConfigError(
            f"'{source}' holds a {layout.name}, whose tensors do not tell everything. Add {' and '.join(wanted)}."
        )
    told = {"T": timesteps, **told}
    for name, value in given.items():
        if name in told and told[name] != value:
            raise ConfigError(
                f"argument '{name}' is {value!r}, but '{source}' and the data say {told[name]!r}. Leave it out."
            )
    return {**told, **layout.fixed, **given}
