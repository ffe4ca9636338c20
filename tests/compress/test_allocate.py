from __future__ import annotations

import itertools

import pytest

from svitkit.compress.allocate import Curve, Widths, path, rising

LINE = Curve(name="a", widths=(100, 50, 10), damage=(0.0, 1.0, 5.0))


def test_damage_between_measured_widths_lies_on_a_line() -> None:
    assert [LINE.at(width) for width in (100, 75, 50, 30, 10, 5)] == [0.0, 0.5, 1.0, 3.0, 5.0, 5.0]
    assert LINE.scaled(2.0).at(75) == 1.0


def test_noise_does_not_let_damage_fall() -> None:
    assert rising([0.0, -0.1, 0.3, 0.2, 0.5]) == (0.0, 0.0, 0.3, 0.3, 0.5)


def _cost(widths: Widths) -> float:
    return widths["a"] * widths["b"] + 3 * widths["b"]


CURVES = (
    Curve(name="a", widths=(8, 6, 4, 2), damage=(0.0, 0.1, 0.4, 2.0)),
    Curve(name="b", widths=(8, 6, 4, 2), damage=(0.0, 0.6, 0.9, 1.0)),
)
GRIDS = {"a": (8, 6, 4, 2), "b": (8, 6, 4, 2)}


def test_the_path_begins_whole_ends_smallest_and_gets_cheaper_at_every_step() -> None:
    steps = path(CURVES, GRIDS, _cost)
    assert steps[0].widths == {"a": 8, "b": 8}
    assert steps[-1].widths == {"a": 2, "b": 2}
    for before, after in itertools.pairwise(steps):
        assert after.cost < before.cost
        assert after.damage >= before.damage
        assert after.cost == pytest.approx(_cost(after.widths))


def test_no_network_on_the_grid_is_cheaper_and_less_damaged_than_a_step() -> None:
    damage = {curve.name: curve for curve in CURVES}
    every = [dict(zip("ab", widths, strict=True)) for widths in itertools.product(GRIDS["a"], GRIDS["b"])]
    for step in path(CURVES, GRIDS, _cost)[:3]:
        for widths in every:
            total = sum(damage[name].at(width) for name, width in widths.items())
            assert total >= step.damage - 1e-9 or _cost(widths) >= step.cost


def test_a_flat_stretch_behind_a_steep_one_is_reached_in_one_cut() -> None:
    steps = path(CURVES[1:], {"b": GRIDS["b"]}, lambda widths: float(widths["b"]))
    assert [step.widths["b"] for step in steps] == [8, 2]


def test_free_cuts_come_first() -> None:
    curves = (CURVES[0], Curve(name="b", widths=(8, 4), damage=(0.0, 0.0)))
    assert path(curves, {"a": (8, 4), "b": (8, 4)}, _cost)[1].widths == {"a": 8, "b": 4}
