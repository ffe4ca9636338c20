"""What a network's forward pass reads and when, observed once: the order of module calls and of first reads of tensors.

Two candidates of a search differ in a few tensors. Up to the first read of one of them they compute the same, and
whatever module has returned by then has returned the same. This holds for any class of network: time is counted in
operations that reach PyTorch's dispatcher, so it does not matter who reads a tensor, its own module or another.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from svitkit.models.run import forward_logits

NEVER = sys.maxsize
SCALARS = (bool, int, float, str, tuple)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A forward pass on a clock that every operation and every call of a module advances.

    Attributes:
        begins: when a module was first called, by qualified name.
        ends: when a module returned, if it was called once and returned one tensor.
        reads: when a parameter or buffer was first read, by qualified name; ``NEVER`` if it was not.
    """

    begins: dict[str, int]
    ends: dict[str, int]
    reads: dict[str, int]

    def outermost(self, model: nn.Module, fits: Callable[[str], bool]) -> list[str]:
        """Lists the modules that fit and lie in no other module that does.

        Args:
            model: a network of that structure.
            fits: asked for modules that were called once and returned one tensor.
        """
        found: list[str] = []
        stack = [(name, child) for name, child in model.named_children()]
        while stack:
            name, module = stack.pop()
            if name in self.ends and fits(name):
                found.append(name)
            else:
                stack.extend((f"{name}.{leaf}", child) for leaf, child in module.named_children())
        return found


class _Clock(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and notes when one first reads a tensor of the network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.reads: dict[str, int] = {}
        self._names: dict[int, list[str]] = {}
        for name, tensor in stored_tensors(model):
            self.reads[name] = NEVER
            if tensor.numel():
                self._names.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.now += 1
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                for name in self._names.get(value.untyped_storage().data_ptr(), ()):
                    self.reads[name] = min(self.reads[name], self.now)
        return func(*args, **(kwargs or {}))


def observe(model: nn.Module, x: torch.Tensor) -> Usage:
    """Runs a network once and notes the order of things.

    Args:
        model: the network, in evaluation mode; its parameters and buffers stay as they are.
        x: (T, B, C, H, W) float32, an input of the right shape; few samples are enough.
    """
    clock = _Clock(model)
    begins: dict[str, int] = {}
    ends: dict[str, int] = {}
    handles = []

    def begin(name: str) -> None:
        clock.now += 1
        if name in begins:
            ends[name] = NEVER
        begins.setdefault(name, clock.now)

    def end(name: str, output: object) -> None:
        clock.now += 1
        ends.setdefault(name, clock.now if isinstance(output, torch.Tensor) else NEVER)

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _inputs, name=name: begin(name)))
        handles.append(module.register_forward_hook(lambda _module, _inputs, output, name=name: end(name, output)))
    try:
        with torch.no_grad(), clock:
            forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return Usage(begins=begins, ends={name: at for name, at in ends.items() if at != NEVER and name}, reads=clock.reads)


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields every parameter and buffer under every name that it has."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def content_keys(model: nn.Module, usage: Usage, ignored: frozenset[str]) -> dict[str, bytes]:
    """Says for every module what its output depends on beside the network's input.

    Args:
        model: a network of the structure that was observed, perhaps pruned.
        usage: what was observed.
        ignored: parameters and buffers whose values make no difference.

    Returns:
        For every module in ``usage.ends`` a hash of all tensors that are read, and of all numbers and words that the
        called modules hold, before it ends. What was not there to be observed counts from the call of its module.
    """
    events: list[tuple[int, int, str, Callable[[], bytes]]] = []
    for name, tensor in stored_tensors(model):
        at = usage.reads.get(name)
        at = _called(name.rpartition(".")[0], usage) if at is None else at
        if at != NEVER and name not in ignored:
            events.append((at, 0, name, lambda tensor=tensor: _bytes(tensor)))  # type: ignore[misc]
    for name, module in model.named_modules(remove_duplicate=False):
        events.append((_called(name, usage), 1, name, lambda module=module: _settings(module)))  # type: ignore[misc]
    events.extend((at, 2, name, bytes) for name, at in usage.ends.items())
    digest = hashlib.blake2b(digest_size=16)
    keys: dict[str, bytes] = {}
    for _, kind, name, content in sorted(events, key=lambda event: event[:3]):
        if kind == 2:
            keys[name] = digest.digest()
        else:
            digest.update(name.encode())
            digest.update(content())
    return keys


def _called(name: str, usage: Usage) -> int:
    """When a module is first called, or the nearest module around it that is."""
    while name and name not in usage.begins:
        name = name.rpartition(".")[0]
    return usage.begins.get(name, 0)


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return f"{tuple(tensor.shape)} {tensor.dtype}".encode() + flat.view(torch.uint8).numpy().tobytes()


def _settings(module: nn.Module) -> bytes:
    """Lists what a module holds beside parameters, buffers, other modules and its neurons' state."""
    held = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    values = {name: value for name, value in held.items() if isinstance(value, SCALARS)}
    tensors = [_bytes(value) for value in held.values() if isinstance(value, torch.Tensor)]
    return f"{type(module).__qualname__} {sorted(values.items())}".encode() + b"".join(tensors)
