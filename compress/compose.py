"""Two prune plans in a row, as one."""

from __future__ import annotations

from dataclasses import replace

from svitkit.models.plan import PrunePlan


def compose(earlier: PrunePlan | None, later: PrunePlan) -> PrunePlan:
    """Returns the plan that does to the original network what both plans do one after the other.

    Args:
        earlier: the plan that the network was already pruned by; None if it is the original.
        later: a plan in the numbering of the pruned network.
    """
    if earlier is None or not later.groups:
        return later if earlier is None else earlier
    return replace(later, before=earlier if later.before is None else compose(earlier, later.before))
