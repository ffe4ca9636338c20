from __future__ import annotations

from svitkit.compress.axes import Axes, merge, new_axes, regroup, take
from svitkit.compress.collect import Candidate, collect
from svitkit.compress.trace import TracedAxes
from svitkit.compress.values import Roles
from svitkit.models.plan import Member


def traced(axes: dict[str, Axes], reading: list[str], summed: Axes = ()) -> TracedAxes:
    """Weights by layer: those in ``reading`` read along axis 1, all others only produce along axis 0."""
    names = {f"{layer}.weight": value for layer, value in axes.items()}
    roles = Roles(
        producing=[(name, 0) for name in names],
        consuming=[(f"{layer}.weight", 1) for layer in reading],
        summed=[piece for axis in summed for piece in axis],
    )
    return TracedAxes(axes=names, roles=roles)


def by_name(candidates: list[Candidate]) -> dict[str, tuple[int, int, tuple[Member, ...]]]:
    return {c.group.name: (c.group.channels, c.group.blocks, c.group.members) for c in candidates}


def test_offsets_count_from_where_a_part_lies_and_inner_indices_belong_to_a_channel() -> None:
    fused, out, pixels = new_axes((30, 5)), new_axes((7, 40)), new_axes((2,))[0]
    first, second = take(fused[0], 0, 20), take(fused[0], 20, 30)
    assert first is not None
    assert second is not None
    merge((*first, *pixels), out[1])
    found = by_name(collect(traced({"fused": fused, "out": out}, ["out"], (second,)), heads=False))
    part = Member(tensor="fused.weight", dim=0, offsets=(0,))
    assert found["fused[0:20]"] == (20, 1, (part, Member(tensor="out.weight", dim=1, inner=2)))
    assert found["fused[20:30]"] == (10, 1, (Member(tensor="fused.weight", dim=0, offsets=(20,)),))


def test_heads_of_different_widths_share_one_group_with_an_inner_width_each() -> None:
    fused, out = new_axes((22, 5)), new_axes((7, 6))
    q, k, v = (take(fused[0], *ends) for ends in ((0, 8), (8, 16), (16, 22)))
    assert q is not None
    assert k is not None
    assert v is not None
    (heads, depth), (more, depths), (most, widths) = (
        regroup((part,), (2, len_)) for part, len_ in ((q, 4), (k, 4), (v, 3))
    )
    merge(heads, more)
    merge(heads, most)
    merge(depth, depths)
    merge((*most, *widths), out[1])
    found = by_name(collect(traced({"fused": fused, "out": out}, ["out"], (depth,)), heads=True))
    assert list(found) == ["fused heads", "fused[0:16]", "fused[16:22]"]
    channels, blocks, members = found["fused heads"]
    assert (channels, blocks) == (2, 1)
    assert members == (
        Member(tensor="fused.weight", dim=0, offsets=(0, 8), inner=4),
        Member(tensor="fused.weight", dim=0, offsets=(16,), inner=3),
        Member(tensor="out.weight", dim=1, offsets=(0,), inner=3),
    )
    assert found["fused[0:16]"][:2] == (8, 2)
    assert found["fused[16:22]"][:2] == (6, 2)


def test_a_width_inside_heads_that_are_interleaved_with_others_loses_the_same_channel_of_every_head() -> None:
    fused, out = new_axes((24, 5)), new_axes((7, 8))
    heads, inside = regroup((fused[0],), (2, 12))
    q, k, v = (take(inside, start, start + 4) for start in (0, 4, 8))
    assert q is not None
    assert k is not None
    assert v is not None
    merge(q, k)
    merge((*heads, *v), out[1])
    found = by_name(collect(traced({"fused": fused, "out": out}, ["out"], (q,)), heads=False))
    assert found["fused[0:20]"] == (4, 1, (Member(tensor="fused.weight", dim=0, offsets=(0, 4, 12, 16)),))
    rows = Member(tensor="fused.weight", dim=0, offsets=(8, 20))
    assert found["fused[8:24]"] == (4, 1, (rows, Member(tensor="out.weight", dim=1, offsets=(0, 4))))


def test_a_width_that_nothing_reads_is_no_group() -> None:
    assert collect(traced({"a": new_axes((4, 3))}, []), heads=False) == []
