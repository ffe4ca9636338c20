"""Values of the traced graph, as the rules of the operators see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from svitkit.compress.axes import Axes, Piece

Given = dict[str, Any]
Rule = Callable[["Roles", Given, Sequence[int]], Axes]


@dataclass(frozen=True, eq=False, kw_only=True)
class Tensor:
    """A value of the traced graph.

    Attributes:
        axes: its axes.
        parameter: its name in the state dict, if it is a parameter or buffer.
        ancestors: the computed values that it depends on, itself among them, by node name.
    """

    axes: Axes
    parameter: str | None = None
    ancestors: frozenset[str] = frozenset()


@dataclass
class Roles:
    """Which axes of which parameters produce channels, which consume them, and what is summed without a parameter."""

    producing: list[tuple[str, int]] = field(default_factory=list)
    consuming: list[tuple[str, int]] = field(default_factory=list)
    summed: list[Piece] = field(default_factory=list)


def tensors(given: Given) -> list[Tensor]:
    """Lists the tensors among an operator's arguments."""
    flat: list[Tensor] = []
    for value in given.values():
        flat.extend(
            item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, Tensor)
        )
    return flat
