"""Channels that single zeros have left without effect, and their physical removal.

A channel is dead if every weight that reads it is 0; or if every weight that produces it is 0, so that its current is
constant, and that current never makes its neurons fire. Where nothing but a product of spikes reads it (queries and
keys), the second condition is left to the proof: the network without the dead channels must fire as before on
calibration images, spike for spike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from svitkit.compress.compose import compose
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.removal import find_tensor
from svitkit.models.run import forward_spikes

PASSES = 4
"""A removal may leave channels before it without a reader; more passes than layers in a row find nothing."""
MULTIPLE = 16
"""What is left of a block divides by it, where it did before: kernels work on vectors, and a rest costs as much."""
TOLERANCE = 1e-4
"""Of logits: sums of fewer products round differently."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A network without dead channels.

    Attributes:
        model: the network; as it was, if nothing is dead.
        plan: what was removed, in the numbering of the network before.
        widths: channels before and after, by group.
    """

    model: nn.Module
    plan: PrunePlan
    widths: dict[str, tuple[int, int]]


def remove_dead_channels(model: nn.Module, x: torch.Tensor) -> Removal:
    """Removes what is dead, and proves it.

    Args:
        model: the network, in evaluation mode; it is not changed.
        x: (T, N, C, H, W) float32, calibration images, on which spikes are compared.
    """
    wanted = forward_spikes(model, x)
    done: PrunePlan | None = None
    widths: dict[str, tuple[int, int]] = {}
    for _ in range(PASSES):
        plan, smaller = _one_pass(model, x, wanted)
        if not plan.groups:
            break
        model, done, wanted = smaller, compose(done, plan), forward_spikes(smaller, x)
        for pruned in plan.groups:
            before = widths.get(pruned.group.name, (pruned.group.channels, 0))[0]
            widths[pruned.group.name] = before, len(pruned.kept)
    return Removal(model=model, plan=done or PrunePlan(), widths=widths)


def dead_channels(model: nn.Module, found: FoundGroup, active: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns (channels,) bool: which channels of a group seem to be without effect.

    Args:
        model: the network.
        found: the group.
        active: for every layer that reads channels (features,) bool: which inputs were ever not 0.
    """
    channels = found.group.channels
    matrices = [member for member in found.producers if find_tensor(model, member.tensor).ndim > 1]
    constant = ~_any_weight(model, matrices, channels)
    if not found.consumers:
        return constant
    unread = ~_any_weight(model, found.consumers, channels)
    return unread | (constant & ~_any_input(found.consumers, channels, active))


def _one_pass(
    model: nn.Module, x: torch.Tensor, wanted: tuple[torch.Tensor, dict[str, torch.Tensor]]
) -> tuple[PrunePlan, nn.Module]:
    """Removes the dead channels of one group after the other, as long as the network fires as before."""
    found = [group for group in find_groups(model, x[:, :1], residual_widths=True) if group.prunable]
    with _watched({member.tensor for group in found for member in group.consumers}, model) as active:
        forward_spikes(model, x)
    plan, smaller = PrunePlan(), model
    for group in found:
        pruned = _without(group.group, dead_channels(model, group, active))
        if pruned is None:
            continue
        tried = PrunePlan(groups=(*plan.groups, pruned))
        candidate = copy.deepcopy(model)
        apply_plan(candidate, tried)
        if _same(wanted, forward_spikes(candidate, x), pruned):
            plan, smaller = tried, candidate
    return plan, smaller


def _without(group: PruneGroup, dead: torch.Tensor) -> PrunedGroup | None:
    """Leaves dead channels out, of every block as many whole vectors of them; None if none can go."""
    blocks = dead.reshape(group.blocks, -1)
    width = blocks.shape[1]
    step = MULTIPLE if width % MULTIPLE == 0 else 1
    going = min(int(blocks.sum(1).min()), width - step) // step * step
    if going <= 0:
        return None
    kept: list[int] = []
    for block, row in enumerate(blocks):
        gone = set(row.nonzero().flatten().tolist()[-going:])
        kept += [block * width + channel for channel in range(width) if channel not in gone]
    return PrunedGroup(group=group, kept=tuple(kept))


def _same(
    wanted: tuple[torch.Tensor, dict[str, torch.Tensor]],
    got: tuple[torch.Tensor, dict[str, torch.Tensor]],
    pruned: PrunedGroup,
) -> bool:
    """Whether logits are equal but for rounding, and what is left of every layer of neurons fires as before."""
    if not torch.allclose(wanted[0], got[0], rtol=TOLERANCE, atol=TOLERANCE):
        return False
    kept = torch.tensor(pruned.kept)
    for name, spikes in got[1].items():
        before = wanted[1][name]
        if before.shape == spikes.shape:
            if not torch.equal(before, spikes):
                return False
            continue
        axes = [at for at in range(spikes.ndim) if before.shape[at] != spikes.shape[at]]
        if len(axes) == 1 and before.shape[axes[0]] == pruned.group.channels:
            before = before.index_select(axes[0], kept)
            if before.shape == spikes.shape and not torch.equal(before, spikes):
                return False
    return True


def _any_weight(model: nn.Module, members: Sequence[Member], channels: int) -> torch.Tensor:
    """(channels,) bool: whether any weight along the members is not 0."""
    found = torch.zeros(channels, dtype=torch.bool)
    for member in members:
        rows = find_tensor(model, member.tensor).detach().movedim(member.dim, 0).flatten(1) != 0
        found |= _by_channel(rows.any(1), member, channels)
    return found


def _any_input(members: Sequence[Member], channels: int, active: dict[str, torch.Tensor]) -> torch.Tensor:
    """(channels,) bool: whether any layer ever read something else than 0 there."""
    found = torch.zeros(channels, dtype=torch.bool)
    for member in members:
        inputs = active.get(member.tensor)
        if inputs is None or member.dim != 1:
            return torch.ones(channels, dtype=torch.bool)
        found |= _by_channel(inputs, member, channels)
    return found


def _by_channel(values: torch.Tensor, member: Member, channels: int) -> torch.Tensor:
    parts = [values[start : start + channels * member.inner].reshape(channels, -1).any(1) for start in member.offsets]
    return torch.stack(parts).any(0)


@contextmanager
def _watched(tensors: set[str], model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Notes for layers, by the names of their weights, which inputs were ever not 0."""
    active: dict[str, torch.Tensor] = {}

    def watch(tensor: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            axis = -1 if isinstance(module, nn.Linear) else 1 - find_tensor(module, "weight").ndim
            seen = (given[0] != 0).movedim(axis, 0).flatten(1).any(1)
            active[tensor] = active.get(tensor, torch.zeros_like(seen)) | seen

        return model.get_submodule(tensor.rpartition(".")[0]).register_forward_pre_hook(hook)

    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in tensors}
    handles = [watch(name) for name, layer in layers.items() if isinstance(layer, nn.Linear | _ConvNd)]
    try:
        yield active
    finally:
        for handle in handles:
            handle.remove()
