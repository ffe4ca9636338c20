"""The count of launches: operators of torch by hand, and a network of the zoo for a Jetson."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import bench_launches
from benchmarks.bench_launches import count_operators
from benchmarks.networks import load_network


class _ThreeOperators(nn.Module):
    """(T, N, C, H, W) -> (N, C): views, a product, a sum and a maximum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes with views in between."""
        flat = x[0].flatten(2).transpose(1, 2)[:, :4]
        return ((flat * 2) + 1).permute(0, 2, 1).amax(-1)


def test_operators_that_compute_count_and_views_do_not() -> None:
    network = load_network("digits-spikformer", images=1)
    by_hand = replace(network.checkpoint, model=_ThreeOperators())
    assert count_operators(replace(network, checkpoint=by_hand)) == 3


def test_a_plan_has_far_fewer_launches_than_torch_has_operators(capsys: pytest.CaptureFixture[str]) -> None:
    bench_launches.main(network=["digits-spikformer"], board="jetson-orin-nano", as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["board"] == "jetson-orin-nano"
    assert 5 * row["svitkit"] <= row["torch_operators"]
    assert 0 < row["bytes_moved"] < 2**24
    assert row["device_bytes"] > 0
