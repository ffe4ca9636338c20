"""The verb train: its options reach the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from svitkit.cli.app import Session, app
from svitkit.errors import ConfigError
from svitkit.presets import PRESETS, FitOptions


class StoppedError(Exception):
    """Stands in for the training."""


def options_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, FitOptions]:
    """Returns the name of the data and the options with which ``svitkit train`` would train."""
    seen: list[tuple[str, FitOptions]] = []

    def train(arch: str, dataset: Any, out: Path, *, options: FitOptions, **_: Any) -> None:
        seen.append((dataset.name, options))
        raise StoppedError

    monkeypatch.setattr("svitkit.training.train", train)
    result = CliRunner().invoke(app, ["--debug", "train", *arguments], obj=Session())
    if not isinstance(result.exception, StoppedError):
        assert result.exception is not None
        raise result.exception
    return seen[0]


def test_the_options_change_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = ("--lr", "0.01", "--batch-size", "16", "--epochs", "7", "--seed", "3", "--timesteps", "2")
    data, options = options_of(monkeypatch, "digits-spikformer", "-o", str(tmp_path / "out"), *given)
    assert data == "digits"
    assert (options.lr, options.batch_size, options.epochs, options.seed, options.timesteps) == (0.01, 16, 7, 3, 2)
    assert options.shift_pixels == PRESETS["digits-spikformer"].fit.shift_pixels


def test_without_options_the_recipe_is_the_presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, options = options_of(monkeypatch, "digits-spikformer", "-o", str(tmp_path / "out"))
    assert (data, options) == ("digits", PRESETS["digits-spikformer"].fit)


def test_a_preset_for_other_data_asks_for_their_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data fashion-mnist:PATH"):
        options_of(monkeypatch, "fashion-spikformer", "-o", str(tmp_path / "out"))
