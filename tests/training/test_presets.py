"""Recipes: what they are made for, and what may be changed."""

from __future__ import annotations

import pytest

from svitkit.data.load import KINDS
from svitkit.errors import ConfigError
from svitkit.presets import PRESETS, data_of, fit_options


def test_a_preset_is_made_for_a_kind_of_data_that_can_be_loaded() -> None:
    assert {preset.data for preset in PRESETS.values()} <= set(KINDS)
    assert all(preset.data == "fashion-mnist" for name, preset in PRESETS.items() if name.startswith("fashion-"))


def test_without_data_the_kind_of_the_preset_counts_and_says_that_it_needs_a_path() -> None:
    assert data_of("digits-spikformer", None) == "digits"
    assert data_of("fashion-sdt", "fashion-mnist:x.npz") == "fashion-mnist:x.npz"
    with pytest.raises(ConfigError, match=r"'fashion-sdt' is made for .*--data fashion-mnist:PATH"):
        data_of("fashion-sdt", None)
    with pytest.raises(ConfigError, match="Did you mean 'fashion-sdt'"):
        data_of("fashion-sd", None)


def test_changes_are_taken_and_the_rest_stays() -> None:
    options = fit_options("digits-spikformer", lr=0.01, batch_size=16)
    assert (options.lr, options.batch_size) == (0.01, 16)
    assert options.rotate_degrees == PRESETS["digits-spikformer"].fit.rotate_degrees


@pytest.mark.parametrize(("epochs", "single"), [(1, 0), (2, 1), (5, 4), (10, 8), (30, 24)])
def test_epochs_of_a_single_step_keep_their_share(epochs: int, single: int) -> None:
    assert PRESETS["fashion-sdt"].fit.epochs == 10
    assert fit_options("fashion-sdt", epochs=epochs).single_step_epochs == single
    assert fit_options("digits-spikformer", epochs=epochs).single_step_epochs == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr": 0.0}, r"lr is 0\.0: Input should be greater than 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"single_step_epochs": 10}, "single_step_epochs must be less than epochs, 10"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fit_options("fashion-sdt", **changes)
