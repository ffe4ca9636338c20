"""Quantized weights: integers with one scale per output channel, and the 8-bit image that the first layer reads.

    w[c, ...] = scale[c] * q[c, ...]            q in -qmax..qmax, qmax = 2^(bits - 1) - 1

The network itself holds ``w`` as float32, so that everything which runs it goes on working; the integers travel with
the checkpoint. Source: Jacob et al., CVPR 2018 (arXiv 1712.05877), symmetric and per channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from svitkit.errors import ConfigError
from svitkit.manifest import Normalization
from svitkit.models.spec import InputQuantization, QuantizationSpec

LARGEST_BYTE = 255
BYTE_BITS = 8
QUANTIZABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""The layers whose weights can be integers, or stored without their zeros."""


def qmax(bits: int) -> int:
    """Returns the largest magnitude of a symmetric integer of that many bits."""
    return int(2 ** (bits - 1)) - 1


def stored_bytes(elements: int, bits: int) -> int:
    """Returns the bytes of a layer's integers in a checkpoint, which has them bit to bit."""
    return math.ceil(elements * bits / BYTE_BITS)


@dataclass(frozen=True, kw_only=True)
class QuantizedWeight:
    """The weight of one convolution or linear layer.

    Attributes:
        bits: 2 to 8.
        integers: (outputs, ...) int8, in -qmax..qmax.
        scale: (outputs,) float32, positive.
    """

    bits: int
    integers: NDArray[np.int8]
    scale: NDArray[np.float32]

    def dequantize(self) -> NDArray[np.float32]:
        """Returns scale * integers (outputs, ...) float32, rounded once."""
        columns = self.scale.reshape(-1, *[1] * (self.integers.ndim - 1))
        product: NDArray[np.float32] = self.integers.astype(np.float32) * columns
        return product


def pack(integers: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Packs integers bit to bit in two's complement, the lowest bit of the first one first, with zeros at the end."""
    every = np.unpackbits(integers.reshape(-1, 1).view(np.uint8), axis=1, count=bits, bitorder="little")
    return np.packbits(every, bitorder="little")


def unpack(packed: NDArray[np.uint8], shape: tuple[int, ...], bits: int) -> NDArray[np.int8]:
    """Undoes :func:`pack`."""
    elements = math.prod(shape)
    every = np.unpackbits(packed, count=elements * bits, bitorder="little").reshape(elements, bits)
    signed = np.repeat(every[:, -1:], BYTE_BITS - bits, axis=1)
    whole = np.packbits(np.concatenate([every, signed], axis=1), axis=1, bitorder="little")
    return whole.view(np.int8).reshape(shape)


def stored_tensors(layer: str, weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Returns a layer's tensors as a checkpoint stores them: integers (packed below 8 bits) and scale."""
    packed = weight.bits < BYTE_BITS
    integers = pack(weight.integers, weight.bits) if packed else np.ascontiguousarray(weight.integers)
    scale = np.ascontiguousarray(weight.scale, np.float32)
    return {f"{layer}.weight": torch.from_numpy(integers), f"{layer}.weight_scale": torch.from_numpy(scale)}


def read_quantized(
    tensors: dict[str, torch.Tensor], spec: QuantizationSpec, model: nn.Module, source: str
) -> dict[str, QuantizedWeight]:
    """Takes the quantized layers out of a checkpoint's tensors and puts float32 weights in their place.

    Args:
        tensors: as stored; changed in place.
        spec: which layers have integers.
        model: the network, for the shapes.
        source: where the tensors came from, for the error message.

    Raises:
        ConfigError: a layer does not exist or has no weight; integers or scales are missing, of another shape or type,
            or out of range.
    """
    found = {}
    for layer, bits in spec.layers.items():
        wanted = quantizable_weight(model, layer, source)
        scale = tensors.pop(f"{layer}.weight_scale", None)
        stored = tensors.get(f"{layer}.weight")
        if scale is None or stored is None:
            raise ConfigError(f"'{source}' lacks the integers or the scale of the quantized layer '{layer}'.")
        integers = read_integers(stored, tuple(wanted.shape), bits, f"'{source}': tensor '{layer}.weight'")
        if scale.dtype != torch.float32 or tuple(scale.shape) != (len(wanted),):
            got = f"{scale.dtype} {tuple(scale.shape)}"
            raise ConfigError(f"'{source}': tensor '{layer}.weight_scale' is {got}, wanted float32 ({len(wanted)},).")
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise ConfigError(f"'{source}': tensor '{layer}.weight_scale' holds values that are not positive numbers.")
        found[layer] = QuantizedWeight(bits=bits, integers=integers, scale=scale.numpy())
        tensors[f"{layer}.weight"] = torch.from_numpy(found[layer].dequantize())
    return found


def read_integers(stored: torch.Tensor, shape: tuple[int, ...], bits: int, where: str) -> NDArray[np.int8]:
    """Returns integers from what :func:`stored_tensors` gave.

    Args:
        stored: int8, or uint8 below 8 bits.
        shape: of the integers.
        bits: 2 to 8.
        where: which tensor it is, for the error message.

    Raises:
        ConfigError: type or shape are others, or an integer is out of range.
    """
    packed = bits < BYTE_BITS
    kind, extents = (torch.uint8, (stored_bytes(math.prod(shape), bits),)) if packed else (torch.int8, shape)
    if stored.dtype != kind or tuple(stored.shape) != extents:
        raise ConfigError(f"{where} is {stored.dtype} {tuple(stored.shape)}, wanted {kind} {extents} for {bits} bits.")
    integers = unpack(stored.numpy(), shape, bits) if packed else stored.numpy()
    if packed and not np.array_equal(pack(integers, bits), stored.numpy()):
        raise ConfigError(f"{where} holds bits behind its last weight. Make the checkpoint again.")
    if integers.size and int(np.abs(integers.astype(np.int16)).max()) > qmax(bits):
        raise ConfigError(f"{where} holds integers beyond {qmax(bits)}, the largest of {bits} bits.")
    return integers


def quantizable_weight(model: nn.Module, layer: str, source: str, *, does: str = "quantizes") -> torch.Tensor:
    """Returns the weight of a convolution or linear layer.

    Args:
        model: the network.
        layer: qualified name.
        source: what names the layer, for the error message.
        does: what the source does with it.

    Raises:
        ConfigError: there is no such layer.
    """
    module = dict(model.named_modules()).get(layer)
    if not isinstance(module, QUANTIZABLE):
        got = "nothing" if module is None else f"a {type(module).__name__}"
        raise ConfigError(f"'{source}' {does} layer '{layer}', which is {got}, wanted a convolution or linear layer.")
    return module.weight


def check_quantized(model: nn.Module, spec: QuantizationSpec | None, weights: Mapping[str, QuantizedWeight]) -> None:
    """Checks that integers, description and network belong together.

    Raises:
        ConfigError: they do not.
    """
    layers = {} if spec is None else spec.layers
    told = {name: weight.bits for name, weight in weights.items()}
    if told != layers:
        raise ConfigError(f"the checkpoint describes the quantized layers {layers}, but holds integers of {told}.")
    for layer, weight in weights.items():
        held = quantizable_weight(model, layer, "the checkpoint").detach().cpu().numpy()
        if held.shape != weight.integers.shape or not np.array_equal(held, weight.dequantize()):
            raise ConfigError(
                f"the weight of '{layer}' is not its integers times its scale: it changed. Quantize again."
            )


def input_quantization(normalization: Normalization, *, static: bool) -> InputQuantization:
    """Returns how the normalized input becomes bytes: nothing clips, and the step is a power of two.

    A power of two makes ``x / scale`` exact, so that every processor rounds alike; 0 (the padding of convolutions) is a
    byte of its own. Event counts that are not normalized (mean 0, std 1) stay as they are up to 255.

    Args:
        normalization: ``(x / 255 - mean) / std`` for images, ``(x - mean) / std`` for counts.
        static: whether the input is an image.
    """
    top = 1.0 if static else float(LARGEST_BYTE)
    pairs = list(zip(normalization.mean, normalization.std, strict=True))
    low = min(0.0, *(-mean / std for mean, std in pairs))
    high = max(0.0, *((top - mean) / std for mean, std in pairs))
    exponent = math.ceil(math.log2((high - low) / LARGEST_BYTE))
    while True:
        scale = 2.0**exponent
        zero_point = -round(low / scale)
        if zero_point + round(high / scale) <= LARGEST_BYTE:
            return InputQuantization(scale=scale, zero_point=zero_point)
        exponent += 1


class QuantizeInput:
    """A hook before a network's forward pass that rounds its input to bytes, as the exported file does.

    x' = scale * (clip(round(x / scale) + zero_point, 0, 255) - zero_point)
    """

    def __init__(self, quantization: InputQuantization) -> None:
        """Keeps the scale and the zero point."""
        self.quantization = quantization

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Returns the rounded first input and the others as they are."""
        scale, zero = self.quantization.scale, self.quantization.zero_point
        levels = torch.clamp(torch.round(inputs[0] / scale) + zero, 0, LARGEST_BYTE)
        return ((levels - zero) * scale, *inputs[1:])


def quantize_input(model: nn.Module, quantization: QuantizationSpec | None) -> None:
    """Makes a network round its input as its description says, instead of what it did before."""
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, QuantizeInput):
            del model._forward_pre_hooks[key]
    if quantization is not None:
        model.register_forward_pre_hook(QuantizeInput(quantization.input))
