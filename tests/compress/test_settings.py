from __future__ import annotations

from typing import Any

import pytest

from svitkit.compress.options import configure
from svitkit.compress.primesvt import PrimeSVTConfig
from svitkit.compress.settings import read_settings
from svitkit.errors import ConfigError


def test_numbers_lists_words_and_none_are_read() -> None:
    assert read_settings(["epsilon=1", "rates=0.1, 0.3,0.5", "stop_at_saving=False", "max_targets=none"]) == {
        "epsilon": 1,
        "rates": (0.1, 0.3, 0.5),
        "stop_at_saving": False,
        "max_targets": None,
    }
    assert read_settings(["order_by=filters"]) == {"order_by": "filters"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["epsilon"], "'epsilon' sets nothing"),
        (["=1"], "sets nothing"),
        (["epsilon="], "sets nothing"),
        (["epsilon=,"], "sets nothing"),
        (["epsilon=1", "epsilon=2"], "set twice"),
    ],
)
def test_texts_that_set_nothing_or_set_twice_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(texts)


def test_settings_stand_beside_the_constraints_and_a_single_value_may_stand_for_a_list() -> None:
    config = configure("primesvt", 2.0, 0.4, read_settings(["rates=0.5", "epsilon=1", "gain_of=group"]))
    assert config == PrimeSVTConfig(max_drop=2.0, min_saving=0.4, rates=(0.5,), epsilon=1.0, gain_of="group")


def test_every_assumption_can_be_set() -> None:
    other: dict[str, Any] = {
        "rates": (0.2, 0.4),
        "epsilon": 0.5,
        "min_score": 0.1,
        "gain_of": "group",
        "max_targets": 3,
        "order_by": "filters",
        "residual_widths": True,
        "channel_multiple": 8,
        "budgets": (0.5,),
        "stop_at_saving": False,
    }
    config, default = configure("primesvt", 3.0, 0.25, other), PrimeSVTConfig()
    assert {name: getattr(config, name) for name in other} == other
    assert all(getattr(default, name) != value for name, value in other.items())


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("primesvt", {"epsilo": 1}, "Did you mean 'epsilon'"),
        ("primesvt", {"max_drop": 1}, "--max-drop"),
        ("primesvt", {"epsilon": -1}, "epsilon is -1: Input should be greater"),
        ("primesvt", {"epsilon": "much"}, "epsilon is 'much'"),
        ("primesvt", {"rates": (0.1, 1.5)}, "rates.1 is 1.5: Input should be less than 1"),
        ("primesvt", {"rates": (0.5, 0.1)}, "must ascend"),
        ("primesvt", {"rates": ()}, "rates is ()"),
        ("primesvt", {"order_by": "name"}, "'slices' or 'filters'"),
        ("primesvt", {"residual_widths": "perhaps"}, "residual_widths is 'perhaps'"),
        ("int8", {"epsilon": 1}, "'int8' has no settings"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    method: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(method, 3.0, 0.25, settings)
    assert message in str(caught.value)
