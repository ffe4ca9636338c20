"""Two prune plans in a row, as one in the numbering of the original network."""

from __future__ import annotations

from svitkit.errors import UnsupportedError
from svitkit.models.plan import PrunedGroup, PruneGroup, PrunePlan


def compose(earlier: PrunePlan | None, later: PrunePlan) -> PrunePlan:
    """Returns the plan that does to the original network what both plans do one after the other.

    Args:
        earlier: the plan that the network was already pruned by; None if it is the original.
        later: a plan in the numbering of the pruned network.

    Raises:
        UnsupportedError: a group of the later plan runs along other axes than the earlier plan's group of those axes.
    """
    known = {_axes(pruned.group): pruned for pruned in earlier.groups} if earlier else {}
    taken = {axis for axes in known for axis in axes}
    for pruned in later.groups:
        axes = _axes(pruned.group)
        before = known.get(axes)
        if before is None:
            if axes & taken:
                raise UnsupportedError(
                    f"group '{pruned.group.name}' shares axes with a group of the plan that the network was pruned by, "
                    f"but is not the same. Compress the original network instead."
                )
            known[axes] = pruned
            continue
        kept = tuple(before.kept[channel] for channel in pruned.kept)
        known[axes] = PrunedGroup(group=before.group, kept=kept)
    return PrunePlan(groups=tuple(known.values()))


def _axes(group: PruneGroup) -> frozenset[tuple[str, int]]:
    return frozenset((member.tensor, member.dim) for member in group.members)
