"""How many bytes a network's parameters take once it is deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from svitkit.models.quantized import BYTE_BITS, QUANTIZABLE, stored_bytes
from svitkit.models.run import forward_logits
from svitkit.models.sparse import sparse_bytes
from svitkit.models.spec import QuantizationSpec

FLOAT32_BYTES = 4
LAYERS = (_ConvNd, nn.Linear, _BatchNorm)


def parameter_bytes(
    model: nn.Module, example: torch.Tensor, quantization: QuantizationSpec | None = None, *, sparse: bool = False
) -> int:
    """Counts the bytes of the parameters as deployed: batch norms folded, dead parameters gone.

    A batch norm whose input is a convolution's or linear layer's output folds into it and leaves one bias per channel;
    any other batch norm leaves a scale and a bias. Layers that a forward pass does not reach do not count.

    A layer with integer weights has them bit to bit, rounded up to bytes, and one float32 scale for every output
    channel.

    Args:
        model: the network.
        example: (T, B, C, H, W) float32, any input of the right shape.
        quantization: which layers have integer weights; None for none.
        sparse: whether layers are stored as bitmap and values (:mod:`svitkit.models.sparse`) where that is smaller.

    Returns:
        Bytes.
    """
    bits = {} if quantization is None else quantization.layers
    return quantized_bytes(model, layer_parameters(model, example), bits, sparse=sparse)


def quantized_bytes(
    model: nn.Module, counts: Mapping[str, int], bits: Mapping[str, int], *, sparse: bool = False
) -> int:
    """Counts the bytes of the deployed parameters of a network whose layers are known (:func:`layer_parameters`).

    Args:
        model: the network.
        counts: parameters by layer.
        bits: of a weight by layer; a layer without stays float32.
        sparse: whether layers are stored as bitmap and values where that is smaller.
    """
    return sum(_layer_bytes(model.get_submodule(name), count, bits.get(name), sparse) for name, count in counts.items())


def sparse_layers(model: nn.Module, quantization: QuantizationSpec | None = None, *, float_bits: int = 32) -> list[str]:
    """Lists the layers that bitmap and values store in fewer bytes, in the order of their definition.

    Args:
        model: the network.
        quantization: which layers have integer weights; None for none.
        float_bits: of a weight of the other layers.
    """
    bits = {} if quantization is None else quantization.layers
    names = [name for name, module in model.named_modules() if isinstance(module, QUANTIZABLE)]
    return [name for name in names if _is_sparser(model.get_submodule(name), bits.get(name, float_bits))]


def _is_sparser(layer: nn.Module, bits: int) -> bool:
    weight = layer.get_parameter("weight")
    return _sparse_bytes(weight, bits) < stored_bytes(weight.numel(), bits)


def _sparse_bytes(weight: torch.Tensor, bits: int) -> int:
    return sparse_bytes(weight.numel(), int(weight.count_nonzero()), bits)


def _layer_bytes(layer: nn.Module, count: int, bits: int | None, sparse: bool) -> int:
    if not isinstance(layer, QUANTIZABLE):
        return FLOAT32_BYTES * count
    weight, width = layer.get_parameter("weight"), bits or BYTE_BITS * FLOAT32_BYTES
    dense = stored_bytes(weight.numel(), width)
    scales = 0 if bits is None else len(weight)
    rest = FLOAT32_BYTES * (scales + count - weight.numel())
    return rest + (min(dense, _sparse_bytes(weight, width)) if sparse else dense)


def layer_parameters(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Counts the deployed parameters of every layer that a forward pass reaches.

    Args:
        model: the network.
        example: (T, B, C, H, W) float32, any input of the right shape.

    Returns:
        Number of parameters by qualified layer name, in the order of execution; a folded batch norm has no entry. Other
        modules follow with the parameters of their own that are read (places of tokens).
    """
    calls, touched = _trace(model, example)
    producers: dict[int, str] = {}
    counts: dict[str, int] = {}
    biased: set[str] = set()
    for name, module, given, got in calls:
        producer = producers.get(given.untyped_storage().data_ptr())
        if isinstance(module, _BatchNorm):
            if producer is None or given.numel() != got.numel():
                counts[name] = 2 * module.num_features
            elif producer not in biased:
                biased.add(producer)
                counts[producer] += module.num_features
            continue
        if name not in counts:
            counts[name] = sum(parameter.numel() for parameter in module.parameters(recurse=False))
            if isinstance(getattr(module, "bias", None), torch.Tensor):
                biased.add(name)
        producers[got.untyped_storage().data_ptr()] = name
    for name, module in model.named_modules():
        if not isinstance(module, LAYERS):
            own = sum(p.numel() for p in module.parameters(recurse=False) if id(p) in touched)
            counts |= {name: own} if own else {}
    return counts


class _Readings(TorchFunctionMode):
    """Notes which parameters are read while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs an operator."""
        kwargs = kwargs or {}
        self.touched |= {id(value) for value in tree_leaves((args, kwargs)) if isinstance(value, nn.Parameter)}
        return func(*args, **kwargs)


def trace_calls(model: nn.Module, example: torch.Tensor) -> list[tuple[str, nn.Module, torch.Tensor, torch.Tensor]]:
    """Lists the calls of layers with parameters; holding the tensors keeps their storage addresses distinct."""
    return _trace(model, example)[0]


def _trace(
    model: nn.Module, example: torch.Tensor
) -> tuple[list[tuple[str, nn.Module, torch.Tensor, torch.Tensor]], set[int]]:
    """Lists the calls of layers, and the identities of the parameters that were read."""
    calls: list[tuple[str, nn.Module, torch.Tensor, torch.Tensor]] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            handles.append(
                module.register_forward_hook(
                    lambda module, inputs, output, name=name: calls.append((name, module, inputs[0], output))
                )
            )
    training = model.training
    readings = _Readings()
    try:
        model.eval()
        with torch.no_grad(), readings:
            forward_logits(model, example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return calls, readings.touched
