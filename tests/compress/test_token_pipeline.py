"""Tokens that blocks skip, from the search to the checkpoint, alone and between other methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import nn

from svitkit.compress.options import WorkOptions
from svitkit.compress.pipeline import compress_model
from svitkit.compress.report import PruneReport
from svitkit.compress.report_table import report_table
from svitkit.compress.run import CompressResult
from svitkit.compress.token_blocks import find_blocks
from svitkit.compress.token_candidates import build, operations
from svitkit.compress.token_plan import TokenPlan
from svitkit.data import Dataset
from svitkit.errors import ConfigError
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.run import example_input, forward_logits
from svitkit.models.tokens import token_gates
from svitkit.proven import export_proven
from tests.compress.networks import own_labels, probe

HEAD_SIZE = 16
"""Of the zoo's network."""
SETTINGS: dict[str, Any] = {"steps": 3, "probe_images": 16, "criteria": ("difference", "grid")}
TOLD: dict[str, Any] = {"method": "token-skip", "max_drop": 25.0, "limit": 32, "settings": SETTINGS}


@pytest.fixture(scope="module")
def answered(checkpoint: Checkpoint, digits: Dataset) -> Dataset:
    """Digits as the small network takes them for."""
    return own_labels(checkpoint, digits)


@pytest.fixture(scope="module")
def skipped(
    tmp_path_factory: pytest.TempPathFactory, whole: Checkpoint, digits: Dataset
) -> tuple[Path, CompressResult]:
    """The trained network of the zoo with fewer tokens."""
    out = tmp_path_factory.mktemp("skipped") / "small"
    return out, compress_model(whole, digits, out, **TOLD)


def test_the_checkpoint_skips_the_tokens_that_the_report_says(
    skipped: tuple[Path, CompressResult], whole: Checkpoint
) -> None:
    out, result = skipped
    report = from_json((out / "report.json").read_bytes(), PruneReport, source="report.json")
    loaded = load_checkpoint(out)
    assert report == result.report
    assert report.tokens is not None
    assert report.tokens.blocks == loaded.spec.tokens == result.checkpoint.spec.tokens
    assert [each.block for each in loaded.spec.tokens] == ["blocks.0", "blocks.1"]
    assert {each.rest for each in loaded.spec.tokens} == {"skip"}
    x = probe(whole.spec)
    x = x.repeat(2, 1, 1, 1, 1)[: whole.spec.timesteps]
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(result.checkpoint.model, x))
    assert report.before.validation - report.after.validation <= 25.0
    assert result.satisfied
    assert report.parameter_bytes_after == report.parameter_bytes_before == whole.parameter_bytes()
    assert not list(token_gates(whole.model))


def products(model: nn.Module, x: torch.Tensor) -> int:
    """Multiply-accumulates of the trained Spikformer by hand: its layers, k^T v of every head, and q times that."""
    counted = 0

    def layer(module: Any, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> None:
        nonlocal counted
        counted += module.weight[0].numel() * got.numel()

    def attention(module: nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> None:
        nonlocal counted
        steps, batch, channels = got.shape[:3]
        counted += 2 * steps * batch * channels * got[0, 0, 0].numel() * HEAD_SIZE

    handles = [
        module.register_forward_hook(attention if name.endswith("attn") else layer)
        for name, module in model.named_modules()
        if name.endswith("attn") or isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    ]
    functional.reset_net(model)
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return counted


def test_the_report_counts_the_operations_that_are_left(
    skipped: tuple[Path, CompressResult], whole: Checkpoint
) -> None:
    tokens = skipped[1].report.tokens
    assert tokens is not None
    x = example_input(whole.spec)
    assert tokens.operations_before == operations(whole.model, x) == products(whole.model, x)
    assert tokens.operations_after == operations(load_checkpoint(skipped[0]).model, x)
    assert tokens.operations_after == products(load_checkpoint(skipped[0]).model, x)
    assert tokens.saving == 1 - tokens.operations_after / tokens.operations_before > 0.1
    assert f"saves {100 * tokens.saving:.1f} % of the operations" in skipped[1].report.why


def test_what_a_block_alone_saves_is_what_torch_counts(skipped: tuple[Path, CompressResult], whole: Checkpoint) -> None:
    tokens, x = skipped[1].report.tokens, example_input(whole.spec)
    assert tokens is not None
    found = {block.name: block for block in find_blocks(whole.model, x + 1)}
    for rate in (tokens.rates[0], tokens.rates[-1]):
        plan = TokenPlan(reductions=(found[rate.block].reduced(rate.kept, rate.criterion),))  # type: ignore[arg-type]
        assert rate.operations_saved == tokens.operations_before - products(build(whole.model, plan), x)


def test_the_journal_has_every_candidate_once_under_its_stage(skipped: tuple[Path, CompressResult]) -> None:
    lines = (skipped[0] / "search.jsonl").read_text().splitlines()[1:]
    keys = [json.loads(line)["key"] for line in lines]
    assert len(set(keys)) == len(keys)
    stages = [key.split(", ")[:2] for key in keys]
    assert stages[0] == ["validation", "whole"]
    probed = [name for stage, name in stages if stage == "probe"]
    assert [name for name in probed if name == "tokens blocks.1=8/16"] == 2 * ["tokens blocks.1=8/16"]
    assert all(json.loads(line)["divergence"] is not None for line in lines if "probe" in line)
    tokens = skipped[1].report.tokens
    assert tokens is not None
    measured = [name for stage, name in stages if stage == "validation" and name.startswith("tokens")]
    assert 0 < len(measured) == tokens.full_evaluations
    assert keys[-3:] == ["validation, final", "test, before", "test, after"]


def test_the_table_names_every_block_and_what_it_computes(skipped: tuple[Path, CompressResult]) -> None:
    from rich.console import Console

    console = Console(record=True, width=250, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(report_table(skipped[1].report))
    text = console.export_text()
    tokens = skipped[1].report.tokens
    assert tokens is not None
    for block in tokens.blocks:
        assert block.block in text
        assert block.criterion in text
    assert "skip the block" in text
    assert "of the operations" in text


@pytest.mark.slow
def test_the_found_network_is_exported_and_proven(
    skipped: tuple[Path, CompressResult], digits: Dataset, tmp_path: Path
) -> None:
    export_proven(load_checkpoint(skipped[0]), tmp_path / "model.onnx", dataset=digits)
    assert (tmp_path / "model.onnx").is_file()


def test_a_stopped_search_goes_on_with_its_journal(checkpoint: Checkpoint, answered: Dataset, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "rates of blocks.0" and done == 1:
            raise KeyboardInterrupt

    compress_model(checkpoint, answered, tmp_path / "whole", **TOLD)
    with pytest.raises(KeyboardInterrupt):
        compress_model(checkpoint, answered, tmp_path / "out", **TOLD, progress=stop)
    known = (tmp_path / "out" / "search.jsonl").read_text().splitlines()
    assert len(known) > 3
    with pytest.raises(ConfigError, match="--resume"):
        compress_model(checkpoint, answered, tmp_path / "out", **TOLD)
    with pytest.raises(ConfigError, match="other settings"):
        compress_model(checkpoint, answered, tmp_path / "out", resume=True, **{**TOLD, "max_drop": 1.0})
    compress_model(checkpoint, answered, tmp_path / "out", resume=True, **TOLD)
    assert (tmp_path / "out" / "search.jsonl").read_text().splitlines()[: len(known)] == known
    for name in ("model.safetensors", "svit.json", "report.json", "search.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_nothing_is_lost_where_nothing_may_be_and_the_fast_search_decides_as_the_plain_one(
    checkpoint: Checkpoint, answered: Dataset, tmp_path: Path
) -> None:
    results = [
        compress_model(
            checkpoint,
            answered,
            tmp_path / sweep,
            **{**TOLD, "max_drop": 0.0, "limit": 96, "settings": {**SETTINGS, "steps": 16}},
            work=WorkOptions(sweep=sweep),
        )
        for sweep in ("fast", "plain")
    ]
    for result in results:
        assert result.report.before.validation == result.report.after.validation == 100.0
        assert result.satisfied
    assert results[0].checkpoint.spec.tokens == results[1].checkpoint.spec.tokens
    measured = [json.loads(line) for line in (tmp_path / "plain" / "search.jsonl").read_text().splitlines()[1:]]
    tried = [line["accuracy"] for line in measured if line["key"].startswith("validation, tokens")]
    assert min(tried) < 100.0


def test_a_saving_out_of_reach_leaves_the_best_found(checkpoint: Checkpoint, answered: Dataset, tmp_path: Path) -> None:
    told = {**TOLD, "max_drop": 100.0, "min_saving": 0.99}
    result = compress_model(checkpoint, answered, tmp_path / "out", **told)
    assert not result.satisfied
    assert result.checkpoint.spec.tokens
    assert "at least 99 wanted" in result.report.why
    assert load_checkpoint(tmp_path / "out").spec.tokens == result.checkpoint.spec.tokens


def test_a_reduced_network_is_neither_reduced_nor_pruned_again(
    skipped: tuple[Path, CompressResult], digits: Dataset, tmp_path: Path
) -> None:
    for method in ("token-skip", "token-select", "svitkit", "primesvt", "lottery"):
        with pytest.raises(ConfigError, match=f"compute some of their tokens only, and method '{method}' starts from"):
            compress_model(skipped[1].checkpoint, digits, tmp_path / "out", method=method, limit=8)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_network_of_fewer_tokens_is_trained_if_that_is_asked_for(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    told = {**TOLD, "limit": None, "max_drop": 100.0}
    result = compress_model(checkpoint, digits, tmp_path / "out", **told, finetune_epochs=1)
    assert result.report.finetune_epochs == 1
    trained, before = result.checkpoint.model.state_dict(), checkpoint.model.state_dict()
    assert any(not torch.equal(value, trained[name]) for name, value in before.items())
    assert load_checkpoint(tmp_path / "out").spec.tokens


FEW_BITS: dict[str, Any] = {"calibration_images": 24, "gate_images": 8, "audit": 0, "widths": (8, 4)}
FEW_ROUNDS: dict[str, Any] = {"rounds": 0, "fill_tries": 0, "calibration_images": 24, "probe_images": 16}


@pytest.mark.parametrize(
    ("chain", "settings"),
    [
        ("token-skip,int8", SETTINGS),
        pytest.param("token-skip,aq4svit-greedy", {**SETTINGS, **FEW_BITS}, marks=pytest.mark.slow),
        pytest.param("svitkit,token-skip", {**FEW_ROUNDS, "criteria": ("grid", "activity")}, marks=pytest.mark.slow),
        pytest.param("token-select,int8", {"epochs": 1, "first": 1}, marks=pytest.mark.slow),
    ],
)
def test_methods_before_and_behind_it_keep_the_tokens_and_the_export_is_proven(
    checkpoint: Checkpoint, answered: Dataset, tmp_path: Path, chain: str, settings: dict[str, Any]
) -> None:
    told = {"method": chain, "max_drop": 100.0, "limit": 24, "settings": settings}
    result = compress_model(checkpoint, answered, tmp_path / "out", **told)
    loaded, names = load_checkpoint(tmp_path / "out"), chain.split(",")
    assert loaded.spec.tokens
    assert result.report.tokens is not None
    assert result.report.tokens.blocks == loaded.spec.tokens
    assert [step.method for step in result.report.steps] == names
    assert (loaded.spec.plan is not None) == (names[0] == "svitkit")
    assert (loaded.spec.quantization is not None) == (names[0] != "svitkit")
    export_proven(loaded, tmp_path / "model.onnx", dataset=answered)
    assert (tmp_path / "model.onnx").is_file()
