"""From the tensors of the authors' code to those of svitkit's networks: joined, reshaped, biases folded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.models.official_layouts import Layer, Layout
from svitkit.models.weights import some_names

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
HEAD = ("head.weight", "head.bias")
LEARNED_TIME_CONSTANT = re.compile(r".*_lif\d*\.w")


def count_blocks(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[int, ...]:
    """Returns the number of blocks in every list of blocks of a state dict."""
    pattern = re.compile(r"(\w+)\.(\d+)\.")
    found = {(match[1], match[2]) for name in tensors if (match := pattern.match(name))}
    return tuple(sum(prefix == blocks for prefix, _ in found) for blocks in layout.blocks)


def translate(
    tensors: Mapping[str, Tensor], layout: Layout, wanted: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Gives the authors' tensors the names and forms that svitkit's network has.

    A bias that only the authors' layer has goes into its batch norm, which subtracts the mean from it anyway:
    ``running_mean - bias``. A bias that only svitkit's layer has is 0. Both leave the function as it is.

    Args:
        tensors: the authors' state dict.
        layout: whose it is.
        wanted: the state dict of svitkit's network, for its names and shapes.
        source: where the tensors came from, for error messages.

    Returns:
        One tensor for every name in ``wanted``, in the authors' precision.

    Raises:
        ConfigError: a tensor is missing or unknown, or has another shape than the network wants.
        UnsupportedError: the neurons have learned time constants.
    """
    layers = list(_layers(layout, count_blocks(tensors, layout)))
    _check_names(tensors, layers, layout, source)
    result: dict[str, Tensor] = {}
    for layer in layers:
        result |= _translate_layer(tensors, layer, wanted, source)
    for name in HEAD:
        result[name] = _join(tensors, (name,), wanted[name], source)
    return result


def _layers(layout: Layout, counts: tuple[int, ...]) -> Iterator[Layer]:
    yield from layout.stem
    for rows, count in zip(layout.blocks.values(), counts, strict=True):
        for i in range(count):
            for row in rows:
                yield replace(
                    row,
                    convs=tuple(name.format(i=i) for name in row.convs),
                    norms=tuple(name.format(i=i) for name in row.norms),
                    conv=row.conv.format(i=i),
                    norm=row.norm.format(i=i),
                )


def _check_names(tensors: Mapping[str, Tensor], layers: list[Layer], layout: Layout, source: str) -> None:
    expected = set(HEAD)
    for layer in layers:
        parts = ("weight", "bias") if layer.biased else ("weight",)
        expected |= {f"{conv}.{part}" for conv in layer.convs for part in parts}
        expected |= {f"{norm}.{part}" for norm in layer.norms for part in NORM_TENSORS}
    unused = re.compile("|".join(layout.unused) or r"(?!)")
    missing = sorted(expected - tensors.keys())
    unknown = sorted(name for name in tensors.keys() - expected if not unused.fullmatch(name))
    learned = [name for name in unknown if LEARNED_TIME_CONSTANT.fullmatch(name)]
    if learned:
        raise UnsupportedError(
            f"'{source}' has neurons with learned time constants ({some_names(learned)}), but the families have "
            f"neurons with tau 2. Write the class with LIFNode(tau=...), and name it: module:callable --weights FILE."
        )
    if missing or unknown:
        kinds = (("missing", missing), ("unknown", unknown))
        found = [f"{len(names)} {kind} ({some_names(names)})" for kind, names in kinds if names]
        raise ConfigError(
            f"'{source}' looks like {layout.name}, whose state dict would have {len(expected)} tensors, but has "
            f"{' and '.join(found)}. Save the whole network's state dict, or name a class of your own: "
            f"module:callable --weights FILE."
        )


def _translate_layer(
    tensors: Mapping[str, Tensor], layer: Layer, wanted: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Joins a layer's parts and folds its bias."""

    def joined(names: tuple[str, ...], part: str, target: str) -> Tensor:
        return _join(tensors, tuple(f"{name}.{part}" for name in names), wanted[target], source)

    weight, bias, mean = f"{layer.conv}.weight", f"{layer.conv}.bias", f"{layer.norm}.running_mean"
    result = {weight: joined(layer.convs, "weight", weight)}
    result |= {f"{layer.norm}.{part}": joined(layer.norms, part, f"{layer.norm}.{part}") for part in NORM_TENSORS}
    if layer.biased and bias in wanted:
        result[bias] = joined(layer.convs, "bias", bias)
    elif layer.biased:
        precise = result[mean].to(torch.promote_types(result[mean].dtype, torch.float32))
        result[mean] = precise - joined(layer.convs, "bias", mean)
    elif bias in wanted:
        result[bias] = torch.zeros_like(result[mean])
    return result


def _join(tensors: Mapping[str, Tensor], names: tuple[str, ...], target: Tensor, source: str) -> Tensor:
    """Joins tensors along their first axis and gives them the target's shape; of counters the first one counts.

    A linear layer and a convolution over one pixel are the same: their shapes differ in trailing ones.
    """
    shape = (target.shape[0] // len(names), *target.shape[1:]) if target.ndim else ()
    for name in names:
        if _without_ones(tensors[name].shape) != _without_ones(shape):
            raise ConfigError(
                f"'{source}': tensor '{name}' has shape {tuple(tensors[name].shape)}, but {shape} is wanted by the "
                f"widths that the other tensors tell. Look whether the file is of one network, and undamaged."
            )
    parts = [tensors[name].reshape(shape) for name in names]
    return torch.cat(parts) if target.ndim else parts[0]


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    kept = 2 if all(extent == 1 for extent in shape[2:]) else len(shape)
    return tuple(shape[:kept])
