"""Svitkit's own pruning from checkpoint to checkpoint, on a trained network and a part of its data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from svitkit.compress.balance import BalanceConfig
from svitkit.compress.layer_costs import LayerCost, LayerCosts
from svitkit.compress.pipeline import compress_model
from svitkit.compress.run import CompressResult
from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError
from svitkit.macs import count_macs
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.run import example_input

QUICK = {"limit": 96, "settings": {"rates": (0.3, 0.6, 0.88), "rounds": 0, "fill_tries": 1, "calibration_images": 96}}


@pytest.fixture(scope="module")
def balanced(whole: Checkpoint, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CompressResult:
    out = tmp_path_factory.mktemp("balanced") / "small"
    return compress_model(whole, digits, out, method="svitkit", min_saving=0.5, **QUICK)


def test_half_of_a_trained_network_goes_within_three_points_without_training(balanced: CompressResult) -> None:
    report = balanced.report
    assert balanced.satisfied
    assert report.memory_saving >= 0.5
    assert report.before.validation - report.after.validation <= 3.0
    assert isinstance(report.settings, BalanceConfig)
    assert report.finetune_epochs == 0


def test_it_saves_more_than_primesvt_under_the_same_constraints(
    balanced: CompressResult, whole: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    other = compress_model(
        whole, digits, tmp_path / "p", method="primesvt", min_saving=0.9, bn_recalibration=96, limit=96
    )
    assert balanced.report.memory_saving > other.report.memory_saving


def test_residual_stems_attention_and_mlps_share_the_budget(balanced: CompressResult) -> None:
    pruned = {group.name for group in balanced.report.groups if group.decision == "pruned"}
    for part in ("stages.3", "attn", "mlp"):
        assert any(part in name for name in pruned)
    for group in balanced.report.groups:
        if group.decision == "pruned":
            assert all(point.divergence is not None for point in group.sweep)


def test_a_killed_search_goes_on_to_the_same_network(
    balanced: CompressResult, whole: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "search":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(whole, digits, tmp_path / "c", method="svitkit", min_saving=0.5, progress=kill, **QUICK)
    begun = (tmp_path / "c" / "search.jsonl").read_bytes()
    again = compress_model(whole, digits, tmp_path / "c", method="svitkit", min_saving=0.5, resume=True, **QUICK)
    assert (tmp_path / "c" / "search.jsonl").read_bytes().startswith(begun)
    assert again.report == balanced.report
    stored = load_checkpoint(tmp_path / "c").model.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in balanced.checkpoint.model.state_dict().items())


def test_the_objective_decides_what_is_saved(
    balanced: CompressResult, whole: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    lean = compress_model(whole, digits, tmp_path / "m", method="svitkit", objective="macs", **QUICK)
    x = example_input(whole.spec)

    def macs_per_byte(result: CompressResult) -> float:
        return count_macs(result.checkpoint.model, x) / result.report.parameter_bytes_after

    assert lean.satisfied
    assert macs_per_byte(lean) < macs_per_byte(balanced)
    spent = lean.report.objective
    assert spent is not None
    assert spent.after / spent.before == pytest.approx(
        count_macs(lean.checkpoint.model, x) / count_macs(whole.model, x), rel=0.02
    )


def test_latency_needs_the_costs_of_a_board(whole: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--board"):
        compress_model(whole, digits, tmp_path / "l", method="svitkit", objective="latency", **QUICK)
    costs = LayerCosts(whole.model, {"blocks.0.mlp.fc1.0": LayerCost(weights=1.0)}, unit="seconds")
    result = compress_model(
        whole, digits, tmp_path / "k", method="svitkit", objective="latency", costs=costs, min_saving=0.0, **QUICK
    )
    widths = {group.name: group.ratio for group in result.report.groups if group.ratio}
    assert widths
    assert all("mlp.fc1" in name or "stages.3" in name for name in widths)
    assert result.report.objective is not None
    assert result.report.objective.unit == "seconds"


def test_batch_norms_are_not_calibrated_twice(whole: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="calibration_images"):
        compress_model(whole, digits, tmp_path / "b", method="svitkit", bn_recalibration=64)
