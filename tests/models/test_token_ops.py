from __future__ import annotations

import numpy as np
import pytest
import torch

from svitkit.models.token_ops import choose_tokens, put_tokens, score_tokens, take_tokens, top_tokens
from tests.models import token_reference

CRITERIA = ("difference", "activity")
SHAPES = [(4, 2, 7, 5, 3), (1, 1, 1, 1, 1), (1, 3, 5, 4, 4), (3, 1, 2, 1, 6), (2, 1, 33, 7, 7)]


def counts(shape: tuple[int, ...], *, highest: int = 3) -> torch.Tensor:
    return torch.randint(0, highest + 1, shape, generator=torch.Generator().manual_seed(len(shape))).float()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_are_those_of_the_definition(shape: tuple[int, ...], criterion: str) -> None:
    x = counts(shape)
    wanted = np.stack([token_reference.score(x[:, image].numpy(), criterion) for image in range(shape[1])])
    np.testing.assert_array_equal(score_tokens(x, criterion).numpy(), wanted)


def test_beyond_the_border_the_outermost_tokens_repeat() -> None:
    x = torch.zeros(1, 1, 1, 3, 3)
    x[..., 0, 0] = 1
    # the corner is four of its own nine neighbours, and two of those of either token beside it
    wanted = [9 - 4, 2, 0, 2, 1, 0, 0, 0, 0]
    assert score_tokens(x, "difference").flatten().tolist() == wanted


def test_a_difference_from_the_step_before_counts_nine_times_and_the_first_step_has_none_before() -> None:
    x = torch.tensor([0.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1, 1, 1)
    assert score_tokens(x, "difference").tolist() == [[18.0]]
    assert score_tokens(x[1:3], "difference").tolist() == [[0.0]]
    assert score_tokens(x[:1], "difference").tolist() == [[0.0]]


def test_of_equal_scores_the_lower_number_comes_first() -> None:
    score = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_tokens(score, 5).tolist() == [[1, 2, 4, 0, 5], [0, 1, 2, 3, 4]]
    assert choose_tokens(torch.zeros(2, 1, 3, 8, 8), 64, "activity").tolist() == [list(range(64))]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_chosen_tokens_have_the_highest_scores_in_order(criterion: str) -> None:
    x = counts((3, 4, 2, 6, 5), highest=1)
    wanted = [token_reference.top(token_reference.score(x[:, image].numpy(), criterion), 11) for image in range(4)]
    assert choose_tokens(x, 11, criterion).tolist() == wanted
    assert any(row != sorted(row) for row in wanted)


def chosen(batch: int, tokens: int, kept: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(tokens, generator=generator)[:kept] for _ in range(batch)])


def test_every_image_has_its_own_tokens_taken_out_and_put_back() -> None:
    x, index = counts((3, 2, 4, 7)), chosen(2, 7, 3)
    taken = take_tokens(x, index)
    for image in range(2):
        assert torch.equal(taken[:, image], x[:, image, :, index[image]])
    back = put_tokens(x, index, -taken)
    for image in range(2):
        for token in range(7):
            sign = -1 if token in index[image] else 1
            assert torch.equal(back[:, image, :, token], sign * x[:, image, :, token])
    assert torch.equal(put_tokens(x, index, taken), x)


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    tokens = torch.randn(2, 2, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    index = chosen(2, 5, 2)
    assert torch.autograd.gradcheck(lambda x: take_tokens(x, index), (x,))
    assert torch.autograd.gradcheck(lambda x, tokens: put_tokens(x, index, tokens), (x, tokens))


def test_tokens_that_are_replaced_have_no_gradient_and_the_others_all_of_it() -> None:
    x = torch.ones(1, 1, 2, 4, requires_grad=True)
    tokens = torch.zeros(1, 1, 2, 2, requires_grad=True)
    weight = torch.arange(8.0).reshape(1, 1, 2, 4)
    (put_tokens(x, torch.tensor([[3, 1]]), tokens) * weight).sum().backward()
    assert x.grad is not None
    assert tokens.grad is not None
    assert x.grad.tolist() == [[[[0, 0, 2, 0], [4, 0, 6, 0]]]]
    assert tokens.grad.tolist() == [[[[3, 1], [7, 5]]]]


@pytest.mark.parametrize("strided", [False, True])
def test_the_operators_are_registered_as_torch_wants_them(strided: bool) -> None:
    x, index = torch.randn(2, 2, 3, 6), chosen(2, 6, 4)
    if strided:
        x = torch.randn(2, 2, 6, 3).transpose(2, 3)
    told = ("test_schema", "test_faketensor", "test_autograd_registration")
    for operator, arguments in (
        (take_tokens, (x.requires_grad_(), index)),
        (put_tokens, (x, index, torch.randn(2, 2, 3, 4, requires_grad=True))),
        (top_tokens, (torch.randn(2, 6), 4)),
        (choose_tokens, (torch.ones(2, 2, 3, 2, 3), 4, "difference")),
    ):
        torch.library.opcheck(operator, arguments, test_utils=told)
