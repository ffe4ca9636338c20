from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from svitkit.compress.pipeline import compress_model
from svitkit.compress.token_blocks import Block
from svitkit.compress.token_select import TokenSelectConfig, ratio_penalty, selection_plan
from svitkit.data import Dataset
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.run import forward_logits
from svitkit.models.tokens import token_gates
from tests.compress.networks import firing_checkpoint, probe
from tests.export.reduced import reduced


def blocks(*counts: int) -> tuple[Block, ...]:
    return tuple(
        Block(name=f"b{number}", grid=(1, count), channels=8, currents=False) for number, count in enumerate(counts)
    )


def kept(*counts: int, **told: Any) -> list[tuple[str, int, int]]:
    plan = selection_plan(blocks(*counts), TokenSelectConfig(**told), seed=3)
    return [(each.block, each.tokens, each.kept) for each in plan.reductions]


def test_before_every_block_a_power_of_the_share_is_left() -> None:
    assert kept(64, 64, 64, 64) == [("b1", 64, 44), ("b2", 44, 31), ("b3", 31, 21)]
    assert kept(64, 64, first=1, ratio=0.5) == [("b0", 64, 32), ("b1", 32, 16)]
    assert kept(2, 2, first=1, ratio=0.1) == [("b0", 2, 1), ("b1", 1, 1)]


def test_tokens_drop_out_in_the_last_blocks_alone_which_have_equally_many() -> None:
    assert [name for name, *_ in kept(64, 64, 16, 16, first=1)] == ["b2", "b3"]


def test_tokens_are_dropped_by_the_criterion_and_the_seed_that_were_told() -> None:
    plan = selection_plan(blocks(16, 16), TokenSelectConfig(criterion="random"), seed=3)
    assert [(each.criterion, each.rest, each.seed) for each in plan.reductions] == [("random", "drop", 3)]


def test_a_first_block_behind_the_last_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 2 blocks, none behind number 2"):
        kept(16, 16, first=3)


def test_the_penalty_is_the_mean_square_of_what_the_shares_miss() -> None:
    model = reduced("spikformer", "learned", "drop").model
    gates = list(token_gates(model))
    before = [gate.share for gate in gates]
    try:
        for gate, off in zip(gates, (0.1, -0.3), strict=True):
            gate.share = torch.tensor(gate.reduction.kept / gate.reduction.tokens + off)
        assert float(ratio_penalty(model)) == pytest.approx((0.01 + 0.09) / 2, rel=1e-4)
    finally:
        for gate, share in zip(gates, before, strict=True):
            gate.share = share
    assert float(ratio_penalty(torch.nn.Linear(1, 1))) == 0


TOLD: dict[str, Any] = {"method": "token-select", "max_drop": 100.0, "limit": 32}
SETTINGS: dict[str, Any] = {"epochs": 1, "first": 1, "ratio": 0.5}


def test_the_selection_is_trained_written_and_read_again(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    stages: list[str] = []
    result = compress_model(
        checkpoint,
        digits,
        tmp_path / "out",
        **TOLD,
        settings=SETTINGS,
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert "train the selection" in stages
    (reduction,) = result.checkpoint.spec.tokens
    assert (reduction.tokens, reduction.kept, reduction.criterion, reduction.rest) == (16, 8, "learned", "drop")
    report = result.report
    assert report.tokens is not None
    assert report.tokens.blocks == (reduction,)
    assert 0 < report.tokens.saving < 1
    assert report.parameter_bytes_after > report.parameter_bytes_before
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.parameter_bytes() == report.parameter_bytes_after
    x = probe(checkpoint.spec)
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(result.checkpoint.model, x))
    (gate,) = token_gates(loaded.model)
    trained = loaded.model.state_dict()
    assert any(not torch.equal(value, trained[name]) for name, value in checkpoint.model.state_dict().items())
    assert gate.fc2.weight.abs().sum() > 0


def test_a_network_whose_later_layers_want_all_tokens_is_refused_with_the_way_out(
    digits: Dataset, tmp_path: Path
) -> None:
    network = firing_checkpoint("spike-driven-transformer", digits)

    block = network.model.get_submodule("blocks.0")
    block.register_forward_hook(lambda _module, _given, got: got.reshape(*got.shape[:3], 4, 4))
    with pytest.raises(UnsupportedError, match=r"does not run with fewer tokens.*choose method 'token-skip'"):
        compress_model(network, digits, tmp_path / "out", **TOLD, settings=SETTINGS)


def test_a_selection_is_the_same_whatever_the_random_state_was(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    weights = []
    for number in (1, 2):
        torch.manual_seed(number)
        result = compress_model(
            checkpoint, digits, tmp_path / str(number), **TOLD, settings={**SETTINGS, "criterion": "random"}
        )
        weights.append((tmp_path / str(number) / "model.safetensors").read_bytes())
        assert result.checkpoint.spec.tokens[0].criterion == "random"
    assert weights[0] == weights[1]
