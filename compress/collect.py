"""From the traced axes to the groups that a removal could cut: widths between layers, and whole heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from svitkit.compress.axes import Axis, Piece, extent, undivided, whole
from svitkit.compress.trace import OUTPUT, TracedAxes
from svitkit.models.plan import Member, PruneGroup

MOST_OF_A_NAME = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A group that nothing was tried on yet.

    Attributes:
        group: the coupled axes.
        producers: the axes along which channels come into being: rows of weights, biases, batch norms.
        consumers: the axes along which they are read: columns of weights.
        pieces: what the channels consist of, heads before the channels of a head.
        heads: whether a channel of the group is a whole head.
    """

    group: PruneGroup
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    pieces: tuple[Piece, ...]
    heads: bool

    @property
    def residual(self) -> bool:
        """Whether skip connections add tensors along it."""
        return any(piece.skipped for piece in self.pieces)


@dataclass(frozen=True)
class _Chain:
    """Undivided pieces of an axis, outermost first; an axis has several where pieces lie side by side.

    Attributes:
        pieces: the pieces.
        strides: indices from one element of a piece to the next.
        starts: the index at which the first element of each piece lies.
        end: where a piece that stands inside all of them would begin.
    """

    pieces: tuple[Piece, ...] = ()
    strides: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    end: int = 0


_Spot = tuple[str, int, _Chain]


def collect(traced: TracedAxes, *, heads: bool) -> list[Candidate]:
    """Lists the widths between layers in the order of execution, heads joined with what is inside a head.

    A width between layers is produced by one, and read by another or summed over, as that of q and k is. Where an
    operator fixes a layer's width, so that no reader is known, that is listed too, except for the network's output.

    Args:
        traced: the axes of all parameters.
        heads: list the heads as groups of their own too, each before the widths inside it.
    """
    spots: dict[Piece, list[_Spot]] = {}
    for tensor, axes in traced.axes.items():
        for dim, axis in enumerate(axes):
            for chain in _chains(axis):
                for piece in chain.pieces:
                    spots.setdefault(piece, []).append((tensor, dim, chain))
    read = {*_pieces(traced, traced.roles.consuming), *undivided(traced.roles.summed)}
    between = [piece for role in traced.roles.producing for piece in _between(traced, role, read)]
    runs = {piece: _run(piece, spots[piece]) for piece in between}
    outer = {piece for run in runs.values() for piece in run[:-1]}
    found: dict[tuple[Piece, ...], Candidate] = {}
    for piece, run in runs.items():
        if piece in outer:
            continue
        if heads and len(run) > 1 and run[:-1] not in found:
            found[run[:-1]] = _describe(run[:-1], spots, traced, taken=_names(found), heads=True)
        found[run] = _describe(run, spots, traced, taken=_names(found), heads=False)
    return list(found.values())


def _between(traced: TracedAxes, role: tuple[str, int], read: set[Piece]) -> list[Piece]:
    """Pieces of an axis along which a layer produces: those that are read, or those that are fixed where none is."""
    pieces = list(undivided(traced.axis(*role)))
    return [p for p in pieces if p in read] or [p for p in pieces if p.fixed is not None and p.fixed != OUTPUT]


def _names(found: dict[tuple[Piece, ...], Candidate]) -> set[str]:
    return {candidate.group.name for candidate in found.values()}


def _pieces(traced: TracedAxes, roles: Iterable[tuple[str, int]]) -> dict[Piece, None]:
    """Lists the pieces along which tensors run in one of these roles, in the order of execution."""
    return {piece: None for tensor, dim in roles for piece in undivided(traced.axis(tensor, dim))}


def _chains(axis: Axis) -> list[_Chain]:
    chains, inner = [_Chain()], 1
    for factor in reversed(whole(axis)):
        heads = _side_by_side(factor) if factor.beside else [_Chain((factor,), (1,), (0,))]
        chains = [_join(head, chain, inner) for head in heads for chain in chains]
        inner *= factor.size
    return chains


def _side_by_side(factor: Piece) -> list[_Chain]:
    found, at = [], 0
    for part in factor.parts:
        for chain in _chains((part,)):
            starts = tuple(start + at for start in chain.starts)
            found.append(_Chain(chain.pieces, chain.strides, starts, chain.end + at))
        at += part.size
    return found


def _join(head: _Chain, tail: _Chain, inner: int) -> _Chain:
    """Puts one chain outside of another, whose whole axis has ``inner`` indices."""
    return _Chain(
        (*head.pieces, *tail.pieces),
        (*(stride * inner for stride in head.strides), *tail.strides),
        (*(start * inner for start in head.starts), *(start + head.end * inner for start in tail.starts)),
        head.end * inner + tail.end,
    )


def _run(piece: Piece, spots: Sequence[_Spot]) -> tuple[Piece, ...]:
    """Prepends the pieces that stand directly outside of ``piece`` wherever it occurs: its blocks."""
    run: tuple[Piece, ...] = (piece,)
    while True:
        before = {_outside(run[0], chain) for _, _, chain in spots}
        found = before.pop()
        if before or found is None or found in run:
            return run
        run = (found, *run)


def _outside(piece: Piece, chain: _Chain) -> Piece | None:
    """The piece whose elements follow each other where those of ``piece`` end, if there is one."""
    at = chain.pieces.index(piece)
    if not at or chain.strides[at - 1] != chain.strides[at] * piece.size:
        return None
    return chain.pieces[at - 1]


def _describe(
    run: tuple[Piece, ...],
    spots: dict[Piece, list[_Spot]],
    traced: TracedAxes,
    *,
    taken: set[str],
    heads: bool,
) -> Candidate:
    offsets: dict[tuple[str, int, int], set[int]] = {}
    for tensor, dim, chain in spots[run[-1]]:
        at = chain.pieces.index(run[0])
        outside = zip(chain.pieces[:at], chain.strides[:at], strict=True)
        steps = product(*(range(0, piece.size * stride, stride) for piece, stride in outside))
        inner = chain.strides[at + len(run) - 1]
        offsets.setdefault((tensor, dim, inner), set()).update(chain.starts[at] + sum(step) for step in steps)
    members = tuple(
        Member(tensor=tensor, dim=dim, offsets=tuple(sorted(starts)), inner=inner)
        for (tensor, dim, inner), starts in offsets.items()
    )
    channels = prod(piece.size for piece in run)
    name = _name(members, channels, traced, heads)
    name = next(n for n in (name, *(f"{name} ({at})" for at in range(2, MOST_OF_A_NAME))) if n not in taken)
    reading = set(traced.roles.consuming)
    return Candidate(
        group=PruneGroup(name=name, channels=channels, blocks=channels // run[-1].size, members=members),
        producers=tuple(member for member in members if (member.tensor, member.dim) not in reading),
        consumers=tuple(member for member in members if (member.tensor, member.dim) in reading),
        pieces=run,
        heads=heads,
    )


def _name(members: Sequence[Member], channels: int, traced: TracedAxes, heads: bool) -> str:
    """The layer that produces the channels, with its rows where they are not all of them."""
    along = {(member.tensor, member.dim) for member in members}
    tensor, dim = next(role for role in traced.roles.producing if role in along)
    layer = tensor.rpartition(".")[0]
    if heads:
        return f"{layer} heads"
    mine = [member for member in members if (member.tensor, member.dim) == (tensor, dim)]
    if sum(len(member.offsets) * channels * member.inner for member in mine) == extent(traced.axis(tensor, dim)):
        return layer
    first = min(offset for member in mine for offset in member.offsets)
    last = max(max(member.offsets) + channels * member.inner for member in mine)
    return f"{layer}[{first}:{last}]"
