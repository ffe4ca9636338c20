"""The tokens that blocks compute as a candidate of a search."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from svitkit.models.spec import TokenReduction


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """Fewer tokens as a candidate of a search.

    Attributes:
        reductions: in the order of execution, at most one a block.
    """

    reductions: tuple[TokenReduction, ...] = ()

    def label(self) -> str:
        """Names the plan within a search: how many tokens every block keeps, and a hash of all of it."""
        kept = " ".join(f"{each.block}={each.kept}/{each.tokens}" for each in self.reductions)
        content = json.dumps([asdict(each) for each in self.reductions])
        return f"tokens {kept or 'whole'}, {hashlib.sha256(content.encode()).hexdigest()[:16]}"
