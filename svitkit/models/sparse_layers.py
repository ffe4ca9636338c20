"""Sparse layers in a checkpoint: ``name.weight_bitmap`` and, as ``name.weight``, the values in a row."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from svitkit.errors import ConfigError
from svitkit.models.quantized import BYTE_BITS, QuantizedWeight, pack, quantizable_weight, read_integers
from svitkit.models.sparse import count_bits, join, split
from svitkit.models.spec import ModelSpec
from svitkit.models.weights import StorageType, stored_tensor


def sparse_tensors(
    model: nn.Module, layer: str, dtype: StorageType, quantized: QuantizedWeight | None
) -> dict[str, torch.Tensor]:
    """Returns a layer's weight as a checkpoint stores it: bitmap (uint8) and values.

    Args:
        model: the network.
        layer: qualified name of a convolution or linear layer.
        dtype: type in which float32 weights are stored.
        quantized: its integers, which are stored instead, bit to bit below 8 bits; None for a float32 layer.

    Raises:
        ConfigError: there is no such layer, or a weight is not finite.
    """
    weight = quantizable_weight(model, layer, "the checkpoint", does="stores without zeros")
    if quantized is None:
        bitmap, values = split(stored_tensor(f"{layer}.weight", weight, dtype).numpy())
        return _named(layer, bitmap, torch.from_numpy(values))
    bitmap, integers = split(quantized.integers)
    stored = integers if quantized.bits == BYTE_BITS else pack(integers, quantized.bits)
    return _named(layer, bitmap, torch.from_numpy(stored))


def _named(layer: str, bitmap: NDArray[np.uint8], values: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{layer}.weight_bitmap": torch.from_numpy(bitmap), f"{layer}.weight": values}


def expand_layers(tensors: dict[str, torch.Tensor], spec: ModelSpec, model: nn.Module, source: str) -> None:
    """Puts whole weights in the place of sparse ones: float32 or float16, or integers as a dense layer stores them.

    Args:
        tensors: as stored; changed in place.
        spec: which layers are sparse, and which have integers.
        model: the network, for the shapes.
        source: where the tensors came from, for the error message.

    Raises:
        ConfigError: a layer does not exist, or its bitmap or values are missing, damaged or do not fit each other.
    """
    widths = {} if spec.quantization is None else spec.quantization.layers
    for layer in spec.sparse:
        shape = tuple(quantizable_weight(model, layer, source, does="stores without zeros").shape)
        bitmap, stored = tensors.pop(f"{layer}.weight_bitmap", None), tensors.get(f"{layer}.weight")
        if bitmap is None or stored is None:
            raise ConfigError(f"'{source}' lacks the bitmap or the values of the sparse layer '{layer}'.")
        where = f"'{source}': tensor '{layer}.weight'"
        nonzero = count_bits(bitmap.numpy(), math.prod(shape), where)
        bits = widths.get(layer)
        if bits is not None:
            integers = join(bitmap.numpy(), read_integers(stored, (nonzero,), bits, where), shape, where)
            tensors[f"{layer}.weight"] = torch.from_numpy(integers if bits == BYTE_BITS else pack(integers, bits))
        elif stored.dtype not in (torch.float32, torch.float16):
            raise ConfigError(f"{where} is {stored.dtype}, wanted float32 or float16. Make the checkpoint again.")
        else:
            tensors[f"{layer}.weight"] = torch.from_numpy(join(bitmap.numpy(), stored.numpy(), shape, where))
