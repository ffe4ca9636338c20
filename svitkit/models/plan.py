"""Prune plans: which channels of a network are kept, and their physical removal.

A *group* is a set of channels that only make sense together: output channels of one layer, the batch norm behind it,
and the input channels of its consumers. A plan lists for each pruned group the channels that stay, in the numbering of
the network that is pruned. Pruning in several rounds gives a plan a round.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.dataclasses import dataclass

from svitkit.errors import ConfigError
from svitkit.manifest import STRICT, to_json

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Member:
    """One axis of one tensor that a group runs along.

    Channel ``c`` of the group owns the indices ``offset + c * inner + i`` for every offset and every ``i < inner``.

    Attributes:
        tensor: the parameter's or buffer's name in the state dict.
        dim: the axis.
        offsets: start of every copy of the channels (three for the output of a fused q, k, v projection).
        inner: indices per channel.
    """

    tensor: str
    dim: int = Field(ge=0)
    offsets: tuple[int, ...] = (0,)
    inner: int = Field(default=1, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PruneGroup:
    """Channels that are kept or removed together.

    Attributes:
        name: unique in the plan; by habit the layer that produces the channels.
        channels: how many there are.
        blocks: number of equal blocks of consecutive channels (attention heads) that must keep the same count.
        members: every axis the channels run along.
        attributes: qualified names of integers that modules of the network store (``blocks.0.attn.num_heads``) and that
            follow the number of channels in proportion.
    """

    name: str
    channels: int = Field(ge=1, le=1 << 20)
    blocks: int = Field(default=1, ge=1)
    members: tuple[Member, ...]
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrunedGroup:
    """A group and the channels that stay, ascending."""

    group: PruneGroup
    kept: tuple[int, ...]

    def removed(self) -> tuple[int, ...]:
        """Returns the channels that go, ascending."""
        return tuple(sorted(set(range(self.group.channels)) - set(self.kept)))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrunePlan:
    """Every pruned group of a network, at most one entry a group.

    Two groups may share axes if the channels of one are the blocks of the other: heads, and the widths inside them. A
    head that goes takes its channels along, whichever of them the other group keeps.

    Attributes:
        groups: what is removed.
        before: the plan that comes first, if the network was pruned before; the groups count in what it leaves.
    """

    groups: tuple[PrunedGroup, ...] = ()
    before: PrunePlan | None = None


def plan_sha256(plan: PrunePlan) -> str:
    """Returns the SHA-256 of the plan's JSON as 64 hexadecimal digits."""
    return hashlib.sha256(to_json(plan, PrunePlan).encode()).hexdigest()


def check_plan(plan: PrunePlan) -> None:
    """Checks what can be checked without a network.

    Raises:
        ConfigError: a group appears twice, keeps nothing, keeps channels that are not sorted or do not exist, or its
            blocks do not divide the channels or keep unequal counts.
    """
    names = [pruned.group.name for pruned in plan.groups]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the prune plan lists group '{name}' twice. Compose the entries into one.")
    for pruned in plan.groups:
        _check_group(pruned)
    if plan.before is not None:
        check_plan(plan.before)


def _check_group(pruned: PrunedGroup) -> None:
    group, kept = pruned.group, pruned.kept
    where = f"prune group '{group.name}'"
    if not kept:
        raise ConfigError(f"{where} keeps no channel. Keep at least one.")
    if list(kept) != sorted(set(kept)):
        raise ConfigError(f"{where}: the kept channels must ascend without repetition, got {kept[:8]}...")
    if kept[0] < 0 or kept[-1] >= group.channels:
        raise ConfigError(f"{where} keeps channel {kept[0] if kept[0] < 0 else kept[-1]} of {group.channels}.")
    if group.channels % group.blocks:
        raise ConfigError(f"{where}: {group.channels} channels do not divide into {group.blocks} blocks.")
    size = group.channels // group.blocks
    counts = Counter(channel // size for channel in kept)
    if len(counts) < group.blocks or len(set(counts.values())) > 1:
        got = [counts[block] for block in range(min(group.blocks, 64))]
        raise ConfigError(f"{where}: its {group.blocks} blocks must keep equally many channels, got {got}.")


def apply_plan(model: nn.Module, plan: PrunePlan) -> None:
    """Removes a plan's channels from a network, in place.

    Parameters and buffers become smaller tensors; ``in_channels``, ``out_channels``, ``groups``, ``in_features``,
    ``out_features`` and ``num_features`` follow, and attention of spikingjelly takes any inner width
    (:mod:`svitkit.models.attention`).

    Args:
        model: the network that the plan was made for; for a plan with rounds before it, as its family builds it.
        plan: the channels to keep.

    Raises:
        ConfigError: the plan is inconsistent or does not fit the network.
        UnsupportedError: the plan cuts a layer that cannot be cut (a grouped, not depthwise, convolution).
    """
    from svitkit.models.attention import free_widths
    from svitkit.models.removal import follow, remove_indices

    check_plan(plan)
    if plan.before is not None:
        apply_plan(model, plan.before)
    free_widths(model)
    following = follow(model, plan)
    remove_indices(model, removed_indices(model, plan))
    for name, value in following.items():
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, value)


def removed_indices(model: nn.Module, plan: PrunePlan) -> dict[tuple[str, int], set[int]]:
    """Returns for (tensor name, axis) the indices that a plan removes, whatever came before it.

    Raises:
        ConfigError: a group reaches beyond a tensor, or two groups own the same index.
    """
    removed: dict[tuple[str, int], set[int]] = {}
    owners: dict[tuple[str, int], list[tuple[PruneGroup, set[int]]]] = {}
    for pruned in plan.groups:
        group = pruned.group
        for member in group.members:
            _check_extent(model, group, member)
            where = (member.tensor, member.dim)
            owned = _indices(member, range(group.channels))
            for other, taken in owners.get(where, []):
                if taken & owned and other is not group and not (_nested(group, other) or _nested(other, group)):
                    raise ConfigError(
                        f"two prune groups, '{other.name}' and '{group.name}', own the same index of "
                        f"'{member.tensor}', axis {member.dim}."
                    )
            owners.setdefault(where, []).append((group, owned))
            removed.setdefault(where, set()).update(_indices(member, pruned.removed()))
    return removed


def _indices(member: Member, channels: Iterable[int]) -> set[int]:
    return {
        offset + channel * member.inner + i
        for offset in member.offsets
        for channel in channels
        for i in range(member.inner)
    }


def _nested(heads: PruneGroup, widths: PruneGroup) -> bool:
    """Whether the channels of one group are the blocks of the other, wherever the other runs."""
    size = widths.channels // widths.blocks
    starts = {(m.tensor, m.dim, offset, m.inner) for m in heads.members for offset in m.offsets}
    inside = {(m.tensor, m.dim, offset, m.inner * size) for m in widths.members for offset in m.offsets}
    return widths.blocks == heads.channels and inside <= starts


def _check_extent(model: nn.Module, group: PruneGroup, member: Member) -> None:
    from svitkit.models.removal import find_tensor

    shape = tuple(find_tensor(model, member.tensor).shape)
    where = f"prune group '{group.name}', tensor '{member.tensor}' of shape {shape}"
    if member.dim >= len(shape):
        raise ConfigError(f"{where}: there is no axis {member.dim}.")
    if not member.offsets or min(member.offsets) < 0:
        raise ConfigError(f"{where}: offsets must be zero or more, got {member.offsets}.")
    end = max(member.offsets) + group.channels * member.inner
    if end > shape[member.dim]:
        raise ConfigError(
            f"{where}: the group reaches index {end - 1} on axis {member.dim}. Was it made for this network?"
        )
