"""Widths that can only change together: their forward pass uses one number for all of them.

``q.reshape(T, B, N, heads, C // heads)`` with the C of the token stream holds the widths inside the attention to that
of the stream, and a stored ``head_dim`` those of q and k to that of v, though no channel of one belongs to a channel of
the other. Where test removals of such widths fail one by one, they are tried as one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

from svitkit.compress.collect import Candidate
from svitkit.models.plan import Member


def sets_to_join(failed: Sequence[Candidate]) -> list[tuple[Candidate, ...]]:
    """Returns which candidates to try together: those of one width in one module, the innermost modules first.

    Args:
        failed: candidates whose test removal failed, in the order of execution; no heads.

    Returns:
        Sets of two and more; the later ones hold earlier ones.
    """
    inside: dict[tuple[tuple[str, ...], int], list[Candidate]] = {}
    for candidate in failed:
        path = candidate.producers[0].tensor.split(".")[:-2]
        for depth in range(len(path) + 1):
            inside.setdefault((tuple(path[:depth]), candidate.group.channels), []).append(candidate)
    deepest_first = sorted(inside, key=lambda where: -len(where[0]))
    return list(dict.fromkeys(tuple(inside[where]) for where in deepest_first if len(inside[where]) > 1))


def join(candidates: Sequence[Candidate]) -> Candidate:
    """Makes one group of several of one width: channel c of it is channel c of each.

    Args:
        candidates: two and more; the first gives its name.
    """
    group = candidates[0].group
    return Candidate(
        group=replace(
            group,
            name=f"{group.name} and {len(candidates) - 1} more",
            blocks=lcm(*(candidate.group.blocks for candidate in candidates)),
            members=_unite([candidate.group.members for candidate in candidates]),
        ),
        producers=_unite([candidate.producers for candidate in candidates]),
        consumers=_unite([candidate.consumers for candidate in candidates]),
        pieces=tuple(piece for candidate in candidates for piece in candidate.pieces),
        heads=False,
    )


def _unite(members: Sequence[Sequence[Member]]) -> tuple[Member, ...]:
    """Lists members, the offsets along one axis of a tensor together."""
    offsets: dict[tuple[str, int, int], set[int]] = {}
    for member in (member for some in members for member in some):
        offsets.setdefault((member.tensor, member.dim, member.inner), set()).update(member.offsets)
    return tuple(
        Member(tensor=tensor, dim=dim, offsets=tuple(sorted(starts)), inner=inner)
        for (tensor, dim, inner), starts in offsets.items()
    )
