from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.prefix import Prefix
from svitkit.compress.recalibrate import Recalibration, normalize_to
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.run import forward_logits
from tests.compress.networks import FAMILIES, OwnNetwork, firing_checkpoint, spec_of

PLENTY = 1 << 30


def batches(shape: tuple[int, ...], count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(2, 4, *shape, generator=generator) for _ in range(count)]


def network(family: str) -> tuple[nn.Module, list[torch.Tensor]]:
    if family == "own":
        with torch.random.fork_rng():
            torch.manual_seed(2)
            model = OwnNetwork(threshold=0.1).eval()
        inputs = batches((1, 6, 6))
        normalize_to(model, inputs)
        return model, inputs
    return firing_checkpoint(family).model, batches(spec_of(family).input_shape)


def plans(model: nn.Module, x: torch.Tensor) -> list[PrunePlan]:
    """Groups alone at two rates, and then pairs, the later group last and the earlier group last."""
    chosen: list[list[PrunedGroup]] = []
    for found in find_groups(model, x[:, :1]):
        if found.prunable:
            norms = filter_norms(model, found)
            kept = [keep_strongest(found.group, norms, rate, multiple=1) for rate in (0.25, 0.5)]
            chosen.append([pruned for pruned in kept if pruned is not None])
    chosen = chosen[:: max(1, len(chosen) // 3)]
    alone = [PrunePlan(groups=(pruned,)) for row in chosen for pruned in row]
    pairs = [
        PrunePlan(groups=(first, second))
        for row, other in ((chosen[0], chosen[-1]), (chosen[-1], chosen[0]))
        for first in row[:1]
        for second in other
    ]
    return [PrunePlan(), *alone, *pairs]


def logits(prefix: Prefix, model: nn.Module, plan: PrunePlan) -> list[torch.Tensor]:
    with torch.inference_mode():
        run = prefix.start(model, plan)
        return [run.logits(at) for at in range(len(prefix.inputs))]


def plain(model: nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [forward_logits(model, x) for x in inputs]


def count_runs(model: nn.Module, name: str) -> list[int]:
    runs, layer = [0], model.get_submodule(name)

    def forward(x: torch.Tensor) -> torch.Tensor:
        runs[0] += 1
        return type(layer).forward(layer, x)

    layer.forward = forward
    return runs


@pytest.mark.parametrize(("family", "limit_bytes"), [*((name, PLENTY) for name in (*FAMILIES, "own")), ("own", 20_000)])
def test_every_candidate_has_the_logits_and_the_statistics_of_a_whole_run(family: str, limit_bytes: int) -> None:
    model, inputs = network(family)
    prefix, repair = Prefix(inputs, limit_bytes), Recalibration(inputs, reuse_bytes=limit_bytes)
    for plan in plans(model, inputs[0]):
        candidate = copy.deepcopy(model)
        apply_plan(candidate, plan)
        wanted = copy.deepcopy(candidate)
        repair(candidate, plan)
        normalize_to(wanted, inputs)
        state = wanted.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in candidate.state_dict().items()), plan
        for got, expected in zip(logits(prefix, candidate, plan), plain(wanted, inputs), strict=True):
            assert torch.equal(got, expected)
    assert prefix.size_bytes <= limit_bytes


def cut(tensor: str, dim: int, kept: Sequence[int], channels: int) -> PrunePlan:
    group = PruneGroup(name=tensor, channels=channels, members=(Member(tensor=tensor, dim=dim),))
    return PrunePlan(groups=(PrunedGroup(group=group, kept=tuple(kept)),))


def test_what_ends_before_the_varied_group_runs_once_and_the_rest_every_time() -> None:
    model, inputs = network("own")
    prefix = Prefix(inputs, PLENTY)
    plan = cut("narrow.weight", 0, range(8), 8)
    logits(prefix, model, plan)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.narrow.weight[0] = 0
    logits(prefix, changed, plan)  # trusts the kept outputs from now on
    before, after = count_runs(changed, "mix"), count_runs(changed, "narrow")
    logits(prefix, changed, plan)
    assert (before, after) == ([0], [len(inputs)])


def test_a_difference_that_no_plan_tells_of_is_noticed() -> None:
    model, inputs = network("own")
    prefix = Prefix(inputs, PLENTY)
    plan = cut("narrow.weight", 0, range(8), 8)
    logits(prefix, model, plan)
    changed = copy.deepcopy(model)
    changed.widen_lif.v_threshold = 0.05
    for got, expected in zip(logits(prefix, changed, plan), plain(changed, inputs), strict=True):
        assert torch.equal(got, expected)


def test_outputs_that_were_not_used_for_longest_go_first() -> None:
    model, inputs = network("own")
    size = 2 * 4 * 12 * 36  # spikes of mix_lif, one byte each
    prefix = Prefix(inputs[:1], 12 * size)
    logits(prefix, model, cut("narrow.weight", 0, range(8), 8))
    assert 0 < prefix.size_bytes <= 12 * size
    small = Prefix(inputs[:1], size // 2)
    logits(small, model, cut("narrow.weight", 0, range(8), 8))
    assert small.size_bytes <= size // 2


class InPlace(nn.Module):
    """Its layer changes its input, which the network goes on with."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = Shift()
        self.mid = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).clone()
        y = self.shift(x)
        return self.head(self.mid(x + y))


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += self.by
        return x * 2


def test_a_layer_that_does_more_than_return_its_output_is_found_out() -> None:
    model, inputs = InPlace().eval(), batches((1, 2, 2))
    prefix = Prefix(inputs, PLENTY)
    plan = cut("mid.weight", 0, range(4), 4)
    for _ in range(3):
        for got, expected in zip(logits(prefix, model, plan), plain(model, inputs), strict=True):
            assert torch.equal(got, expected)
    assert prefix.size_bytes == 0


def test_a_copy_in_another_process_begins_with_nothing_kept() -> None:
    model, inputs = network("own")
    prefix = Prefix(inputs, PLENTY)
    logits(prefix, model, cut("narrow.weight", 0, range(8), 8))
    other = pickle.loads(pickle.dumps(prefix))
    assert prefix.size_bytes > 0
    assert other.size_bytes == 0
    assert (other.limit_bytes, len(other.inputs)) == (PLENTY, len(inputs))


def test_a_repair_that_was_interrupted_leaves_nothing_half_known() -> None:
    model, inputs = network("own")
    repair = Recalibration(inputs, reuse_bytes=PLENTY)
    plan = cut("narrow.weight", 0, range(8), 8)
    broken = copy.deepcopy(model)

    def interrupt(module: nn.Module, given: object) -> None:
        raise KeyboardInterrupt

    handle = broken.narrow.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        repair(broken, plan)
    handle.remove()
    got, wanted = copy.deepcopy(model), copy.deepcopy(model)
    repair(got, plan)
    repair(got, plan)
    normalize_to(wanted, inputs)
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in got.state_dict().items())
