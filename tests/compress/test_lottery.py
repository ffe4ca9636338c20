"""Lottery tickets: rounds of removal and training, on a network small enough to be trained in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from svitkit.compress.lottery import LotteryConfig, rewinding, training_recipe
from svitkit.compress.options import configure
from svitkit.compress.pipeline import compress_model
from svitkit.compress.report import PruneReport
from svitkit.compress.report_table import report_table
from svitkit.compress.report_tickets import DeadChannels
from svitkit.compress.rounds import BEST_NAME, REWIND_NAME, ROUNDS_NAME, SETTLED_NAME, STATE_NAME, Rounds
from svitkit.compress.run import CompressResult
from svitkit.compress.zeros import smallest, sparsity, zeros_of
from svitkit.data import Dataset
from svitkit.errors import ConfigError
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, build_model, checkpoint_sha256, load_checkpoint
from svitkit.presets import FitOptions

SETTINGS: dict[str, Any] = {"epochs": 2, "rewind_epoch": 1, "sparsity": 0.6, "patience": 9}
TOLD: dict[str, Any] = {"method": "lottery", "limit": 40, "max_drop": 100.0}
LADDER = [0.0, 0.25, 0.4375, 0.578125]


def draw(network: Checkpoint, digits: Dataset, out: Path, **told: Any) -> CompressResult:
    settings = {**SETTINGS, **told.pop("settings", {})}
    return compress_model(network, digits, out, settings=settings, **{**TOLD, **told})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lottery")


@pytest.fixture(scope="module")
def found(checkpoint: Checkpoint, digits: Dataset, folder: Path) -> CompressResult:
    return draw(checkpoint, digits, folder / "ticket", settings={"control": ("reinit", "oneshot")})


def test_every_round_removes_a_quarter_of_what_is_left(found: CompressResult) -> None:
    assert found.report.tickets is not None
    rounds = found.report.tickets.rounds
    assert [each.number for each in rounds] == [0, 1, 2, 3]
    assert [each.sparsity for each in rounds] == pytest.approx(LADDER, abs=1e-4)


def test_the_sparsest_round_within_the_allowed_loss_is_written(found: CompressResult, folder: Path) -> None:
    loaded, report = load_checkpoint(folder / "ticket"), found.report
    assert report.tickets is not None
    assert [each.accepted for each in report.tickets.rounds] == [False, False, False, True]
    assert sparsity(found.checkpoint.model) == pytest.approx(LADDER[-1], abs=0.01)  # dead channels are gone
    assert loaded.spec.sparse
    assert checkpoint_sha256(loaded) == checkpoint_sha256(found.checkpoint)
    assert loaded.parameter_bytes() == report.parameter_bytes_after < 0.6 * report.parameter_bytes_before
    assert report == from_json((folder / "ticket" / "report.json").read_text(), PruneReport, source="report.json")
    assert not (folder / "ticket" / ROUNDS_NAME).exists()


def test_controls_have_as_many_weights_and_are_measured_on_both_splits(found: CompressResult) -> None:
    assert found.report.tickets is not None
    controls = found.report.tickets.controls
    assert [each.name for each in controls] == ["reinit", "oneshot"]
    assert all(each.sparsity == pytest.approx(LADDER[-1], abs=1e-4) for each in controls)
    assert all(0 <= accuracy <= 100 for each in controls for accuracy in (each.validation, each.test))


def test_the_table_has_a_row_for_every_round_and_control(found: CompressResult) -> None:
    table = report_table(found.report)
    assert list(table.columns[0].cells) == ["0", "1", "2", "3", "reinit", "oneshot"]
    assert list(table.columns[-1].cells)[3] == "taken"


def test_the_table_tells_which_channels_were_dead(found: CompressResult) -> None:
    assert found.report.tickets is not None
    dead = DeadChannels(group="fc1", channels_before=384, channels_after=300)
    report = replace(found.report, tickets=replace(found.report.tickets, dead=(dead,)))
    assert str(report_table(report).caption).endswith("had no effect: channels 84 of 384 (fc1)")


def test_a_finished_search_is_not_trained_again(
    found: CompressResult, checkpoint: Checkpoint, digits: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svitkit.compress.rounds.fit", lambda *_, **__: pytest.fail("trained again"))
    told = {"settings": {"control": ("reinit", "oneshot")}, "resume": True}
    again = draw(checkpoint, digits, folder / "ticket", **told)
    assert again.report == found.report
    assert checkpoint_sha256(again.checkpoint) == checkpoint_sha256(found.checkpoint)


def test_a_stopped_search_goes_on_and_ends_the_same(checkpoint: Checkpoint, digits: Dataset, folder: Path) -> None:
    settings = {"sparsity": 0.44, "epochs": 3}
    whole = draw(checkpoint, digits, folder / "whole", settings=settings)

    out = folder / "stopped"

    def stop(stage: str, done: int, total: int) -> None:
        if (out / ROUNDS_NAME / "01" / STATE_NAME).exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(checkpoint, digits, out, settings=settings, progress=stop)
    assert not (out / ROUNDS_NAME / "01" / BEST_NAME).exists()
    with pytest.raises(ConfigError, match="--resume"):
        draw(checkpoint, digits, out, settings=settings)
    stages: list[str] = []
    again = draw(
        checkpoint, digits, out, settings=settings, resume=True, progress=lambda stage, *_: stages.append(stage)
    )
    assert "round 0 of 2" not in stages
    assert "round 1 of 2" in stages
    assert again.report == whole.report
    assert checkpoint_sha256(again.checkpoint) == checkpoint_sha256(whole.checkpoint)


def test_where_too_much_is_lost_the_search_ends_and_says_so(whole: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    told = {"max_drop": 0.0, "limit": 24, "settings": {"patience": 1, "epochs": 1, "rewind_epoch": 0}}
    result = draw(whole, digits, tmp_path / "lost", **told)
    assert result.report.tickets is not None
    assert [each.number for each in result.report.tickets.rounds] == [0, 1]
    assert not result.satisfied


class Recorder:
    """Stands in for a training: remembers what it began with, and scales the weights."""

    def __init__(self) -> None:
        self.began: list[tuple[int, dict[str, torch.Tensor]]] = []

    def __call__(
        self, model: nn.Module, *_: Any, first_epoch: int, on_epoch: Callable[[int], None], state: Path, **__: Any
    ) -> None:
        self.began.append((first_epoch, {name: value.clone() for name, value in model.state_dict().items()}))
        state.write_bytes(b"")
        for epoch in range(first_epoch, 3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(2.0)
            on_epoch(epoch)


@pytest.fixture
def rounds(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> Rounds:
    options = FitOptions(epochs=3, timesteps=2, seed=5)
    return Rounds(checkpoint.spec, digits, tmp_path, options=options, rewind_epoch=1, progress=lambda *_: None)


def test_a_round_begins_with_the_weights_of_the_early_epoch_and_zeros(
    rounds: Rounds, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr("svitkit.compress.rounds.fit", recorder)
    rounds.train_whole("round 0")
    zeros = smallest(rounds.settled(0), 0.25)
    rounds.train(1, zeros, "round 1")
    (start, fresh), (later, rewound) = recorder.began
    assert (start, later) == (0, 1)
    assert sorted(path.name for path in (tmp_path / "00").iterdir()) == [BEST_NAME, SETTLED_NAME]
    for name, parameter in checkpoint.model.named_parameters():
        wanted = 2 * fresh[name]
        if name in zeros:
            wanted = wanted.masked_fill(zeros[name], 0.0)
        assert torch.equal(rewound[name], wanted), (name, parameter.shape)
    assert all((zeros_of(rounds.settled(1))[name] >= where).all() for name, where in zeros.items())


def test_new_weights_are_those_of_another_seed_and_are_trained_from_the_first_epoch(
    rounds: Rounds, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr("svitkit.compress.rounds.fit", recorder)
    rounds.train_whole("round 0")
    rounds.train("reinit", {}, "reinit", seed=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        wanted = build_model(checkpoint.spec)
    first, weights = recorder.began[1]
    assert first == 0
    assert all(torch.equal(weights[name], value) for name, value in wanted.state_dict().items())
    assert (tmp_path / REWIND_NAME).exists()


def test_the_number_of_rounds_is_the_one_that_comes_nearest() -> None:
    assert [LotteryConfig(sparsity=wanted).rounds() for wanted in (0.1, 0.25, 0.9, 0.925)] == [1, 1, 8, 9]


def test_the_recipe_is_that_of_the_checkpoint_with_the_changes_that_are_set(checkpoint: Checkpoint) -> None:
    told = {"epochs": 60, "lr": 0.003, "shift_pixels": 1, "timesteps": 4, "single_step_epochs": 30}
    spec = replace(checkpoint.spec, provenance={"options": told})
    options = training_recipe(spec, LotteryConfig(epochs=30, lr=0.001))
    assert (options.epochs, options.lr, options.shift_pixels, options.timesteps) == (30, 0.001, 1, 2)
    assert options.single_step_epochs == 15
    assert rewinding(options, LotteryConfig()) == 2


def test_a_checkpoint_without_recipe_needs_to_be_told_the_epochs(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--set epochs=N"):
        compress_model(checkpoint, digits, tmp_path / "c", method="lottery", limit=24)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"finetune_epochs": 1}, "trains the network itself"),
        ({"bn_recalibration": 8}, "trains the network itself"),
        ({"settings": {"rewind_epoch": 2}}, "rewind_epoch is 2, but a training has 2 epochs"),
        ({"settings": {"control": "random"}}, "control.0 is 'random'"),
        ({"settings": {"rate": 1}}, "rate is 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path, told: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        draw(checkpoint, digits, tmp_path / "c", **told)


def test_half_a_point_may_be_lost_unless_told_otherwise() -> None:
    assert configure("lottery", None, None, {}).max_drop == 0.5


def test_weights_that_are_zero_stay_zero_as_integers(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    settings = {**SETTINGS, "sparsity": 0.8, "calibration_images": 16, "gate_images": 8, "audit": 0, "widths": (4, 3)}
    told = {**TOLD, "method": "lottery,aq4svit-greedy", "settings": settings}
    result = compress_model(checkpoint, digits, tmp_path / "both", **told)
    loaded = load_checkpoint(tmp_path / "both")
    assert sparsity(loaded.model) >= 0.75
    assert loaded.spec.sparse
    assert loaded.parameter_bytes() == result.report.parameter_bytes_after
    assert [step.method for step in result.report.steps] == ["lottery", "aq4svit-greedy"]
    assert result.report.tickets is not None


def test_the_zeros_of_a_ticket_are_zeros_of_its_integers(
    found: CompressResult, digits: Dataset, tmp_path: Path
) -> None:
    zeros = zeros_of(found.checkpoint.model)
    for method in ("int8", "aq4svit-greedy"):
        told = {"limit": 24, "max_drop": 100.0, "settings": {} if method == "int8" else {"widths": (4,), "audit": 0}}
        small = compress_model(found.checkpoint, digits, tmp_path / method, method=method, **told).checkpoint
        for layer, weight in small.quantized.items():
            assert not weight.integers[zeros[f"{layer}.weight"].numpy()].any(), (method, layer)


def test_training_the_integers_of_a_ticket_leaves_zeros_alone(
    found: CompressResult, digits: Dataset, tmp_path: Path
) -> None:
    zeros = zeros_of(found.checkpoint.model)
    told = {"limit": 24, "max_drop": 100.0, "settings": {"widths": (4,), "audit": 0}, "finetune_epochs": 1}
    small = compress_model(found.checkpoint, digits, tmp_path / "t", method="aq4svit-greedy", **told).checkpoint
    for layer, weight in small.quantized.items():
        assert not weight.integers[zeros[f"{layer}.weight"].numpy()].any(), layer
