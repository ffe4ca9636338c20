"""What became of every layer whose weights were rounded to integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from svitkit.manifest import STRICT
from svitkit.models.quantized import QuantizedWeight, stored_bytes

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LayerReport:
    """One layer.

    Attributes:
        name: its qualified name.
        bits: of a weight.
        weights: how many it has.
        size_bytes: of the integers and their scales, without the bias.
        why: why it has these bits.
    """

    name: str
    bits: int
    weights: int
    size_bytes: int
    why: str


def describe_layers(weights: Mapping[str, QuantizedWeight], reasons: Mapping[str, str]) -> tuple[LayerReport, ...]:
    """Says for every layer what it was rounded to.

    Args:
        weights: by layer, in the order of execution.
        reasons: why, by layer.
    """
    return tuple(
        LayerReport(
            name=name,
            bits=weight.bits,
            weights=weight.integers.size,
            size_bytes=stored_bytes(weight.integers.size, weight.bits) + weight.scale.nbytes,
            why=reasons[name],
        )
        for name, weight in weights.items()
    )


def reasons_of_uniform(weights: Mapping[str, QuantizedWeight], bits: int) -> dict[str, str]:
    """Returns the reasons where all layers were to have the same bits."""
    return {
        name: "as asked" if weight.bits == bits else "protected: the first or the last layer"
        for name, weight in weights.items()
    }


def add_layers(table: Table, layers: tuple[LayerReport, ...]) -> None:
    """Fills a table for the terminal."""
    table.add_column("layer", overflow="fold")
    for name in ("weights", "bits", "KiB"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    for layer in layers:
        table.add_row(layer.name, str(layer.weights), str(layer.bits), f"{layer.size_bytes / 1024:.1f}", layer.why)
