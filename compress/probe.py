"""Test removals: whether a network's own forward pass adapts to fewer channels, and computes what silence gives.

Whether it does cannot be read off a graph (a head size may be a constant of the code), so it is tried: one channel per
block is removed, and the smaller network must compute what the original computes with those channels silenced. Where
it does not, the integers that its modules store (``num_heads``, ``head_dim``) may be what is in the way: those that
equal a width of the group are tried as followers of the group.

The neurons of the copy pass real numbers on: where they happened not to fire, a difference could not be seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.neuron import BaseNode
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from svitkit.compress.collect import Candidate
from svitkit.compress.mask import silence
from svitkit.compress.recalibrate import normalize_to
from svitkit.errors import SvitError
from svitkit.models.neurons import neuron_layers
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.removal import find_tensor
from svitkit.models.run import forward_logits
from svitkit.models.size import FLOAT32_BYTES, parameter_bytes

PROBE_SEED = 0
TOLERANCE = 1e-6
MANY_KINDS = 6


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a test removal showed.

    Attributes:
        group: the group, with the attributes that follow it.
        size_bytes: what its channels take in the deployed float32 parameters; 0 if it is not prunable.
        filter_bytes: the part of it in the weights that produce the channels; 0 if it is not prunable.
        reason: why it cannot be pruned; None if it can.
    """

    group: PruneGroup
    size_bytes: int = 0
    filter_bytes: int = 0
    reason: str | None = None


class _Smooth(nn.Module):
    """Stands in for a layer of neurons: y = x / (1 + |x|), and what the neurons fire when there is no input."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (T, ...) currents to as many real numbers."""
        functional.reset_net(self.neuron)
        rest: torch.Tensor = self.neuron(x.new_zeros(len(x), 1))
        return x / (1 + x.abs()) + rest.reshape(-1, *[1] * (x.ndim - 1))


class Probe:
    """Tries removals on a copy of a network in double precision."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        """Prepares the copy.

        Args:
            model: the network, in evaluation mode; it is not changed.
            x: (T, B, C, H, W) float32, an input of the right shape; its values do not matter.
        """
        generator = torch.Generator().manual_seed(PROBE_SEED)
        self.x = torch.randn(x.shape[0], 2, *x.shape[2:], generator=generator, dtype=torch.float64)
        self.model = copy.deepcopy(model).double().eval()
        for name, neuron in neuron_layers(self.model).items():
            path, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(path), leaf, _Smooth(neuron))
        normalize_to(self.model, [self.x])
        self.bytes = parameter_bytes(self.model, self.x)

    def judge(self, candidate: Candidate) -> Verdict:
        """Removes a different channel from every block and compares with the network in which it is silent."""
        group = candidate.group
        width = group.channels // group.blocks
        gone = {block * width + block % width for block in range(group.blocks)}
        kept = tuple(channel for channel in range(group.channels) if channel not in gone)
        wanted = _observe(silence(self.model, candidate.producers, sorted(gone)), self.x)
        reasons = []
        for attributes in _guesses(self.model, group):
            following = replace(group, attributes=attributes)
            reason, saved = self._compare(PrunedGroup(group=following, kept=kept), wanted)
            if reason is None:
                size, filters = saved * group.channels // len(gone), self._filter_bytes(group, candidate.producers)
                return Verdict(group=following, size_bytes=size, filter_bytes=filters)
            reasons.append(reason)
        return Verdict(group=group, reason=reasons[0])

    def _compare(self, pruned: PrunedGroup, wanted: dict[str, torch.Tensor]) -> tuple[str | None, int]:
        """Returns what speaks against a removal, and the bytes that it saves."""
        smaller = copy.deepcopy(self.model)
        try:
            apply_plan(smaller, PrunePlan(groups=(pruned,)))
            got = _observe(smaller, self.x)
            saved = self.bytes - parameter_bytes(smaller, self.x)
        except SvitError as error:
            return f"a test removal failed: {error}", 0
        except Exception as error:  # the network's own forward may raise anything
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return f"the network's forward pass does not adapt to fewer channels: {first}", 0
        for name, value in wanted.items():
            if got[name].shape == value.shape and not torch.allclose(got[name], value, rtol=TOLERANCE, atol=TOLERANCE):
                return f"a test removal changes '{name}' more than silencing the same channels does", 0
        return None, saved

    def _filter_bytes(self, group: PruneGroup, producers: Sequence[Member]) -> int:
        total = 0
        for member in producers:
            shape = find_tensor(self.model, member.tensor).shape
            if len(shape) >= 2:
                indices = len(member.offsets) * group.channels * member.inner
                total += FLOAT32_BYTES * indices * (shape.numel() // shape[member.dim])
        return total


def _guesses(model: nn.Module, group: PruneGroup) -> Iterator[tuple[str, ...]]:
    """Yields the attributes that may have to follow a group: none, those of one kind, of two or three kinds, all."""
    kinds = list(_width_attributes(model, group).values())
    yield ()
    for count in sorted({1, 2, 3, len(kinds)} if len(kinds) <= MANY_KINDS else {1, len(kinds)}):
        for chosen in combinations(kinds, count):
            yield tuple(name for kind in chosen for name in kind)


def _width_attributes(model: nn.Module, group: PruneGroup) -> dict[tuple[type, str], list[str]]:
    """Finds integers that equal a width of a group in the modules around it, by class and attribute."""
    widths = {group.channels, group.channels // group.blocks}
    for member in group.members:
        indices = group.channels * member.inner
        widths |= {indices, indices * len(member.offsets), find_tensor(model, member.tensor).shape[member.dim]}
    paths = [member.tensor.split(".")[:-1] for member in group.members]
    shared = [steps[0] for steps in zip(*paths, strict=False) if len(set(steps)) == 1]
    found: dict[tuple[type, str], list[str]] = {}
    for path, module in model.named_modules():
        steps = path.split(".") if path else []
        near = all(a == b for a, b in zip(steps, shared, strict=False))
        if not near or isinstance(module, _ConvNd | nn.Linear | _BatchNorm | BaseNode):
            continue
        for name, value in vars(module).items():
            if type(value) is int and value > 1 and value in widths:
                found.setdefault((type(module), name), []).append(".".join([*steps, name]))
    return found


def _observe(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Runs a network and returns the logits and what goes into every neuron and comes out of every other layer."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = inputs[0] if isinstance(module, _Smooth) else output

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if isinstance(module, _Smooth | _ConvNd | nn.Linear)
    ]
    try:
        with torch.no_grad():
            seen["logits"] = forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return seen
