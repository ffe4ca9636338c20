from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from svitkit.compress.collect import Candidate
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.compress.joint import join, sets_to_join
from svitkit.compress.mask import silence
from svitkit.models.liven import liven
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.run import forward_spikes
from tests.compress.networks import lif

X = torch.rand(4, 5, 1, 6, 6, generator=torch.Generator().manual_seed(2))


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Attention(nn.Module):
    """Separate projections; heads are cut by what ``numbers`` says: the stream's width, or a stored one."""

    def __init__(self, dim: int, heads: int, numbers: str) -> None:
        super().__init__()
        self.numbers, self.num_heads, self.head_dim, self.inner = numbers, heads, dim // heads, dim
        self.names = ("q", "k", "v")
        for name in self.names:
            self.add_module(name, nn.Sequential(nn.Linear(dim, dim, bias=False), Norm(dim), lif()))
        self.mixed = lif(v_threshold=0.5)
        self.out, self.out_norm, self.out_lif = nn.Linear(dim, dim), Norm(dim), lif()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch, tokens, width = x.shape
        size, inner = (width // self.num_heads, width) if self.numbers == "stream" else (self.head_dim, self.inner)
        q, k, v = (
            self.get_submodule(name)(x).reshape(steps, batch, tokens, self.num_heads, size).transpose(2, 3)
            for name in self.names
        )
        mixed = self.mixed(q @ (k.transpose(-2, -1) @ v)).transpose(2, 3).reshape(steps, batch, tokens, inner)
        return self.out_lif(self.out_norm(self.out(mixed)))


class Network(nn.Module):
    def __init__(self, numbers: str, dim: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patches, self.patches_norm, self.fire = nn.Linear(6, dim), Norm(dim), lif()
        self.blocks = nn.ModuleList(Attention(dim, heads, numbers) for _ in range(2))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fire(self.patches_norm(self.patches(x.flatten(2, 3))))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(2))


def groups(model: nn.Module, **options: bool) -> dict[str, FoundGroup]:
    return {found.group.name: found for found in find_groups(model, X, **options)}


def lively(numbers: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Network(numbers)
    liven(model, X)
    return model


def assert_equals_silence(model: nn.Module, found: FoundGroup) -> None:
    width = found.group.channels // found.group.blocks
    pruned = PrunedGroup(group=found.group, kept=tuple(c for c in range(found.group.channels) if c % width % 2))
    model = copy.deepcopy(model).double()
    smaller = copy.deepcopy(model)
    apply_plan(smaller, PrunePlan(groups=(pruned,)))
    wanted, _ = forward_spikes(silence(model, found.producers, pruned.removed()), X.double())
    got, spikes = forward_spikes(smaller, X.double())
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    assert sum(float(fired.mean()) > 0.01 for fired in spikes.values()) > 0.8 * len(spikes)


def test_widths_held_to_one_stored_number_are_one_group_in_every_block() -> None:
    model = lively("stored")
    found = groups(model)
    names = [f"blocks.{at}.q.0 and 1 more" for at in range(2)]
    assert [name for name, group in found.items() if group.prunable] == names
    for at, name in enumerate(names):
        assert (found[name].group.channels, found[name].group.blocks) == (12, 3)
        assert set(found[name].group.attributes) == {f"blocks.{at}.head_dim", f"blocks.{at}.inner"}
        assert_equals_silence(model, found[name])


def test_widths_held_to_the_stream_are_one_group_with_it() -> None:
    model = lively("stream")
    found = groups(model, residual_widths=True)
    assert [name for name, group in found.items() if group.prunable] == ["patches and 4 more"]
    stream = found["patches and 4 more"]
    assert stream.residual
    assert (stream.group.channels, stream.group.blocks, stream.group.attributes) == (12, 3, ())
    assert_equals_silence(model, stream)


def test_widths_held_to_the_stream_stay_where_it_stays() -> None:
    found = groups(lively("stream"))
    assert not any(group.prunable for group in found.values())
    assert "residual" in str(found["patches"].reason)
    assert "does not adapt" in str(found["blocks.0.q.0"].reason)


def candidate(tensor: str, channels: int, blocks: int = 1, offset: int = 0) -> Candidate:
    members = (Member(tensor=tensor, dim=0, offsets=(offset,)),)
    group = PruneGroup(name=tensor, channels=channels, blocks=blocks, members=members)
    return Candidate(group=group, producers=members, consumers=(), pieces=(), heads=False)


def test_sets_grow_from_the_innermost_module_to_the_whole_network() -> None:
    a, b, c = candidate("s.0.q.weight", 8), candidate("s.0.v.weight", 8), candidate("s.1.q.weight", 8)
    stem, other = candidate("stem.weight", 8), candidate("s.1.up.weight", 16)
    assert sets_to_join([stem, a, b, c, other]) == [(a, b), (a, b, c), (stem, a, b, c)]
    assert sets_to_join([a, other]) == []


@pytest.mark.parametrize(("blocks", "wanted"), [((1, 4), 4), ((2, 3), 6), ((4, 4), 4)])
def test_a_joint_group_has_blocks_that_are_equal_in_all_of_its_parts(blocks: tuple[int, int], wanted: int) -> None:
    joint = join([candidate("qkv.weight", 12, blocks[0]), candidate("qkv.weight", 12, blocks[1], offset=24)])
    assert joint.group.blocks == wanted
    assert joint.group.members == (Member(tensor="qkv.weight", dim=0, offsets=(0, 24)),)
