"""What every search is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from svitkit.compress.journal import Measurement


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The network before a search.

    Attributes:
        baseline: the network before this search.
        original_bytes: the network before any compression; savings refer to it.
    """

    baseline: Measurement
    original_bytes: int

    def saving(self, measurement: Measurement) -> float:
        """Returns the fraction of the original parameter bytes that a candidate saves."""
        return 1.0 - measurement.parameter_bytes / self.original_bytes
