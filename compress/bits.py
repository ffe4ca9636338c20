"""Bits of every layer as a candidate of a search, and the parts of a network that get them together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from svitkit.lif_integer import MembraneBits

WIDTHS = (8, 6, 4, 3, 2)


@dataclass(frozen=True, kw_only=True)
class BitPlan:
    """Bits as a candidate of a search.

    Attributes:
        layers: of the weights by layer, in the order of execution.
        membranes: of all membrane potentials; None where they are float32.
    """

    layers: tuple[tuple[str, int], ...]
    membranes: MembraneBits | None = None

    def bits(self) -> dict[str, int]:
        """Returns the bits by layer."""
        return dict(self.layers)

    def label(self) -> str:
        """Names the plan within a search: how many layers have how many bits, and a hash of all of it."""
        counts: dict[int, int] = {}
        for _, bits in self.layers:
            counts[bits] = counts.get(bits, 0) + 1
        digest = hashlib.sha256(json.dumps([self.layers, self.membranes]).encode()).hexdigest()
        membranes = f", membranes {self.membranes}" if self.membranes else ""
        return f"{' '.join(f'{counts[bits]}x{bits}' for bits in sorted(counts))} bits{membranes}, {digest[:16]}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Layers that get the same bits.

    Attributes:
        name: what their names begin with.
        layers: in the order of execution.
    """

    name: str
    layers: tuple[str, ...]


def blocks(layers: Sequence[str]) -> tuple[Part, ...]:
    """Divides layers into blocks: up to and with the first number of their names (``blocks.0``, ``stage1.2``).

    A layer without a number in its name belongs to the module that it is in, or to itself at the top.
    """
    return _parts(layers, {name: _block(name) for name in layers})


def stages(layers: Sequence[str]) -> tuple[Part, ...]:
    """Divides layers into stages: the blocks that lie in the same module."""
    return _parts(layers, {name: _stage(_block(name)) for name in layers})


def set_bits(plan: BitPlan, layers: Iterable[str], bits: int, floors: Mapping[str, int]) -> BitPlan:
    """Gives some layers other bits.

    Args:
        plan: the bits so far.
        layers: which.
        bits: the new bits.
        floors: bits that a layer has at least, by its name.
    """
    changed = set(layers)
    lowered = tuple(
        (name, max(bits, floors.get(name, 0)) if name in changed else before) for name, before in plan.layers
    )
    return replace(plan, layers=lowered)


def _block(name: str) -> str:
    words = name.split(".")
    numbers = [at for at, word in enumerate(words) if word.isdigit()]
    last = numbers[0] + 1 if numbers and numbers[0] + 1 < len(words) else max(len(words) - 1, 1)
    return ".".join(words[:last])


def _stage(block: str) -> str:
    words = block.split(".")
    return ".".join(words[:-1]) if len(words) > 1 and words[-1].isdigit() else words[0]


def _parts(layers: Sequence[str], names: Mapping[str, str]) -> tuple[Part, ...]:
    found: dict[str, list[str]] = {}
    for layer in layers:
        found.setdefault(names[layer], []).append(layer)
    return tuple(Part(name=name, layers=tuple(members)) for name, members in found.items())
