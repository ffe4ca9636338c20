from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from svitkit.compress import run
from svitkit.compress.options import WorkOptions
from svitkit.compress.pipeline import compress_model
from svitkit.compress.report import PruneReport
from svitkit.compress.report_table import report_table
from svitkit.compress.run import CompressResult
from svitkit.data import Dataset
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.run import forward_logits
from tests.compress.networks import own_labels, probe

LOOSE: dict[str, Any] = {"method": "primesvt", "max_drop": 100.0, "min_saving": 0.2, "limit": 24}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, digits: Dataset
) -> tuple[Path, CompressResult]:
    out = tmp_path_factory.mktemp("finished") / "small"
    return out, compress_model(checkpoint, digits, out, bn_recalibration=16, **LOOSE)


def test_the_directory_loads_as_the_network_that_was_returned(
    finished: tuple[Path, CompressResult], checkpoint: Checkpoint
) -> None:
    out, result = finished
    loaded = load_checkpoint(out)
    x = probe(checkpoint.spec)
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(result.checkpoint.model, x))
    assert loaded.spec == result.checkpoint.spec
    assert sorted(path.name for path in out.iterdir()) == [
        "model.safetensors",
        "report.json",
        "search.jsonl",
        "svit.json",
        "sweep.svg",
    ]


def test_the_report_agrees_with_the_network_on_disk(
    finished: tuple[Path, CompressResult], checkpoint: Checkpoint
) -> None:
    out, result = finished
    report = from_json((out / "report.json").read_bytes(), PruneReport, source="report.json")
    assert report == result.report
    assert report.parameter_bytes_after == load_checkpoint(out).parameter_bytes()
    assert report.parameter_bytes_before == checkpoint.parameter_bytes() == report.original_parameter_bytes
    assert report.memory_saving == 1 - report.parameter_bytes_after / report.original_parameter_bytes
    assert report.memory_saving >= 0.2
    assert result.satisfied
    plan = result.checkpoint.spec.plan
    assert plan is not None
    assert {p.group.name: len(p.kept) for p in plan.groups} == {
        group.name: group.channels_after for group in report.groups if group.decision == "pruned"
    }


def test_the_table_names_every_group_and_the_outcome(finished: tuple[Path, CompressResult]) -> None:
    from rich.console import Console

    console = Console(record=True, width=250, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(report_table(finished[1].report))
    text = console.export_text()
    assert all(group.name in text for group in finished[1].report.groups)
    assert "constraints met" in text


def test_the_given_network_is_not_changed(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    compress_model(checkpoint, digits, tmp_path / "out", bn_recalibration=16, **LOOSE)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())


def test_constraints_that_cannot_both_be_met_leave_the_best_found(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    result = compress_model(checkpoint, digits, tmp_path / "out", **{**LOOSE, "min_saving": 0.95, "limit": 8})
    assert not result.satisfied
    assert result.report.memory_saving > 0.2
    assert "at least 95 wanted" in result.report.why
    assert load_checkpoint(tmp_path / "out").spec.plan is not None


@pytest.mark.parametrize("bn_recalibration", [0, 64])
def test_the_fast_sweep_decides_as_the_plain_one(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path, bn_recalibration: int
) -> None:
    data = own_labels(checkpoint, digits)
    fast, plain = (
        compress_model(
            checkpoint,
            data,
            tmp_path / sweep,
            method="primesvt",
            max_drop=12.0,
            min_saving=0.2,
            bn_recalibration=bn_recalibration,
            settings={"rates": (0.2, 0.5, 0.8)},
            work=WorkOptions(sweep=sweep),
        )
        for sweep in ("fast", "plain")
    )
    assert '"images"' in (tmp_path / "fast" / "search.jsonl").read_text()
    assert '"images"' not in (tmp_path / "plain" / "search.jsonl").read_text()
    assert fast.checkpoint.spec.plan == plain.checkpoint.spec.plan
    assert fast.report.candidates == plain.report.candidates
    assert (fast.report.why, fast.report.after) == (plain.report.why, plain.report.after)
    for ours, theirs in zip(fast.report.groups, plain.report.groups, strict=True):
        assert replace(ours, sweep=()) == replace(theirs, sweep=())
        for point, other in zip(ours.sweep, theirs.sweep, strict=True):
            assert point.robust == other.robust
            if point.images is None:
                assert point == other


KILLED = """
import os, signal, sys
from pathlib import Path
from svitkit.compress.pipeline import compress_model
from svitkit.data import load_data
from tests.compress.networks import firing_checkpoint

digits = load_data("digits")

def kill(stage, done, total):
    if stage == "sweep" and done == 17:
        os.kill(os.getpid(), signal.SIGKILL)

compress_model(firing_checkpoint("spikformer", digits), digits, Path(sys.argv[1]), method="primesvt",
               bn_recalibration=16, max_drop=100.0, min_saving=0.2, limit=24, progress=kill)
"""


def test_a_killed_search_resumes_to_the_same_bytes(
    finished: tuple[Path, CompressResult], checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], cwd=root, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [path.name for path in out.iterdir()] == ["search.jsonl"]
    known = (out / "search.jsonl").read_text().splitlines()
    assert 5 < len(known) < len((finished[0] / "search.jsonl").read_text().splitlines())

    with pytest.raises(ConfigError, match="--resume"):
        compress_model(checkpoint, digits, out, bn_recalibration=16, **LOOSE)
    with pytest.raises(ConfigError, match="other settings"):
        compress_model(checkpoint, digits, out, bn_recalibration=8, resume=True, **LOOSE)
    compress_model(checkpoint, digits, out, bn_recalibration=16, resume=True, **LOOSE)

    assert (out / "search.jsonl").read_text().splitlines()[: len(known)] == known
    for name in ("model.safetensors", "svit.json", "report.json", "search.jsonl", "sweep.svg"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_a_finished_search_is_begun_anew_without_resume(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    options = {**LOOSE, "limit": 8}
    first = compress_model(checkpoint, digits, tmp_path / "out", **options)
    second = compress_model(checkpoint, digits, tmp_path / "out", **{**options, "min_saving": 0.35})
    assert second.report.memory_saving >= 0.35 > first.report.memory_saving


def test_a_pruned_network_can_be_pruned_further_and_counts_from_the_original(
    finished: tuple[Path, CompressResult], checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    first = finished[1]
    second = compress_model(first.checkpoint, digits, tmp_path / "out", **{**LOOSE, "min_saving": 0.45, "limit": 8})
    assert second.report.original_parameter_bytes == checkpoint.parameter_bytes()
    assert second.report.memory_saving >= 0.45 > first.report.memory_saving
    plan = second.checkpoint.spec.plan
    assert plan is not None
    assert any(pruned.group.channels > 2 * len(pruned.kept) for pruned in plan.groups)
    x = probe(checkpoint.spec)
    with torch.no_grad():
        torch.testing.assert_close(
            forward_logits(load_checkpoint(tmp_path / "out").model, x), forward_logits(second.checkpoint.model, x)
        )


def test_the_test_split_is_measured_once_before_and_once_after(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    original = run.load_batches

    def watch(dataset: Dataset, split: str, **options: Any) -> Any:
        loaded.append(split)
        return original(dataset, split, **options)

    monkeypatch.setattr(run, "load_batches", watch)
    compress_model(checkpoint, digits, tmp_path / "out", **{**LOOSE, "limit": 8})
    assert loaded.count("test") == 2
    assert (tmp_path / "out" / "search.jsonl").read_text().count('"test, ') == 2


def test_fine_tuning_is_never_worse_on_validation_than_no_fine_tuning(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    options = {**LOOSE, "limit": 64, "min_saving": 0.1}
    plain = compress_model(checkpoint, digits, tmp_path / "plain", **options)
    tuned = compress_model(checkpoint, digits, tmp_path / "tuned", finetune_epochs=2, **options)
    assert tuned.report.after.validation >= plain.report.after.validation
    assert tuned.report.parameter_bytes_after == plain.report.parameter_bytes_after
    assert not (tmp_path / "tuned" / "finetune.training.pt").exists()


def test_fine_tuning_that_was_interrupted_goes_on_to_the_same_weights(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    options = {**LOOSE, "limit": 64, "min_saving": 0.1, "finetune_epochs": 3}

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "fine-tune" and done > 2 * total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(checkpoint, digits, tmp_path / "stopped", progress=interrupt, **options)
    assert (tmp_path / "stopped" / "finetune.training.pt").exists()
    compress_model(checkpoint, digits, tmp_path / "stopped", resume=True, **options)
    compress_model(checkpoint, digits, tmp_path / "straight", **options)
    for name in ("model.safetensors", "report.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_a_network_of_which_nothing_can_be_pruned_is_an_error_and_nothing_is_written(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(256, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.flatten(2))

    with pytest.raises(UnsupportedError, match="nothing in this network can be pruned"):
        compress_model(Checkpoint(model=Linear().eval(), spec=checkpoint.spec), digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "primsvt"}, "Did you mean 'primesvt'"),
        ({"max_drop": -1.0}, "max_drop"),
        ({"min_saving": 1.5}, "min_saving"),
        ({"min_saving": float("nan")}, "min_saving"),
        ({"bn_recalibration": -1}, "bn_recalibration"),
        ({"finetune_epochs": -2}, "finetune_epochs"),
        ({"limit": 0}, "limit of 0"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compress_model(checkpoint, digits, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_directory_with_other_files_is_refused_and_left_alone(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        compress_model(checkpoint, digits, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_settings_reach_the_search_and_a_residual_width_can_be_pruned(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    settings = {"residual_widths": True, "rates": (0.5,), "stop_at_saving": False}
    options = {**LOOSE, "limit": 8, "settings": settings}
    result = compress_model(checkpoint, digits, tmp_path / "out", **options)
    groups = {group.name: group for group in result.report.groups}
    stream = groups["patch_embed.stages.3.conv_bn.block.0"]
    assert (stream.channels_before, stream.channels_after, stream.decision) == (32, 16, "pruned")
    assert {point.ratio for group in groups.values() for point in group.sweep} == {0.5}
    assert result.report.settings.residual_widths
    assert [(c.budget, c.accepted) for c in result.report.candidates] == [(1.0, True)]
    assert result.report.candidates[0].saving == result.report.memory_saving > 0.6
    assert sorted(group.order for group in groups.values() if group.order) == list(range(1, len(groups) + 1))
    x = probe(checkpoint.spec)
    with torch.no_grad():
        loaded = load_checkpoint(tmp_path / "out").model
        assert torch.equal(forward_logits(loaded, x), forward_logits(result.checkpoint.model, x))
