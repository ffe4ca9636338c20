from __future__ import annotations

import torch
from torch import nn

from svitkit.compress.eliminate import Elimination, eliminate, member_features, output_scale
from svitkit.compress.groups import FoundGroup
from svitkit.compress.layer_rows import LinearLayer
from svitkit.compress.moments import Moments
from svitkit.models.plan import Member, PruneGroup


class _Pair(nn.Module):
    """A producer, and a reader with a batch norm."""

    def __init__(self, channels: int, outputs: int = 5) -> None:
        super().__init__()
        self.made, self.read, self.norm = nn.Linear(3, channels), nn.Linear(channels, outputs), nn.BatchNorm1d(outputs)


def _found(channels: int, blocks: int = 1) -> FoundGroup:
    group = PruneGroup(name="made", channels=channels, blocks=blocks, members=())
    producers, consumers = (Member(tensor="made.weight", dim=0),), (Member(tensor="read.weight", dim=1),)
    return FoundGroup(group=group, producers=producers, consumers=consumers)


def _order(model: nn.Module, found: FoundGroup, x: torch.Tensor) -> Elimination:
    x = x.double()
    moments = Moments(mean=x.mean(0), covariance=torch.cov(x.T, correction=0), rows=len(x))
    return eliminate(model, found, {"read": LinearLayer(name="read", norm="norm")}, {"read": moments})


def test_a_copy_of_another_channel_goes_first_however_large_its_weights() -> None:
    torch.manual_seed(0)
    model, x = _Pair(6), torch.randn(500, 6)
    x[:, 4] = x[:, 1]
    with torch.no_grad():
        model.read.weight[:, 4] = 10.0
    assert _order(model, _found(6), x).order[0] in (1, 4)


def test_the_order_of_independent_channels_is_that_of_weight_times_deviation() -> None:
    torch.manual_seed(1)
    model, spread = _Pair(5), torch.tensor([1.0, 0.1, 3.0, 0.5, 2.0])
    x = torch.linalg.qr(torch.randn(400, 5) - 0.5)[0] * 20
    x = (x - x.mean(0)) * spread
    with torch.no_grad():
        model.read.weight.fill_(1.0)
    assert _order(model, _found(5), x).order == (1, 3, 0, 4)


def test_a_constant_channel_costs_nothing() -> None:
    torch.manual_seed(2)
    model, x = _Pair(4), torch.randn(300, 4)
    x[:, 2] = 7.0
    assert _order(model, _found(4), x).order[0] == 2


def test_outputs_that_the_batch_norm_silences_do_not_count() -> None:
    torch.manual_seed(3)
    model, x = _Pair(3, outputs=2), torch.randn(300, 3)
    with torch.no_grad():
        model.read.weight.copy_(torch.tensor([[1.0, 1.0, 0.2], [0.1, 0.1, 50.0]]))
        model.norm.weight.copy_(torch.tensor([1.0, 0.0]))
    assert output_scale(model, LinearLayer(name="read", norm="norm"))[1] == 0
    assert _order(model, _found(3), x).order[0] == 2


def test_the_greedy_choice_is_the_best_of_all_for_the_first_channel() -> None:
    torch.manual_seed(4)
    model, x = _Pair(6), torch.randn(400, 6) @ torch.randn(6, 6)
    weight = model.read.weight.detach()
    wanted = (x - x.mean(0)) @ weight.T
    losses = []
    for channel in range(6):
        rest = [other for other in range(6) if other != channel]
        fitted = torch.linalg.lstsq(x[:, rest] - x[:, rest].mean(0), wanted).solution
        losses.append(float((((x[:, rest] - x[:, rest].mean(0)) @ fitted) - wanted).square().sum()))
    assert _order(model, _found(6), x).order[0] == losses.index(min(losses))


def test_blocks_lose_equally_many_and_widths_round_up_to_them() -> None:
    torch.manual_seed(5)
    order = _order(_Pair(12), _found(12, blocks=3), torch.randn(200, 12))
    assert len(order.order) == 9
    for width in range(1, 13):
        pruned = order.keep(width)
        kept = range(12) if pruned is None else pruned.kept
        counts = [sum(channel // 4 == block for channel in kept) for block in range(3)]
        assert len(set(counts)) == 1
        assert len(kept) == max(3, -(-width // 3) * 3)


def test_features_of_a_channel_are_its_kernel_positions_in_every_copy() -> None:
    member = Member(tensor="w", dim=1, offsets=(0, 4), inner=2)
    assert member_features(member, 2, 1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert member_features(Member(tensor="w", dim=1), 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_group_that_no_layer_reads_is_ordered_by_norms() -> None:
    model = _Pair(3)
    with torch.no_grad():
        model.made.weight.copy_(torch.tensor([[2.0] * 3, [1.0] * 3, [3.0] * 3]))
    found = FoundGroup(group=_found(3).group, producers=_found(3).producers, consumers=())
    assert eliminate(model, found, {}, {}).order == (1, 0)
