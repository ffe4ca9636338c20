"""Physical removal of indices from a network's tensors, and the module attributes that follow."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.models.attention import FreeQKAttention, FreeSelfAttention

if TYPE_CHECKING:
    from svitkit.models.plan import PrunePlan


def find_tensor(model: nn.Module, name: str) -> torch.Tensor:
    """Returns the parameter or buffer of that state-dict name.

    Raises:
        ConfigError: the network has no such tensor.
    """
    path, _, leaf = name.rpartition(".")
    try:
        value = getattr(model.get_submodule(path), leaf, None)
    except AttributeError:
        value = None
    if not isinstance(value, torch.Tensor):
        raise ConfigError(f"the network has no tensor '{name}'. Was the prune plan made for another network?")
    return value


def remove_indices(model: nn.Module, removed: Mapping[tuple[str, int], set[int]]) -> None:
    """Slices tensors in place and updates the modules that own them.

    Args:
        model: the network.
        removed: for (tensor name, axis) the indices that go, in the tensor's present numbering.

    Raises:
        ConfigError: nothing would be left on an axis, or a module's tensors disagree after the cut.
        UnsupportedError: a cut layer has no meaning for it.
    """
    touched: dict[str, nn.Module] = {}
    for (name, dim), indices in removed.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        touched[path] = module
        value = find_tensor(model, name)
        keep = [index for index in range(value.shape[dim]) if index not in indices]
        if not keep:
            raise ConfigError(f"the prune plan leaves nothing of '{name}' on axis {dim}.")
        cut = value.detach().index_select(dim, torch.tensor(keep, device=value.device))
        if isinstance(value, nn.Parameter):
            setattr(module, leaf, nn.Parameter(cut, requires_grad=value.requires_grad))
        else:
            setattr(module, leaf, cut)
    for path, module in touched.items():
        _update_attributes(path, module)


def follow(model: nn.Module, plan: PrunePlan) -> dict[str, int]:
    """Computes what becomes of the stored integers that follow groups: new = old * kept / channels, for every group.

    Attention with a fused projection stores its widths from now on (:mod:`svitkit.models.attention`).

    Args:
        model: the network before the removal; only attention that is to store widths changes.
        plan: what will be removed.

    Returns:
        New values by qualified name.

    Raises:
        ConfigError: the network has no such integer, or it would become a fraction.
    """
    factors: dict[str, Fraction] = {}
    for pruned in plan.groups:
        for name in pruned.group.attributes:
            share = Fraction(len(pruned.kept), pruned.group.channels)
            factors[name] = factors.get(name, Fraction(1)) * share
    values: dict[str, int] = {}
    for name, factor in factors.items():
        new = _stored_integer(model, name) * factor
        if new.denominator != 1:
            raise ConfigError(f"'{name}' would become {float(new):g}: the prune plan does not fit the network.")
        values[name] = int(new)
    return values


def _stored_integer(model: nn.Module, name: str) -> int:
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    if isinstance(module, FreeSelfAttention | FreeQKAttention):
        module.separate()
    value = getattr(module, leaf, None)
    if type(value) is not int:
        raise ConfigError(f"the network stores no integer '{name}'. Was the prune plan made for another network?")
    return value


def _update_attributes(path: str, module: nn.Module) -> None:
    if isinstance(module, _ConvTransposeNd):
        raise UnsupportedError(f"layer '{path}' ({type(module).__name__}): transposed convolutions cannot be pruned.")
    if isinstance(module, _ConvNd):
        _update_conv(path, module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
        _check_lengths(path, module.out_features, bias=module.bias)
    elif isinstance(module, _BatchNorm):
        lengths = [len(t) for t in (module.weight, module.running_mean) if t is not None]
        module.num_features = lengths[0]
        _check_lengths(
            path,
            module.num_features,
            weight=module.weight,
            bias=module.bias,
            running_mean=module.running_mean,
            running_var=module.running_var,
        )


def _update_conv(path: str, module: _ConvNd) -> None:
    out_channels, in_per_group = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if depthwise:
        multiplier = module.out_channels // module.groups
        if out_channels % multiplier or in_per_group != 1:
            raise ConfigError(f"layer '{path}': a depthwise convolution must keep {multiplier} outputs per input.")
        module.groups = out_channels // multiplier
    elif module.groups > 1:
        raise UnsupportedError(f"layer '{path}': a convolution with {module.groups} groups cannot be pruned.")
    module.out_channels = out_channels
    module.in_channels = in_per_group * module.groups
    _check_lengths(path, out_channels, bias=module.bias)


def _check_lengths(path: str, channels: int, **tensors: torch.Tensor | None) -> None:
    for name, value in tensors.items():
        if value is not None and len(value) != channels:
            raise ConfigError(
                f"layer '{path}': after the cut '{name}' has {len(value)} entries and the layer {channels} channels. "
                f"The prune group must name every tensor of the layer."
            )
