from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from pydantic import ValidationError
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from svitkit.errors import ConfigError
from svitkit.models.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from svitkit.models.run import forward_logits
from svitkit.models.spec import TokenCriterion, TokenReduction
from svitkit.models.token_ops import choose_tokens
from svitkit.models.tokens import fixed_tokens, reduce_tokens, token_gates
from tests.export.reduced import blocks, images, reduced, shallow, skipping

CRITERIA: tuple[TokenCriterion, ...] = get_args(TokenCriterion)
FIXED: tuple[TokenCriterion, ...] = ("grid", "random")
T, C, H, W = 3, 4, 4, 5
MARK = 1000


class Marking(nn.Module):
    """A block that marks the tokens it computes, and knows what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = layer.Conv1d(C, C, 1, step_mode="m")
        self.lif = neuron.LIFNode(step_mode="m", detach_reset=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.given = x.detach()
        return x + MARK


class Row(nn.Module):
    """Blocks one behind the other, and the mean over the tokens that are left."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Marking() for _ in range(count))
        self.bare = nn.ReLU()
        self.listed = nn.Sequential(Marking())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        self.left = x.detach()
        return x.flatten(3).mean(3)


def asked(block: str = "blocks.0", **changes: Any) -> TokenReduction:
    told: dict[str, Any] = {
        "block": block,
        "grid": (H, W),
        "channels": C,
        "kept": 6,
        "criterion": "difference",
        "rest": "skip",
        "currents": False,
    }
    return TokenReduction(**{**told, **changes})


def frames(batch: int = 2) -> torch.Tensor:
    return (torch.rand(T, batch, C, H, W, generator=torch.Generator().manual_seed(5)) < 0.3).float()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("in_frame", [True, False], ids=["frame", "row"])
def test_skipped_tokens_come_back_as_they_were(criterion: TokenCriterion, in_frame: bool) -> None:
    x, model = frames() if in_frame else frames().flatten(3), Row().eval()
    reduce_tokens(model, [asked(criterion=criterion)])
    model(x)
    assert model.left.shape == x.shape
    computed = (model.left - x).flatten(3)
    assert set(computed.unique().tolist()) == {0, MARK}
    assert torch.equal(computed[0, :, 0].count_nonzero(1), torch.tensor([6, 6]))
    assert torch.equal(computed, computed[:1, :, :1].expand_as(computed))
    assert model.blocks[0].given.shape == ((T, 2, C, 1, 6) if in_frame else (T, 2, C, 6))


def test_the_tokens_that_a_block_computes_are_those_of_the_highest_scores() -> None:
    x, model = frames(), Row().eval()
    reduce_tokens(model, [asked()])
    model(x)
    wanted = choose_tokens(x, 6, "difference")
    computed = (model.left - x).flatten(3)[0, :, 0]
    for image in range(2):
        assert computed[image].nonzero().flatten().tolist() == sorted(wanted[image].tolist())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_dropped_tokens_are_gone_and_the_pooling_sees_only_the_rest(criterion: TokenCriterion) -> None:
    x, model = frames(), Row(2).eval()
    second = asked("blocks.1", grid=(1, 6), kept=2, rest="drop", criterion=criterion)
    reduce_tokens(model, [asked(rest="drop", criterion=criterion), second])
    pooled = model(x)
    assert model.blocks[1].given.shape == (T, 2, C, 1, 2)
    assert model.left.shape == (T, 2, C, 1, 2)
    assert torch.equal(pooled, model.left.mean((3, 4)))
    whole = (x + 2 * MARK).flatten(3)
    for image in range(2):
        columns = [tuple(column.flatten().tolist()) for column in whole[:, image].unbind(-1)]
        assert all(tuple(left.flatten().tolist()) in columns for left in model.left[:, image, :, 0].unbind(-1))


def test_a_choice_from_currents_is_made_from_the_spikes_of_a_layer_of_its_own() -> None:
    model, currents = Row().eval(), torch.randn(T, 1, C, H, W, generator=torch.Generator().manual_seed(6)) * 2
    model.blocks[0].lif.tau = 3.0
    reduce_tokens(model, [asked(currents=True)])
    (gate,) = token_gates(model)
    assert gate.lif is not model.blocks[0].lif
    assert gate.lif.tau == 3.0
    spikes = neuron.LIFNode(tau=3.0, step_mode="m")(currents)
    assert gate(currents)[0].tolist() == choose_tokens(spikes, 6, "difference").tolist()
    assert gate(currents)[0].tolist() != choose_tokens(currents, 6, "difference").tolist()


@pytest.mark.parametrize(
    ("reductions", "says"),
    [
        ([asked("blocks.7")], "tokens of 'blocks.7' are to be reduced, but there is no such block"),
        ([asked(), asked()], "'blocks.0' reduces its tokens already"),
        ([asked("listed")], "'listed' are to be reduced, but it is a Sequential"),
        ([asked("bare")], "'bare' are to be reduced, but it has no neurons"),
    ],
)
def test_a_block_that_cannot_leave_out_tokens_is_named(reductions: list[TokenReduction], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        reduce_tokens(Row(), reductions)


def test_more_tokens_than_there_are_cannot_be_kept() -> None:
    assert asked(kept=20).tokens == 20
    with pytest.raises(ValidationError, match=r"block 'blocks\.0' keeps 21 of 20 tokens"):
        asked(kept=21)
    with pytest.raises(ValidationError, match="kept"):
        asked(kept=0)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_grid_and_random_alone_do_not_look_at_the_input(criterion: TokenCriterion) -> None:
    assert asked(criterion=criterion).looks == (criterion not in FIXED)


@pytest.mark.parametrize("criterion", FIXED)
def test_fixed_tokens_are_different_ones_in_ascending_order_whatever_the_input(criterion: TokenCriterion) -> None:
    reduction = asked(criterion=criterion, grid=(8, 9), kept=30)
    numbers = fixed_tokens(reduction).tolist()
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 30
    assert 0 <= numbers[0] <= numbers[-1] < 72
    assert fixed_tokens(reduction).tolist() == numbers
    model = Row().eval()
    reduce_tokens(model, [asked(criterion=criterion)])
    (gate,) = token_gates(model)
    wanted = fixed_tokens(asked(criterion=criterion)).tolist()
    for batch in (1, 3):
        index, weight = gate(torch.randn(T, batch, C, H, W))
        assert index.tolist() == [wanted] * batch
        assert weight is None


def test_a_grid_is_spread_over_the_frame_and_grows_with_the_number_of_tokens() -> None:
    numbers = {kept: fixed_tokens(asked(criterion="grid", grid=(8, 8), kept=kept)) for kept in (8, 16, 32)}
    for kept, chosen in numbers.items():
        rows, columns = chosen // 8, chosen % 8
        for half in (rows < 4, columns < 4):
            assert abs(int(half.sum()) - kept // 2) <= kept // 8
    assert set(numbers[8].tolist()) < set(numbers[16].tolist()) < set(numbers[32].tolist())


def test_random_tokens_follow_from_the_seed_alone() -> None:
    def drawn(seed: int) -> list[int]:
        return fixed_tokens(asked(criterion="random", grid=(8, 8), kept=20, seed=seed)).tolist()

    torch.manual_seed(1)
    first = drawn(0)
    torch.manual_seed(2)
    assert drawn(0) == first
    assert drawn(1) != first


def learning(*, currents: bool = False) -> tuple[Row, Any]:
    model = Row()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        reduce_tokens(model, [asked(criterion="learned", rest="drop", currents=currents)])
    (gate,) = token_gates(model)
    gate.bn1.weight.data.fill_(3.0)
    return model, gate


@pytest.mark.parametrize("currents", [False, True])
def test_a_learned_choice_keeps_the_same_number_in_training_and_in_inference(currents: bool) -> None:
    model, gate = learning(currents=currents)
    for training in (True, False):
        gate.train(training)
        gate.lif1.reset()
        index, weight = gate(frames())
        assert index.shape == (2, 6)
        assert all(len(set(row)) == 6 for row in index.tolist())
        assert (weight is not None) == training
    assert {name.split(".")[0] for name in gate.state_dict()} == {"fc1", "bn1", "fc2"}
    assert set(dict(model.named_parameters())) >= {"blocks.0.tokens.fc1.weight", "blocks.0.tokens.fc2.bias"}


def test_a_learned_choice_is_noisy_in_training_and_weighs_its_tokens_with_ones() -> None:
    _, gate = learning()
    choices = set()
    for _ in range(5):
        gate.lif1.reset()
        index, weight = gate.train()(frames())
        choices.add(str(index.tolist()))
        torch.testing.assert_close(weight, torch.ones(2, 6))
    assert len(choices) > 1
    gate.eval()
    quiet = []
    for _ in range(2):
        gate.lif1.reset()
        quiet.append(gate(frames())[0].tolist())
    assert quiet[0] == quiet[1]


def test_the_gradient_of_the_logits_reaches_the_weights_of_a_learned_score() -> None:
    model, gate = learning()
    pooled = model.train()(frames())
    pooled.square().sum().backward()
    for name, parameter in gate.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0, name


def test_a_learned_score_tells_the_share_of_tokens_that_it_would_keep() -> None:
    _, gate = learning()
    gate.fc2.bias.data.fill_(50.0)
    gate.train()(frames())
    assert gate.share is not None
    assert float(gate.share.detach()) > 0.99
    gate.lif1.reset()
    gate.fc2.bias.data.fill_(-50.0)
    gate(frames())
    assert float(gate.share.detach()) < 0.01


def test_a_trained_network_can_be_copied_once_it_has_run_in_inference() -> None:
    model, gate = learning()
    model.train()(frames())
    functional.reset_net(model)
    model.eval()(frames())
    assert gate.share is None
    functional.reset_net(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(frames()), model(frames()))


@pytest.mark.parametrize("rest", ["skip", "drop"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_images_choose_their_tokens_each_for_itself(criterion: TokenCriterion, rest: Literal["skip", "drop"]) -> None:
    checkpoint = reduced("spikformer", criterion, rest)
    x = images(checkpoint, 4)
    with torch.no_grad():
        together = forward_logits(checkpoint.model, x)
        alone = torch.cat([forward_logits(checkpoint.model, x[:, image : image + 1]) for image in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together - together[:1]).abs().max() > 1e-2


def test_a_copy_reduces_its_own_tokens_and_not_those_of_the_original() -> None:
    model = Row().eval()
    reduce_tokens(model, [asked()])
    twin = copy.deepcopy(model)
    (gate,) = token_gates(twin)
    gate.reduction = asked(kept=2)
    x = frames()
    kept = []
    for one in (model, twin, model):
        one(x)
        kept.append(one.blocks[0].given.shape[-1])
        assert one.left.shape == x.shape
    assert kept == [6, 2, 6]
    hooks = [hook.__self__ for one in (model, twin) for hook in one.blocks[0]._forward_hooks.values()]
    assert hooks[0] is not hooks[1]
    before = [hook.__self__ for hook in twin.blocks[0]._forward_pre_hooks.values()]
    assert before[0] is hooks[1]


@pytest.mark.parametrize("rest", ["skip", "drop"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_network_of_fewer_tokens_comes_back_as_it_was_saved(
    tmp_path: Path, criterion: TokenCriterion, rest: Literal["skip", "drop"]
) -> None:
    checkpoint = reduced("spike-driven-transformer", criterion, rest)
    save_checkpoint(tmp_path / "c", checkpoint.model, checkpoint.spec)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.spec == checkpoint.spec
    assert checkpoint_sha256(loaded) == checkpoint_sha256(checkpoint)
    x = images(checkpoint, 4)
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(checkpoint.model, x))


def test_a_checkpoint_without_the_weights_of_a_learned_score_is_refused(tmp_path: Path) -> None:
    told = skipping(blocks("spikformer"), "learned")
    whole = shallow("spikformer")
    save_checkpoint(tmp_path / "c", whole.model, replace(whole.spec, tokens=told))
    with pytest.raises(ConfigError, match=r"missing .*blocks\.0\.tokens"):
        load_checkpoint(tmp_path / "c")


def test_all_tokens_kept_compute_what_the_whole_network_does() -> None:
    whole = shallow("spikformer")
    model = copy.deepcopy(whole.model)
    reduce_tokens(model, skipping(blocks("spikformer"), "grid", share=1.0))
    x = images(whole, 4)
    with torch.no_grad():
        torch.testing.assert_close(forward_logits(model, x), forward_logits(whole.model, x), rtol=1e-4, atol=1e-5)
