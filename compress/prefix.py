"""Candidates of one network share what runs before their first difference: its outputs are kept and used again.

Removing channels of a late layer leaves everything before it as it was. While a candidate runs, the outputs of the
outermost modules that end before the layers it varies are kept, by module, batch, and a hash of all that they depend on
(:mod:`svitkit.compress.usage`). Another candidate with the same hash gets the outputs and does not run the modules.
Outputs are kept as bytes where that is exact, as for spikes, and in their memory format, so that what follows computes
the same bits.

A module may do what its output does not show, such as change its input in place. So, before the outputs of a set of
modules stand in for them for the first time, two samples are run with and without; if logits differ, nothing is kept.
"""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from svitkit.compress.usage import Usage, content_keys, observe
from svitkit.models.plan import PrunePlan
from svitkit.models.run import forward_logits

MOST_BYTES = 2 << 30
PROBE_SAMPLES = 2
Key = tuple[str, bytes]
Structure = tuple[type[nn.Module], ...]


def spare_bytes(processes: int = 1) -> int:
    """Returns how much memory kept outputs may take: a quarter of what is free, at most 2 GiB.

    Args:
        processes: how many on this machine share that.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(MOST_BYTES, free // 4) // processes


class _Packed:
    """A copy of a tensor, in bytes where that is exact."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._kind = tensor.dtype
        self._held = tensor.to(torch.uint8) if tensor.is_floating_point() else tensor.clone()
        if not torch.equal(self._held.to(tensor.dtype), tensor):
            self._held = tensor.clone()
        self.size_bytes = self._held.numel() * self._held.element_size()

    def tensor(self) -> torch.Tensor:
        """Returns a copy that a network may change."""
        return self._held.to(self._kind, copy=True)


class Prefix:
    """Runs candidates on batches that stay the same."""

    def __init__(
        self,
        inputs: Sequence[torch.Tensor],
        limit_bytes: int,
        ignored: Callable[[nn.Module], frozenset[str]] | None = None,
    ) -> None:
        """Keeps nothing yet.

        Args:
            inputs: batches of (T, B, C, H, W) float32.
            limit_bytes: what kept outputs may take; what was not used for longest goes first.
            ignored: names a network's parameters and buffers whose values make no difference to any output; None if
                all do.
        """
        self.inputs = inputs
        self.limit_bytes = limit_bytes
        self.ignored = ignored
        self.size_bytes = 0
        self._usages: dict[Structure, Usage] = {}
        self._kept: OrderedDict[Key, dict[int, _Packed]] = OrderedDict()
        self._verdicts: dict[tuple[Structure, frozenset[str]], bool] = {}

    def start(self, model: nn.Module, plan: PrunePlan) -> Pass:
        """Begins to run a candidate.

        Args:
            model: the candidate, in evaluation mode or with batch norms in training.
            plan: what it lacks; the next candidates are expected to differ in its last group.
        """
        structure = _structure(model)
        if structure not in self._usages:
            self._usages[structure] = observe(copy.deepcopy(model).eval(), self.inputs[0][:, :PROBE_SAMPLES])
        return Pass(self, model, self._usages[structure], plan)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leaves what was kept behind: a copy in another process finds it out for itself."""
        return Prefix, (self.inputs, self.limit_bytes, self.ignored)

    def clear(self) -> None:
        """Forgets all outputs."""
        self._kept.clear()
        self.size_bytes = 0

    def find(self, key: Key, at: int) -> _Packed | None:
        """Returns a module's output for batch ``at``."""
        kept = self._kept.get(key, {}).get(at)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: Key, at: int, output: _Packed, needed: frozenset[Key]) -> bool:
        """Keeps an output if there is room, or can be made without those that are needed now; tells whether it did."""
        while self.size_bytes + output.size_bytes > self.limit_bytes:
            oldest = next((known for known in self._kept if known not in needed), None)
            if oldest is None:
                return False
            self.size_bytes -= sum(packed.size_bytes for packed in self._kept.pop(oldest).values())
        self._kept.setdefault(key, {})[at] = output
        self._kept.move_to_end(key)
        self.size_bytes += output.size_bytes
        return True

    def trusts(self, model: nn.Module, names: Sequence[str]) -> bool:
        """Whether modules can be replaced by their outputs; two samples are run to find out."""
        known = _structure(model), frozenset(names)
        if known not in self._verdicts:
            probe, x = copy.deepcopy(model).eval(), self.inputs[0][:, :PROBE_SAMPLES]
            with torch.no_grad():
                with _watched(probe, names) as outputs:
                    wanted = forward_logits(probe, x)
                with _replaced(probe, outputs):
                    got = forward_logits(probe, x)
            self._verdicts[known] = torch.equal(got, wanted)
            if not self._verdicts[known]:
                self.limit_bytes = 0
                self.clear()
        return self._verdicts[known]


class Pass:
    """One candidate on its way through the batches.

    Attributes:
        used: modules that did not run for some batch, with the content that they have.
        kept: modules whose outputs this candidate was the first to give for some batch.
    """

    def __init__(self, prefix: Prefix, model: nn.Module, usage: Usage, plan: PrunePlan) -> None:
        self._prefix, self._model, self._usage = prefix, model, usage
        self._keys = content_keys(model, usage, prefix.ignored(model) if prefix.ignored else frozenset())
        varied = plan.groups[-1].group.members if plan.groups else ()
        horizon = min((usage.reads.get(member.tensor, 0) for member in varied), default=0)
        self._shared = usage.outermost(model, lambda name: usage.ends[name] < horizon)
        self.used: set[Key] = set()
        self.kept: set[Key] = set()

    def logits(self, at: int) -> torch.Tensor:
        """Returns (B, classes), the logits for batch ``at``."""
        x = self._prefix.inputs[at]
        if not self._prefix.limit_bytes:
            return forward_logits(self._model, x)
        found = {name: kept for name in self._keys if (kept := self._prefix.find(self._key(name), at)) is not None}
        names = self._usage.outermost(self._model, found.__contains__)
        if names and not self._prefix.trusts(self._model, names):
            names = []
        missing = [name for name in self._shared if name not in names]
        with (
            _replaced(self._model, {name: found[name] for name in names}),
            _watched(self._model, missing) as outputs,
        ):
            logits = forward_logits(self._model, x)
        self.used |= {self._key(name) for name in names}
        needed = frozenset(self._key(name) for name in (*names, *self._shared))
        for name, output in outputs.items():
            if self._prefix.keep(self._key(name), at, output, needed):
                self.kept.add(self._key(name))
        return logits

    def _key(self, name: str) -> Key:
        return name, self._keys[name]


def _structure(model: nn.Module) -> Structure:
    return tuple(type(module) for module in model.modules())


@contextmanager
def _watched(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, _Packed]]:
    """Yields a dict that fills with what modules return."""
    outputs: dict[str, _Packed] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        return lambda _module, _inputs, output: outputs.__setitem__(name, _Packed(output))

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replaced(model: nn.Module, outputs: Mapping[str, _Packed]) -> Iterator[None]:
    """Lets modules return what is given and do nothing."""
    modules = {name: model.get_submodule(name) for name in outputs}
    before: dict[str, Any] = {name: vars(module).get("forward") for name, module in modules.items()}
    for name, module in modules.items():
        module.forward = lambda *_, output=outputs[name], **__: output.tensor()
    try:
        yield
    finally:
        for name, module in modules.items():
            del module.forward
            if before[name] is not None:
                module.forward = before[name]
