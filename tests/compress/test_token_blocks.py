from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import nn

from svitkit.compress.token_blocks import Block, find_blocks
from svitkit.errors import UnsupportedError
from svitkit.models.run import forward_logits
from svitkit.models.tokens import reduce_tokens
from tests.compress.networks import OwnNetwork, lif
from tests.export.reduced import blocks
from tests.test_unseen_svit import FRAMES, lively


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        ("spikformer", [("blocks.0", (4, 4), 32, False), ("blocks.1", (4, 4), 32, False)]),
        ("spike-driven-transformer", [("blocks.0", (4, 4), 32, True), ("blocks.1", (4, 4), 32, True)]),
        (
            "qkformer",
            [
                ("stage1.0", (8, 8), 8, False),
                ("stage2.0", (4, 4), 16, False),
                ("stage3.0", (2, 2), 32, False),
                ("stage3.1", (2, 2), 32, False),
            ],
        ),
    ],
)
def test_the_blocks_of_the_families_are_found_in_order(family: str, wanted: list[tuple[Any, ...]]) -> None:
    found = [(block.name, block.grid, block.channels, block.currents) for block in blocks(family, stacked=True)]
    assert found == wanted


def test_blocks_of_one_token_are_none() -> None:
    assert [block.name for block in blocks("qkformer")] == ["stage1.0", "stage2.0"]


class Pointwise(nn.Module):
    """A block that mixes channels alone."""

    def __init__(self, width: int, *, taps: int = 1) -> None:
        super().__init__()
        self.fc = layer.Conv1d(width, width, taps, padding=taps // 2, step_mode="m")
        self.bn = layer.BatchNorm1d(width, step_mode="m")
        self.lif = lif()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.lif(self.bn(self.fc(x)))


class OfRows(nn.Module):
    """A user's class whose blocks take (T, B, C, N): one in a list, and one in a list in it."""

    def __init__(self, side: int = 4, *, taps: int = 1, spikes: bool = True) -> None:
        super().__init__()
        self.side, self.spikes = side, spikes
        self.stem = layer.Conv2d(1, 8, 16 // side, stride=16 // side, step_mode="m")
        self.stem_lif = lif()
        self.body = nn.Sequential(Pointwise(8, taps=taps), nn.Sequential(Pointwise(8, taps=taps), nn.Identity()))
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x) * 3
        x = self.stem_lif(x) if self.spikes else x
        return self.head(self.body(x.flatten(3)).mean(3))


def frames(width: int = 16) -> torch.Tensor:
    return torch.randn(3, 2, 1, 16, width, generator=torch.Generator().manual_seed(0))


def network(**told: Any) -> OfRows:
    torch.manual_seed(0)
    return OfRows(**told).eval()


def test_blocks_of_a_users_class_that_know_no_frame_are_found_and_lists_are_looked_into() -> None:
    model = network()
    found = find_blocks(model, frames())
    assert found == (
        Block(name="body.0", grid=(4, 4), channels=8, currents=False),
        Block(name="body.1.0", grid=(4, 4), channels=8, currents=False),
    )
    reduce_tokens(model, [found[0].reduced(7, "difference"), found[1].reduced(3, "activity")])
    with torch.no_grad():
        assert forward_logits(model, frames()).shape == (2, 10)


class InBlocks(nn.Module):
    """A block that holds a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Pointwise(8), Pointwise(8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts[1](self.parts[0](x))


def test_of_blocks_in_blocks_the_outermost_are_taken() -> None:
    model = network()
    model.body = nn.Sequential(InBlocks())
    assert [block.name for block in find_blocks(model.eval(), frames())] == ["body.0"]


def test_tokens_that_make_no_square_lie_in_a_row() -> None:
    assert {block.grid for block in find_blocks(network(), frames(32))} == {(1, 32)}


def test_currents_are_told_from_spikes_by_the_images() -> None:
    assert [block.currents for block in find_blocks(network(spikes=False), frames())] == [True, True]


def test_a_block_says_what_it_would_keep() -> None:
    block = Block(name="b", grid=(3, 5), channels=8, currents=True)
    reduction = block.reduced(4, "random", skip=False, seed=7)
    assert block.tokens == reduction.tokens == 15
    assert (reduction.block, reduction.grid, reduction.channels) == ("b", (3, 5), 8)
    assert (reduction.kept, reduction.criterion, reduction.rest) == (4, "random", "drop")
    assert (reduction.currents, reduction.seed) == (True, 7)
    assert block.reduced(4, "grid").rest == "skip"


@pytest.mark.parametrize("make", [lambda: network(taps=3), OwnNetwork, lambda: lively().model])
def test_a_network_without_such_blocks_is_refused_with_what_is_wanted(make: Any) -> None:
    with pytest.raises(UnsupportedError, match="no block of this network can leave out tokens: wanted a list"):
        find_blocks(make().eval(), FRAMES[:, :2])


def test_looking_for_blocks_leaves_no_hooks_and_no_reductions() -> None:
    model = network()
    find_blocks(model, frames())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
