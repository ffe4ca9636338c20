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
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from svitkit.compress.axes import Piece, whole
from svitkit.compress.mask import silence
from svitkit.compress.recalibrate import normalize_to
from svitkit.compress.trace import TracedAxes, trace_axes
from svitkit.errors import SvitError
from svitkit.models.attention import free_widths
from svitkit.models.neurons import neuron_layers
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.removal import find_tensor
from svitkit.models.run import forward_logits
from svitkit.models.size import FLOAT32_BYTES, parameter_bytes

PROBE_SEED = 0
TOLERANCE = 1e-6


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
        reason: why it cannot be pruned; None if it can.
    """

    group: PruneGroup
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    size_bytes: int = 0
    filter_bytes: int = 0
    residual: bool = False
    reason: str | None = None

    @property
    def prunable(self) -> bool:
        """Whether a test removal succeeded."""
        return self.reason is None


def find_groups(model: nn.Module, x: torch.Tensor, *, residual_widths: bool = False) -> tuple[FoundGroup, ...]:
    """Finds every group of a network, prunable or not, in the order of execution.

    Args:
        model: the network, in evaluation mode; it is not changed.
        x: (T, B, C, H, W) float32, an input of the right shape; its values do not matter.
        residual_widths: try the widths of residual streams too; else they count as not prunable.

    Raises:
        UnsupportedError: the network cannot be traced.
    """
    free = copy.deepcopy(model)
    free_widths(free)
    traced = trace_axes(free, x)
    probe = _Probe(free, x, residual_widths)
    return tuple(probe.judge(found, pieces) for found, pieces in _collect(traced))


def _collect(traced: TracedAxes) -> list[tuple[FoundGroup, list[Piece]]]:
    """Lists the widths between layers, heads joined with what is inside a head.

    A width between layers is produced by one and consumed by another, or produced by two and summed over in their
    product, as q and k are.
    """
    occurrences: dict[Piece, list[tuple[str, int, list[Piece]]]] = {}
    for tensor, axes in traced.axes.items():
        for dim, axis in enumerate(axes):
            pieces = whole(axis)
            for piece in pieces:
                occurrences.setdefault(piece, []).append((tensor, dim, pieces))
    produced = _pieces(traced, traced.roles.producing)
    consumed = _pieces(traced, traced.roles.consuming)
    between = [piece for piece, makers in produced.items() if piece in consumed or len(makers) > 1]
    runs = {piece: _run(piece, occurrences[piece]) for piece in between}
    outer = {piece for run in runs.values() for piece in run[:-1]}
    found: list[tuple[FoundGroup, list[Piece]]] = []
    for piece, run in runs.items():
        if piece not in outer:
            taken = {entry.group.name for entry, _ in found}
            found.append((_describe(run, occurrences[piece], traced, taken), run))
    return found


def _pieces(traced: TracedAxes, roles: list[tuple[str, int]]) -> dict[Piece, set[str]]:
    """Maps pieces to the tensors that run along them in one of these roles, in the order of execution."""
    found: dict[Piece, set[str]] = {}
    for tensor, dim in roles:
        for piece in whole(traced.axis(tensor, dim)):
            found.setdefault(piece, set()).add(tensor)
    return found


def _run(piece: Piece, places: list[tuple[str, int, list[Piece]]]) -> list[Piece]:
    """Prepends the pieces that stand directly outside of ``piece`` wherever it occurs: its blocks."""
    run = [piece]
    while True:
        before = set()
        for _, _, pieces in places:
            at = pieces.index(run[0])
            before.add(pieces[at - 1] if at else None)
        found = before.pop()
        if before or found is None:
            return run
        run.insert(0, found)


def _describe(
    run: list[Piece], places: list[tuple[str, int, list[Piece]]], traced: TracedAxes, taken: set[str]
) -> FoundGroup:
    channels = prod(piece.size for piece in run)
    members = []
    for tensor, dim, pieces in places:
        at = pieces.index(run[0])
        copies = prod(piece.size for piece in pieces[:at])
        inner = prod(piece.size for piece in pieces[at + len(run) :])
        offsets = tuple(index * channels * inner for index in range(copies))
        members.append(Member(tensor=tensor, dim=dim, offsets=offsets, inner=inner))
    reading = set(traced.roles.consuming)
    producers = tuple(member for member in members if (member.tensor, member.dim) not in reading)
    along = {(member.tensor, member.dim) for member in members}
    maker = next(tensor for tensor, dim in traced.roles.producing if (tensor, dim) in along).rpartition(".")[0]
    name = next(n for n in (maker, *(f"{maker} ({at})" for at in range(2, 100))) if n not in taken)
    group = PruneGroup(
        name=name,
        channels=channels,
        blocks=channels // run[-1].size,
        members=tuple(members),
    )
    consumers = tuple(member for member in members if (member.tensor, member.dim) in reading)
    return FoundGroup(group=group, producers=producers, consumers=consumers)


class _Probe:
    """Tries removals on a copy of the network in double precision whose neurons fire."""

    def __init__(self, model: nn.Module, x: torch.Tensor, residual_widths: bool) -> None:
        self.residual_widths = residual_widths
        generator = torch.Generator().manual_seed(PROBE_SEED)
        self.x = torch.randn(x.shape[0], 2, *x.shape[2:], generator=generator, dtype=torch.float64)
        self.model = copy.deepcopy(model).double().eval()
        normalize_to(self.model, [self.x])
        self.bytes = parameter_bytes(self.model, self.x)

    def judge(self, found: FoundGroup, pieces: list[Piece]) -> FoundGroup:
        """Completes a group with its size, or with the reason why it cannot be pruned."""
        residual = any(piece.skipped for piece in pieces)
        reason = _known_obstacle(found.group, pieces)
        if reason is None and residual and not self.residual_widths:
            reason = "a residual stream: skip connections add every layer of its stage along this width"
        size = 0
        if reason is None:
            reason, size = self._try_removal(found)
        filters = 0 if reason else self._filter_bytes(found)
        return replace(found, size_bytes=size, filter_bytes=filters, residual=residual, reason=reason)

    def _filter_bytes(self, found: FoundGroup) -> int:
        total = 0
        for member in found.producers:
            shape = find_tensor(self.model, member.tensor).shape
            if len(shape) >= 2:
                indices = len(member.offsets) * found.group.channels * member.inner
                total += FLOAT32_BYTES * indices * (shape.numel() // shape[member.dim])
        return total

    def _try_removal(self, found: FoundGroup) -> tuple[str | None, int]:
        """Removes a different channel from every block and compares with the network in which it is silent."""
        group = found.group
        width = group.channels // group.blocks
        gone = {block * width + block % width for block in range(group.blocks)}
        kept = tuple(channel for channel in range(group.channels) if channel not in gone)
        pruned = PrunedGroup(group=group, kept=kept)
        smaller = copy.deepcopy(self.model)
        silenced = silence(self.model, found.producers, pruned.removed())
        try:
            apply_plan(smaller, PrunePlan(groups=(pruned,)))
            got, wanted = _observe(smaller, self.x), _observe(silenced, self.x)
            saved = self.bytes - parameter_bytes(smaller, self.x)
        except SvitError as error:
            return f"a test removal failed: {error}", 0
        except Exception as error:  # the network's own forward may raise anything
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return f"the network's forward pass does not adapt to fewer channels: {first}", 0
        for name, value in wanted.items():
            if got[name].shape == value.shape and not torch.allclose(got[name], value, rtol=TOLERANCE, atol=TOLERANCE):
                return f"a test removal changes '{name}' more than silencing the same channels does", 0
        return None, saved * group.channels // len(gone)


def _observe(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Runs a network and returns the logits and what goes into every neuron and comes out of every other layer.

    Logits alone would not tell a difference where a later layer happens not to fire.
    """
    seen: dict[str, torch.Tensor] = {}
    neurons = neuron_layers(model)

    def keep(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = inputs[0] if name in neurons else output

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if name in neurons or isinstance(module, _ConvNd | nn.Linear)
    ]
    try:
        with torch.no_grad():
            seen["logits"] = forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _known_obstacle(group: PruneGroup, pieces: list[Piece]) -> str | None:
    for piece in pieces:
        if piece.fixed is not None:
            return f"its width is fixed: {piece.fixed}"
    if group.channels == group.blocks:
        return "it has one channel per block, and none to spare"
    return None
