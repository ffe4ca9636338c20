from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import bench_tokens
from benchmarks.token_results import Sparing, from_dict
from benchmarks.token_views import markdown, plot
from svitkit.compress.pipeline import compress_model
from svitkit.data import load_data
from svitkit.models.checkpoint import load_checkpoint, save_checkpoint
from tests.compress.networks import firing_checkpoint

FIGURES = (
    "accuracy_before",
    "accuracy_after",
    "operations_saving",
    "synaptic_operations",
    "latency_saving",
    "sparsity",
    "artifact_saving",
    "bundle_bytes",
)
TOLD = ["--max-drop", "100", "--limit", "16", "--rounds", "1", "--set", "steps=2", "--set", "probe_images=8"]


def run(*arguments: str):
    app = Typer()
    app.command()(bench_tokens.main)
    return CliRunner().invoke(app, [*arguments])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint for digits: random weights, neurons that fire."""
    path = tmp_path_factory.mktemp("network") / "tiny"
    checkpoint = firing_checkpoint("spikformer", load_data("digits"))
    save_checkpoint(path, checkpoint.model, checkpoint.spec)
    return path


@pytest.fixture(scope="module")
def skipping(network: Path) -> Path:
    """What ``svitkit compress --method token-skip`` makes of it."""
    told = {"max_drop": 100.0, "limit": 16, "settings": {"steps": 2, "probe_images": 8}}
    compress_model(
        load_checkpoint(network), load_data("digits"), network.with_name("made"), method="token-skip", **told
    )
    return network.with_name("made")


@pytest.fixture(scope="module")
def lines(network: Path, skipping: Path) -> list[dict[str, Any]]:
    """What the benchmark prints."""
    made = ["--methods", "dense,skip-random", "--made", f"token-skip={skipping}"]
    result = run("--network", str(network), *made, *TOLD, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_method_prints_one_json_object_with_every_figure(lines: list[dict[str, Any]]) -> None:
    assert [line["method"] for line in lines] == ["dense", "skip-random", "token-skip"]
    for line in lines:
        assert not line["reasons"]
        assert not [name for name in FIGURES if line[name] is None]


def test_random_tokens_are_as_many_as_those_that_were_found(lines: list[dict[str, Any]]) -> None:
    dense, random, found = lines
    assert dense["operations_saving"] == 0
    assert random["operations_saving"] == pytest.approx(found["operations_saving"])
    assert found["operations_saving"] > 0
    assert [row[:3] for row in random["tokens"]] == [row[:3] for row in found["tokens"]]
    assert {row[3] for row in random["tokens"]} == {"random"}


def test_lines_are_read_again_and_drawn(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    results = [from_dict(line) for line in lines]
    assert [result.to_dict() for result in results] == [from_dict(result.to_dict()).to_dict() for result in results]
    ticket: Sparing = replace(results[0], method="lottery", ladder=((0.0, 90.0), (0.25, 89.0)))
    text = markdown([*results, replace(ticket, controls=(("reinit", 0.25, 80.0, 79.0),))])
    assert text.count("| tiny |") == 4
    assert "| reinit | 25.0 | 80.00 (test 79.00) |" in text
    plot(tmp_path / "tokens.svg", [*results, ticket])
    assert (tmp_path / "tokens.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--methods", "token-skipp"], "Did you mean 'token-skip'"),
        (["--set", "stepps=2"], "Did you mean 'steps'"),
        (["--made", "lottery"], "wanted METHOD=DIR"),
    ],
)
def test_wrong_names_are_refused(network: Path, arguments: list[str], says: str) -> None:
    result = run("--network", str(network), *arguments)
    assert result.exit_code == 1
    assert says in result.output


def test_a_folder_without_a_report_is_refused(network: Path, tmp_path: Path) -> None:
    result = run("--network", str(network), "--made", f"lottery={tmp_path}")
    assert result.exit_code == 1
    assert "has no report.json" in result.output
