from __future__ import annotations

import pytest

from svitkit.report.scale import make_scale, tick_text


def test_values_close_together_are_linear_and_far_apart_logarithmic():
    assert not make_scale("ms", [1.0, 3.0]).log
    assert make_scale("ms", [1.0, 30.0]).log
    assert not make_scale("ms", [0.0, 30.0]).log


@pytest.mark.parametrize("values", [[1.0, 3.0], [0.03, 0.3], [5.0, 7000.0], [99.4], [0.0, 0.0], [99.0, 100.0]])
def test_ticks_are_round_few_and_within_the_axis(values):
    scale = make_scale("x", values)
    assert 2 <= len(scale.ticks) <= 7
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert all(len(f"{tick:g}".replace(".", "").strip("0")) <= 4 for tick in scale.ticks)
    assert all(0 <= scale.place(value) <= 1 for value in values)


def test_places_are_proportional_to_differences_or_to_ratios():
    linear, log = make_scale("x", [1.0, 2.0, 3.0]), make_scale("x", [1.0, 10.0, 100.0])
    assert linear.place(2.0) == pytest.approx(0.5)
    assert log.place(10.0) == pytest.approx(0.5)


def test_no_accuracy_is_above_a_hundred_percent():
    scale = make_scale("accuracy", [98.0, 100.0], highest=100.0)
    assert scale.high == 100.0
    assert scale.place(100.0) == 1.0


@pytest.mark.parametrize(("value", "text"), [(0.1 + 0.2, "0.3"), (2000.0, "2,000"), (12.5, "12.5")])
def test_ticks_are_written_without_the_noise_of_floats(value, text):
    assert tick_text(value) == text
