from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import nn

from svitkit.compress.shortcuts import shortcuts
from svitkit.models.run import forward_logits
from tests.compress.networks import FAMILIES, firing_checkpoint, probe


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_same_to_the_bit_and_the_network_is_as_it_was(family: str) -> None:
    checkpoint = firing_checkpoint(family)
    model, x = checkpoint.model, probe(checkpoint.spec)
    replaced = [module for module in model.modules() if "forward" in vars(module)]
    with torch.no_grad():
        wanted = forward_logits(model, x)
        with shortcuts(model):
            assert len([module for module in model.modules() if "forward" in vars(module)]) > len(replaced)
            assert torch.equal(forward_logits(model, x), wanted)
        assert torch.equal(forward_logits(model, x), wanted)
    assert [module for module in model.modules() if "forward" in vars(module)] == replaced


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0)},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 2, "dilation": 2},
    ],
)
@pytest.mark.parametrize("shape", [(4, 3, 11, 8), (4, 3, 8, 11)])
def test_pools_of_every_kind_give_what_pytorch_gives(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    pool = nn.MaxPool2d(**options)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[0, 0, 3, 3] = float("nan")
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        wanted = pool(given)
        with shortcuts(pool):
            got = pool(given)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
        assert got.stride() == wanted.stride()


def test_a_pool_over_time_steps_gives_what_spikingjelly_gives() -> None:
    pool = layer.MaxPool2d(3, 2, 1, step_mode="m")
    x = torch.randn(2, 3, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    wanted = pool(x)
    with shortcuts(pool):
        assert torch.equal(pool(x), wanted)
