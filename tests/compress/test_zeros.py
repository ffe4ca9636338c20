"""Single weights that are 0 and stay 0."""

from __future__ import annotations

import torch
from torch import nn

from svitkit.compress.zeros import held_at_zero, prunable_weights, set_to_zero, smallest, sparsity, zeros_of


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -0.1, 4.0], [-5.0, 0.2, 6.0]]))
        model[2].weight.copy_(torch.tensor([[0.3, -7.0]]))
    return model


def test_biases_and_batch_norms_are_never_pruned() -> None:
    assert list(prunable_weights(network())) == ["0.weight", "2.weight"]


def test_the_smallest_weights_of_all_layers_together_go_first() -> None:
    model = network()
    zeros = smallest(model, 3 / 8)
    assert zeros["0.weight"].tolist() == [[False, True, False], [False, True, False]]
    assert zeros["2.weight"].tolist() == [[True, False]]


def test_the_next_share_is_of_the_weights_that_are_left() -> None:
    model = network()
    set_to_zero(model, smallest(model, 0.5))
    assert sparsity(model) == 4 / 8
    set_to_zero(model, smallest(model, 0.5))
    assert sparsity(model) == 6 / 8
    assert model[0].weight.tolist() == [[0, 0, 0], [0, 0, 6]]
    assert model[2].weight.tolist() == [[0, -7]]


def test_training_with_weight_decay_leaves_zeros_at_zero_and_moves_the_others() -> None:
    model = network()
    zeros = smallest(model, 0.5)
    set_to_zero(model, zeros)
    before = {name: weight.detach().clone() for name, weight in prunable_weights(model).items()}
    with held_at_zero((model.get_parameter(name), where) for name, where in zeros.items()):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (model(torch.eye(3)) - 1).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(zeros_of(model)[name], where) for name, where in zeros.items())
    assert not torch.equal(model[0].weight, before["0.weight"])


def test_afterwards_gradients_are_whole_again() -> None:
    model = network()
    with held_at_zero([(model[2].weight, torch.tensor([[True, False]]))]):
        pass
    model[2](torch.ones(1, 2)).sum().backward()
    assert model[2].weight.grad is not None
    assert model[2].weight.grad.tolist() == [[1, 1]]
