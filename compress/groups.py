"""Prune groups, found from the traced graph and proven by a test removal.

The graph gives the widths that are independent of each other and every tensor axis that a width runs along
(:mod:`svitkit.compress.trace`). A width that one layer produces and another consumes is a group. Whether the network's
own forward pass adapts to a smaller width cannot be read off a graph (a head size may be a constant of the code), so
every group is tried: one channel per block is removed, and the smaller network must compute what the original computes
with those channels silenced.

Why not Torch-Pruning's ``DependencyGraph`` (1.6.1, tried on the three families): it follows autograd's graph into the
LIF, takes the ``unbind`` over time for a division of the channels, and so couples channel 0 of an MLP with channel C/T,
and in the Spike-driven Transformer with channel C, which does not exist. With the LIFs replaced by plain elementwise
functions convolutions, MLPs and residual additions come out right, but not attention: the fused q, k, v projection of a
Spikformer is a group without its consumer, free to lose a channel of q alone; in QKFormer's third stage the indices of
the projection and of its batch norm disagree.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from spikingjelly.activation_based import functional
from torch import nn

from svitkit.compress.collect import Candidate, collect
from svitkit.compress.joint import join, sets_to_join
from svitkit.compress.probe import Probe, Verdict
from svitkit.compress.trace import trace_axes
from svitkit.models.attention import free_widths, separate_widths
from svitkit.models.plan import Member, PruneGroup

STREAM = "a residual stream: skip connections add every layer of its stage along this width"


@dataclass(frozen=True, kw_only=True)
class FoundGroup:
    """A group with what is known about it.

    Attributes:
        group: the coupled axes.
        producers: the axes along which channels come into being: rows of weights, biases, batch norms.
        consumers: the axes along which they are read: columns of weights.
        size_bytes: what its channels take in the deployed float32 parameters; 0 if it is not prunable.
        filter_bytes: the part of it in the weights that produce the channels; 0 if it is not prunable.
        residual: whether it is the width of a residual stream: skip connections add layers along it.
        heads: whether its channels are whole attention heads; the widths inside the heads are groups of their own.
        reason: why it cannot be pruned; None if it can.
    """

    group: PruneGroup
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    size_bytes: int = 0
    filter_bytes: int = 0
    residual: bool = False
    heads: bool = False
    reason: str | None = None

    @property
    def prunable(self) -> bool:
        """Whether a test removal succeeded."""
        return self.reason is None


def find_groups(
    model: nn.Module, x: torch.Tensor, *, residual_widths: bool = False, heads: bool = False
) -> tuple[FoundGroup, ...]:
    """Finds every group of a network, prunable or not, in the order of execution.

    Args:
        model: the network, in evaluation mode; it is not changed, except that its neurons forget their state.
        x: (T, B, C, H, W) float32, an input of the right shape; its values do not matter.
        residual_widths: try the widths of residual streams too; else they count as not prunable, and so do widths that
            can only change together with one.
        heads: list whole attention heads as groups too. One plan may hold both the heads and the widths inside them.

    Raises:
        UnsupportedError: the network cannot be traced.
    """
    functional.reset_net(model)  # potentials that gradients hang on cannot be copied
    free = copy.deepcopy(model)
    free_widths(free)
    separate_widths(free)
    probe = Probe(free, x)
    found = {
        candidate: _judge(candidate, probe, residual_widths) for candidate in collect(trace_axes(free, x), heads=heads)
    }
    _join_failed(found, probe)
    return tuple(dict.fromkeys(found.values()))


def _judge(candidate: Candidate, probe: Probe, residual_widths: bool) -> FoundGroup:
    """Completes a group with its size, or with the reason why it cannot be pruned."""
    reason = _known_obstacle(candidate)
    if reason is None and candidate.residual and not residual_widths:
        reason = STREAM
    return _describe(candidate, Verdict(group=candidate.group, reason=reason) if reason else probe.judge(candidate))


def _join_failed(found: dict[Candidate, FoundGroup], probe: Probe) -> None:
    """Tries widths together that failed one by one, and puts what succeeds in the place of each of them."""
    failed = [c for c, group in found.items() if group.reason not in (None, STREAM, _known_obstacle(c)) and not c.heads]
    for together in sets_to_join(failed):
        rest = [candidate for candidate in together if not found[candidate].prunable]
        if len(rest) > 1:
            candidate = join(rest)
            verdict = probe.judge(candidate)
            if verdict.reason is None:
                found.update(dict.fromkeys(rest, _describe(candidate, verdict)))


def _describe(candidate: Candidate, verdict: Verdict) -> FoundGroup:
    return FoundGroup(
        group=verdict.group,
        producers=candidate.producers,
        consumers=candidate.consumers,
        size_bytes=verdict.size_bytes,
        filter_bytes=verdict.filter_bytes,
        residual=candidate.residual,
        heads=candidate.heads,
        reason=verdict.reason,
    )


def _known_obstacle(candidate: Candidate) -> str | None:
    for piece in candidate.pieces:
        if piece.fixed is not None:
            return f"its width is fixed: {piece.fixed}"
    if candidate.group.channels == candidate.group.blocks:
        return "it has one channel per block, and none to spare"
    return None
