from __future__ import annotations

import copy

import torch
from torch import nn

from svitkit.compress.usage import NEVER, content_keys, observe
from tests.compress.networks import OwnNetwork, lif

X = torch.rand(2, 2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Reads weights that belong to modules which are never called, or only later; calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.lif = lif()
        self.borrowed = nn.Linear(6, 6)
        self.later = nn.Linear(6, 6)
        self.dead = nn.Linear(6, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(2, 3))
        x = self.lif(nn.functional.linear(x, self.borrowed.weight + self.later.bias))
        return self.head(self.first(self.later(x))).mean(2)


def test_modules_and_tensors_are_seen_in_the_order_of_execution() -> None:
    usage = observe(OwnNetwork().eval(), X)
    order = ["stem.weight", "widen.weight", "mix.weight", "narrow.weight", "q.weight", "out.weight", "head.weight"]
    times = [usage.reads[name] for name in order]
    assert times == sorted(times)
    assert usage.reads["stem.weight"] < usage.ends["stem"] < usage.begins["stem_lif"] < usage.reads["widen.weight"]
    assert usage.reads["dead.weight"] == NEVER
    assert "dead" not in usage.begins


def test_a_tensor_counts_from_its_first_read_by_whatever_reads_it() -> None:
    usage = observe(Odd().eval(), X)
    assert usage.ends["lif"] > usage.reads["later.bias"] >= usage.reads["borrowed.weight"] > usage.reads["first.bias"]
    assert usage.reads["later.weight"] > usage.ends["lif"]
    assert "borrowed" not in usage.begins
    assert "first" not in usage.ends


def test_only_what_ends_before_the_first_difference_keeps_its_key() -> None:
    model = OwnNetwork().eval()
    usage = observe(model, X)
    before = content_keys(model, usage, frozenset())
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.narrow.weight[0, 0] += 1
    after = content_keys(changed, usage, frozenset())
    same = {name for name, key in before.items() if after[name] == key}
    assert same == {"stem", "stem_lif", "widen", "widen_bn", "widen_lif", "mix", "mix_lif"}


def test_numbers_that_are_no_tensors_make_a_difference_too() -> None:
    model = OwnNetwork().eval()
    usage = observe(model, X)
    before = content_keys(model, usage, frozenset())
    model.mix_lif.v_threshold = 0.75
    after = content_keys(model, usage, frozenset())
    assert after["mix"] == before["mix"]
    assert after["mix_lif"] != before["mix_lif"]


def test_a_tensor_that_was_added_later_counts_from_the_call_of_its_module() -> None:
    model = OwnNetwork().eval()
    usage = observe(model, X)
    before = content_keys(model, usage, frozenset())
    model.k.bias = nn.Parameter(torch.ones(8))
    after = content_keys(model, usage, frozenset())
    assert after["q"] == before["q"]
    assert after["k"] != before["k"]


def test_ignored_tensors_make_no_difference() -> None:
    model = OwnNetwork().eval()
    usage = observe(model, X)
    ignored = frozenset({"widen_bn.running_mean"})
    before = content_keys(model, usage, ignored)
    model.widen_bn.running_mean += 1
    assert content_keys(model, usage, ignored) == before
    assert content_keys(model, usage, frozenset())["head"] != before["head"]
