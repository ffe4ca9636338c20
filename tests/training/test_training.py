"""The training loop: it learns, decides on validation alone, and continues after a kill."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svitkit import fitting
from svitkit.accuracy import accuracy
from svitkit.data import Dataset, Split
from svitkit.data.augment import augment
from svitkit.errors import ConfigError
from svitkit.fitting import TrainingProgress, fit
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import checkpoint_sha256, load_checkpoint
from svitkit.models.families import FAMILIES, build_family
from svitkit.presets import PRESETS, FitOptions
from svitkit.training import train

SMALL = {"embed_dims": 16, "num_heads": 2, "depths": 1}
OPTIONS = FitOptions(epochs=4, lr=5e-3, timesteps=2, batch_size=8, warmup_epochs=1)


class KilledError(Exception):
    """Ends a training from outside."""


def stripes(count: int, seed: int) -> Split:
    """Images of horizontal (0) or vertical (1) stripes under noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    wave = (np.arange(16) % 4 < 2) * 150
    x = np.where(y[:, None, None] == 1, wave[None, None, :], wave[None, :, None]) + rng.integers(
        0, 100, (count, 16, 16)
    )
    return Split(x=x.astype(np.uint8)[:, None], y=y.astype(np.int64))


def make_dataset() -> Dataset:
    return Dataset(
        name="stripes",
        train=stripes(40, 0),
        validation=stripes(20, 1),
        test=stripes(20, 2),
        normalization=Normalization(mean=(0.5,), std=(0.3,)),
        class_names=("horizontal", "vertical"),
        shape=(1, 16, 16),
        static=True,
    )


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 2, **SMALL}
    return build_family("spikformer", arguments)


def run_train(out: Path, **changes: Any) -> str:
    options = replace(OPTIONS, shift_pixels=1, rotate_degrees=5, **changes.pop("options", {}))
    return checkpoint_sha256(train("spikformer", make_dataset(), out, options=options, arguments=SMALL, **changes))


def without_times(checkpoint_dir: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint_dir).model.state_dict()


def test_a_network_learns_to_tell_stripes_apart() -> None:
    model = make_model()
    result = fit(model, make_dataset(), replace(OPTIONS, epochs=16))
    assert len(result.history) == 16
    assert result.validation_accuracy == max(result.history)
    assert accuracy(model, make_dataset(), "test", timesteps=2) >= 90
    assert not model.training


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    model, dataset = make_model(), make_dataset()
    result = fit(model, dataset, replace(OPTIONS, epochs=6))
    assert result.history[result.best_epoch] == result.validation_accuracy == max(result.history)
    assert accuracy(model, dataset, "validation", timesteps=2) == result.validation_accuracy


def test_the_test_split_has_no_influence_on_a_fit() -> None:
    first, second = make_model(), make_model()
    fit(first, make_dataset(), OPTIONS)
    fit(second, replace(make_dataset(), test=stripes(2, 99)), OPTIONS)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_killed_training_continues_to_the_same_weights(tmp_path: Path) -> None:
    run_train(tmp_path / "whole")

    def kill(progress: TrainingProgress) -> None:
        if progress.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run_train(tmp_path / "cut", report=kill)
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.training.pt").exists()
    seen: list[int] = []
    run_train(tmp_path / "cut", report=lambda progress: seen.append(progress.epoch))
    assert min(seen) == 2
    whole, cut = without_times(tmp_path / "whole"), without_times(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert not (tmp_path / "cut.training.pt").exists()


def test_a_training_from_the_weights_of_an_epoch_on_goes_the_rest_of_the_schedule() -> None:
    dataset, rates = make_dataset(), []
    model, weights = make_model(), {}

    def keep(epoch: int) -> None:
        weights[epoch] = {name: value.clone() for name, value in model.state_dict().items()}

    whole = fit(model, dataset, OPTIONS, on_epoch=keep)
    assert sorted(weights) == [0, 1, 2, 3]
    again = make_model()
    again.load_state_dict(weights[1])
    reports: list[TrainingProgress] = []
    rest = fit(again, dataset, OPTIONS, first_epoch=2, on_epoch=rates.append, report=reports.append)
    assert rates == [2, 3]
    assert len(rest.history) == 2
    assert len(whole.history) == 4
    assert rest.best_epoch in (2, 3)
    assert rest.validation_accuracy == rest.history[rest.best_epoch - 2]
    assert (reports[0].epoch, reports[0].step, reports[-1].share) == (2, 11, 1.0)


def test_state_of_a_training_that_began_elsewhere_is_not_continued(tmp_path: Path) -> None:
    fit(make_model(), make_dataset(), OPTIONS, first_epoch=2, state=tmp_path / "state")
    with pytest.raises(ConfigError, match="belongs to a training with other options"):
        fit(make_model(), make_dataset(), OPTIONS, first_epoch=1, state=tmp_path / "state")


@pytest.mark.parametrize("first", [-1, 4])
def test_a_schedule_cannot_begin_outside_of_itself(first: int) -> None:
    with pytest.raises(ConfigError, match=f"4 epochs cannot begin at epoch {first}"):
        fit(make_model(), make_dataset(), OPTIONS, first_epoch=first)


@pytest.mark.parametrize("killed_at", [6, 8, 10])
def test_a_training_killed_within_an_epoch_ends_with_exactly_the_weights_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    options = {"single_step_epochs": 1}
    run_train(tmp_path / "whole", options=options)
    monkeypatch.setattr(fitting, "SAVE_SECONDS", -1.0)  # the state is written after every step

    def kill(progress: TrainingProgress) -> None:
        if progress.step == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        run_train(tmp_path / "cut", report=kill, options=options)
    seen: list[int] = []
    run_train(tmp_path / "cut", report=lambda progress: seen.append(progress.step), options=options)
    assert seen[0] == killed_at, "the step that was killed before its state was written is done again, no other"
    whole, cut = without_times(tmp_path / "whole"), without_times(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_dropout_draws_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dropping(torch.nn.Module):
        """A class whose forward pass is random."""

        def __init__(self) -> None:
            super().__init__()
            self.drop, self.head = torch.nn.Dropout(0.5), torch.nn.Linear(256, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.drop(x.flatten(2)))

    def fitted(state: Path, killed_at: int | None = None) -> torch.Tensor:
        def kill(progress: TrainingProgress) -> None:
            if progress.step == killed_at:
                raise KilledError

        torch.manual_seed(0)
        model = Dropping()
        fit(model, make_dataset(), replace(OPTIONS, epochs=1, warmup_epochs=0), state=state, report=kill)
        return model.head.weight.detach()

    monkeypatch.setattr(fitting, "SAVE_SECONDS", -1.0)
    with pytest.raises(KilledError):
        fitted(tmp_path / "cut", killed_at=3)
    whole = fitted(tmp_path / "whole")
    torch.rand(5)
    assert torch.equal(whole, fitted(tmp_path / "cut"))


def test_state_is_written_when_the_time_has_passed_and_not_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [0.0], []
    monkeypatch.setattr(fitting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(fitting._Run, "save", lambda run, path: written.append((len(run.history), run.done)))

    def tick(progress: TrainingProgress) -> None:
        if progress.validation_accuracy is None:
            now[0] += fitting.SAVE_SECONDS / 2 + 1

    fit(make_model(), make_dataset(), replace(OPTIONS, epochs=2), state=tmp_path / "state", report=tick)
    assert written == [(0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0)]


def test_event_recordings_are_not_shown_for_a_single_step() -> None:
    frames = {name: getattr(make_dataset(), name) for name in ("train", "validation", "test")}
    events = {name: Split(x=np.repeat(split.x[:, None], 2, 1), y=split.y) for name, split in frames.items()}
    dataset = replace(make_dataset(), static=False, **events)
    seen: list[TrainingProgress] = []
    with pytest.raises(ConfigError, match=r"'stripes' holds event recordings.*single_step_epochs=0"):
        fit(make_model(), dataset, replace(OPTIONS, single_step_epochs=1), report=seen.append)
    assert not seen
    fit(make_model(), dataset, replace(OPTIONS, epochs=1), report=seen.append)
    assert seen


def test_an_epoch_of_a_single_step_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, steps = iter([99.0, 98.0, 50.0, 60.0, 55.0]), []

    def measured(*_: Any, timesteps: int, **__: Any) -> float:
        steps.append(timesteps)
        return next(reached)

    monkeypatch.setattr(fitting, "accuracy", measured)
    result = fit(make_model(), make_dataset(), replace(OPTIONS, epochs=5, single_step_epochs=2))
    assert steps == [1, 1, 2, 2, 2]
    assert (result.best_epoch, result.validation_accuracy) == (3, 60.0)
    assert result.history == (99.0, 98.0, 50.0, 60.0, 55.0)


def test_a_single_step_shows_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[int] = []
    original = fitting.forward_logits

    def watch(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        shapes.append(len(x))
        return original(model, x)

    monkeypatch.setattr(fitting, "forward_logits", watch)
    fit(make_model(), make_dataset(), replace(OPTIONS, epochs=2, single_step_epochs=1))
    assert shapes == [1] * 5 + [2] * 5


def test_state_of_another_training_is_not_continued(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    fit(make_model(), make_dataset(), replace(OPTIONS, epochs=1), state=state)
    with pytest.raises(ConfigError, match="other options"):
        fit(make_model(), make_dataset(), replace(OPTIONS, epochs=1, seed=1), state=state)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_damaged_state_is_refused(tmp_path: Path, keep: int) -> None:
    state = tmp_path / "state.pt"
    fit(make_model(), make_dataset(), replace(OPTIONS, epochs=1), state=state)
    state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(ConfigError, match="cannot continue"):
        fit(make_model(), make_dataset(), replace(OPTIONS, epochs=1), state=state)


def test_a_checkpoint_says_how_it_came_to_be(tmp_path: Path) -> None:
    run_train(tmp_path / "ckpt")
    checkpoint = load_checkpoint(tmp_path / "ckpt")
    assert checkpoint.spec.provenance["options"]["lr"] == OPTIONS.lr
    assert checkpoint.spec.provenance["data"] == "stripes"
    measured = accuracy(checkpoint.model, make_dataset(), "test", timesteps=2)
    assert checkpoint.spec.provenance["test_accuracy_percent"] == pytest.approx(measured, abs=1e-4)
    assert checkpoint.spec.original_parameter_bytes == checkpoint.parameter_bytes()
    assert checkpoint.spec.timesteps == 2


def test_progress_counts_every_step_and_reports_validation_once_an_epoch() -> None:
    seen: list[TrainingProgress] = []
    fit(make_model(), make_dataset(), OPTIONS, report=seen.append)
    assert {progress.steps for progress in seen} == {20}
    assert [p.step for p in seen if p.validation_accuracy is None] == list(range(1, 21))
    assert [p.step for p in seen if p.validation_accuracy is not None] == [5, 10, 15, 20]
    assert [p.share for p in seen if p.validation_accuracy is not None] == [0.25, 0.5, 0.75, 1.0]


def test_a_step_of_one_frame_counts_as_less_work() -> None:
    seen: list[TrainingProgress] = []
    fit(make_model(), make_dataset(), replace(OPTIONS, epochs=2, single_step_epochs=1), report=seen.append)
    shares = [progress.share for progress in seen if progress.validation_accuracy is None]
    assert shares == pytest.approx([at / 15 for at in (1, 2, 3, 4, 5, 7, 9, 11, 13, 15)])


def test_bfloat16_trains_too() -> None:
    model = make_model()
    result = fit(model, make_dataset(), replace(OPTIONS, epochs=16, bf16=True))
    assert result.validation_accuracy >= 80
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_training_that_diverges_says_so() -> None:
    model = make_model()
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(ConfigError, match="diverged"):
        fit(model, make_dataset(), OPTIONS)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused(split: str) -> None:
    empty = Split(x=np.zeros((0, 1, 16, 16), np.uint8), y=np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="stripes"):
        fit(make_model(), replace(make_dataset(), **{split: empty}), OPTIONS)


def test_accuracy_is_the_share_of_right_answers_and_leaves_the_mode_alone() -> None:
    class Brightest(torch.nn.Module):
        """Says 1 where the mean is above zero."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((0, 2, 3, 4))
            return torch.stack([-mean, mean], 1)

    x = np.array([0, 0, 255, 255, 255], np.uint8)[:, None, None, None] * np.ones((1, 16, 16), np.uint8)
    split = Split(x=x, y=np.array([0, 1, 1, 1, 1]))
    model = Brightest().train()
    assert accuracy(model, replace(make_dataset(), test=split), "test", timesteps=1, batch_size=2) == 80.0
    assert model.training
    assert accuracy(model, replace(make_dataset(), test=split), "test", timesteps=1, limit=1) == 100.0


@pytest.mark.parametrize(
    ("arch", "arguments", "says"),
    [
        ("digits-spikfomer", None, "Did you mean 'digits-spikformer'"),
        ("spikformer", {"num_classes": 3}, "comes from the data"),
        ("spikformer", {"embed_dims": 12}, "embed_dims"),
    ],
)
def test_architectures_that_cannot_be_trained_are_explained(
    tmp_path: Path, arch: str, arguments: dict[str, Any] | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        train(arch, make_dataset(), tmp_path / "out", options=OPTIONS, arguments=arguments)
    assert not any(tmp_path.iterdir())


def test_a_target_that_is_taken_and_a_device_that_is_absent_are_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("dear")
    seen: list[TrainingProgress] = []
    with pytest.raises(ConfigError, match="is no checkpoint"):
        train("spikformer", make_dataset(), tmp_path / "out", options=OPTIONS, arguments=SMALL, report=seen.append)
    with pytest.raises(ConfigError, match="no device 'abacus'"):
        train("spikformer", make_dataset(), tmp_path / "new", options=OPTIONS, device="abacus", report=seen.append)
    assert not seen
    assert (tmp_path / "out").read_text() == "dear"


def test_every_preset_builds_and_every_family_has_one() -> None:
    assert set(FAMILIES) <= set(PRESETS)
    told = {"in_channels": 3, "img_size_h": 32, "img_size_w": 32, "num_classes": 10}
    for preset in PRESETS.values():
        build_family(preset.family, {**told, **preset.arguments})


def test_a_shift_moves_whole_pixels_and_fills_with_black() -> None:
    x = np.full((200, 1, 6, 6), 9, np.uint8)
    x[:, 0, 2, 3] = 200
    moved = augment(x, FitOptions(epochs=1, shift_pixels=2), np.random.default_rng(0))
    places = {tuple(np.argwhere(image[0] == 200)[0]) for image in moved}
    assert places == {(row, column) for row in range(5) for column in range(1, 6)}
    assert set(np.unique(moved)) == {0, 9, 200}


def test_a_flip_mirrors_about_half_of_the_samples_and_all_frames_alike() -> None:
    x = np.zeros((100, 3, 2, 4, 6), np.uint8)
    x[..., 1, 0] = 7
    moved = augment(x, FitOptions(epochs=1, flip=True), np.random.default_rng(0))
    flipped = moved[:, 0, 0, 1, 5] == 7
    assert 30 < flipped.sum() < 70
    assert np.array_equal(moved[flipped], x[flipped][..., ::-1])
    assert np.array_equal(moved[~flipped], x[~flipped])


def test_a_quarter_turn_turns() -> None:
    x = np.random.default_rng(0).integers(0, 256, (1, 1, 5, 5), dtype=np.uint8)

    class Always:
        """Draws the largest value each time."""

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            return np.full(size, high)

        def integers(self, low: int, high: int, size: tuple[int, int]) -> np.ndarray:
            return np.zeros(size, int)

    turned = augment(x, FitOptions(epochs=1, rotate_degrees=90), Always())
    assert np.array_equal(turned[0, 0], np.rot90(x[0, 0])) or np.array_equal(turned[0, 0], np.rot90(x[0, 0], -1))


def test_without_options_samples_stay_the_same_object() -> None:
    x = np.zeros((1, 1, 4, 4), np.uint8)
    assert augment(x, FitOptions(epochs=1), np.random.default_rng(0)) is x
