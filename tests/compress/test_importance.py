from __future__ import annotations

import torch
from torch import nn

from svitkit.compress.groups import FoundGroup
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.models.plan import Member, PruneGroup


def group(channels: int, blocks: int = 1, members: tuple[Member, ...] = ()) -> PruneGroup:
    return PruneGroup(name="g", channels=channels, blocks=blocks, members=members)


def test_the_norm_of_a_channel_is_over_all_its_rows_and_ignores_biases() -> None:
    model = nn.Linear(2, 4)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 4.0], [0.0, 1.0]]))
        model.bias.fill_(100.0)
    members = (Member(tensor="weight", dim=0, offsets=(0, 2)), Member(tensor="bias", dim=0, offsets=(0, 2)))
    found = FoundGroup(group=group(2, members=members), producers=members, consumers=())
    torch.testing.assert_close(filter_norms(model, found), torch.tensor([5.0, 2.0**0.5]))


def test_the_weakest_channels_go_and_ties_keep_the_lower_index() -> None:
    pruned = keep_strongest(group(6), torch.tensor([1.0, 5.0, 1.0, 4.0, 1.0, 3.0]), 1 / 3, multiple=1)
    assert pruned is not None
    assert pruned.kept == (0, 1, 3, 5)


def test_every_head_keeps_its_own_strongest_in_equal_number() -> None:
    norms = torch.tensor([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0])
    pruned = keep_strongest(group(8, blocks=2), norms, 0.5, multiple=4)
    assert pruned is not None
    assert pruned.kept == (0, 1, 6, 7)


def test_kept_counts_are_rounded_to_the_multiple() -> None:
    kept = [keep_strongest(group(32), torch.ones(32), ratio, multiple=8) for ratio in (0.1, 0.2, 0.5, 0.7, 0.95)]
    assert [None if pruned is None else len(pruned.kept) for pruned in kept] == [None, 24, 16, 8, 8]


def test_a_group_narrower_than_the_multiple_stays() -> None:
    assert keep_strongest(group(3), torch.ones(3), 0.5, multiple=4) is None
