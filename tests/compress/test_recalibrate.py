from __future__ import annotations

import torch
from spikingjelly.activation_based import layer
from torch import nn

from svitkit.compress.recalibrate import normalize_to


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = layer.BatchNorm2d(1, step_mode="m", momentum=0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(x).flatten(2)


def test_statistics_become_the_average_over_the_batches_and_nothing_else_changes() -> None:
    model = Net().eval()
    weight = model.bn.weight.clone()
    batches = [torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1, 1), torch.tensor([5.0, 7.0]).reshape(1, 2, 1, 1, 1)]
    normalize_to(model, batches)
    assert model.bn.running_mean.tolist() == [4.0]
    assert model.bn.running_var.tolist() == [2.0]
    assert torch.equal(model.bn.weight, weight)
    assert model.bn.momentum == 0.3
    assert not model.bn.training
