from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from svitkit.compress.divergence import Reference


class _Lookup(nn.Module):
    """Answers with the pixels of the image."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x.mean(0).flatten(1)


def _batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])).reshape(1, 3, 1, 1, 3)
    return [(x[:, :2], torch.tensor([0, 1])), (x[:, 2:], torch.tensor([0]))]


def test_a_network_does_not_diverge_from_itself() -> None:
    divergence, accuracy = Reference(_Lookup(), _batches()).compare(copy.deepcopy(_Lookup()))
    assert divergence == pytest.approx(0.0, abs=1e-12)
    assert accuracy == pytest.approx(200 / 3)


def test_divergence_is_the_mean_over_images_of_sum_p_log_p_over_q() -> None:
    divergence, accuracy = Reference(_Lookup(), _batches()).compare(_Lookup(0.0))
    rows = torch.cat([x.flatten(2)[0] for x, _ in _batches()]).double()
    assert divergence == pytest.approx(
        float((rows.exp() * (rows + torch.log(torch.tensor(3.0)))).sum(1).mean()), rel=1e-6
    )
    assert accuracy == pytest.approx(200 / 3)  # ties go to class 0


def test_a_network_that_swaps_its_answers_diverges_more_than_one_that_blurs_them() -> None:
    reference = Reference(_Lookup(), _batches())
    assert reference.compare(_Lookup(-1.0))[0] > reference.compare(_Lookup(0.5))[0] > 0
    assert reference.compare(_Lookup(-1.0))[1] < reference.compare(_Lookup(0.5))[1]
