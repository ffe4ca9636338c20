"""How long work tells how far it has come."""

from __future__ import annotations

from typing import Protocol


class Advance(Protocol):
    """Told how far a stage has come."""

    def __call__(self, stage: str, done: float, total: float = 1.0, /) -> None:
        """Says that ``done`` of ``total`` parts of ``stage`` are finished."""
