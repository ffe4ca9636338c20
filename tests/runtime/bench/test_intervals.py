"""Coverage and power on simulated samples; the numbers of hand-made ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from svitkit.runtime.bench.intervals import (
    Series,
    Spread,
    latency_ratio,
    log_latency_spread,
    run_spread,
    share_difference,
)

INPUTS = 8
ALPHA = 0.01
Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


def alone(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Samples that know nothing of each other, with a few that were interrupted."""
    return np.exp(0.05 * random.standard_normal(n)) + (random.random(n) < 0.03) * random.gamma(2, 2, n)


def in_a_row(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Samples whose neighbours are alike: correlation 0.8 with the next one."""
    values, noise = np.empty(n), random.standard_normal(n)
    values[0] = noise[0]
    for i in range(1, n):
        values[i] = 0.8 * values[i - 1] + 0.6 * noise[i]
    return np.exp(0.05 * values)


def series(random: np.random.Generator, noise: Noise, n: int = 96, factor: float = 1.0) -> Series:
    """A millisecond for the first input, and up to 70 % more for the others."""
    inputs = 1e6 * (1 + 0.1 * np.arange(INPUTS))[np.arange(n) % INPUTS]
    return Series(samples=factor * inputs * noise(random, n), inputs=INPUTS)


def constant(value: float, n: int = 40) -> Series:
    return Series(samples=np.full(n, value), inputs=1)


@pytest.mark.parametrize(("noise", "most"), [(alone, 5), (in_a_row, 7)])
def test_of_equal_runs_few_are_called_different(noise: Noise, most: int) -> None:
    """In 120 comparisons at 99 % 1.2 misses are expected, more than 5 once in 600. Samples of a row miss more often."""
    random = np.random.default_rng(1)
    found = [latency_ratio([series(random, noise)], series(random, noise), alpha=ALPHA) for _ in range(120)]
    assert sum(not ratio.low <= 1 <= ratio.high for ratio in found) <= most


def test_samples_of_a_row_drawn_singly_would_be_wrong_far_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    pairs = [[Series(samples=in_a_row(random, 96), inputs=1) for _ in range(2)] for _ in range(100)]

    def misses() -> int:
        found = [latency_ratio(pair[:1], pair[1], alpha=ALPHA) for pair in pairs]
        return sum(not ratio.low <= 1 <= ratio.high for ratio in found)

    in_blocks = misses()
    monkeypatch.setattr(Series, "block", 1)
    monkeypatch.setattr("svitkit.runtime.bench.intervals.LENGTHS", (1,))
    assert misses() > 25 > 8 > in_blocks


def test_a_run_that_is_slower_by_a_tenth_is_seen_to_be_slower_by_a_twentieth() -> None:
    random = np.random.default_rng(2)
    found = [
        latency_ratio([series(random, alone, 400)], series(random, alone, 400, 1.1), alpha=ALPHA) for _ in range(20)
    ]
    assert all(ratio.low > 1.05 for ratio in found[:19])
    assert abs(np.mean([ratio.estimate for ratio in found]) - 1.1) < 0.01


def test_a_block_has_whole_turns_of_the_inputs_and_about_the_root_of_the_samples() -> None:
    assert (Series(samples=np.ones(1000), inputs=8).block, Series(samples=np.ones(1000), inputs=8).blocks) == (4, 31)
    assert (Series(samples=np.ones(50), inputs=8).block, Series(samples=np.ones(50), inputs=8).blocks) == (1, 6)
    assert Series(samples=np.ones(10), inputs=8).blocks == 1


def test_the_latency_of_a_run_is_the_mean_of_its_inputs() -> None:
    """Two inputs of 1 and 4: the geometric mean of their medians is 2, whatever disturbed single samples."""
    given = Series(samples=np.array([1.0, 4.0, 1.0, 90.0, 7.0, 4.0, 9.0]), inputs=2)
    assert given.turns.tolist() == [[1, 4], [1, 90], [7, 4]]
    assert given.log_latency == pytest.approx(np.log(2))


def test_the_same_samples_give_the_same_spread_in_one_piece_or_many(monkeypatch: pytest.MonkeyPatch) -> None:
    given = series(np.random.default_rng(3), alone)
    whole = log_latency_spread(given)
    assert whole == log_latency_spread(given)
    monkeypatch.setattr("svitkit.runtime.bench.intervals.CHUNK", 7000)
    assert log_latency_spread(given) == whole


def test_samples_without_any_spread_leave_no_doubt() -> None:
    ratio = latency_ratio([constant(100.0)], constant(107.0), alpha=ALPHA)
    assert (ratio.low, ratio.high) == pytest.approx((1.07, 1.07))


def test_how_much_runs_differ_is_pooled_over_programs() -> None:
    runs = [[constant(100.0), constant(102.0), constant(104.0)], [constant(7.0), constant(7.07), constant(7.14)], []]
    spread = run_spread(runs)
    assert spread is not None
    logs = [np.log([100, 102, 104]), np.log([7, 7.07, 7.14])]
    wanted = sum(((m - m.mean()) ** 2).sum() for m in logs) / 4
    assert (spread.variance, spread.freedom) == (pytest.approx(wanted), 4)
    assert run_spread(runs[1:]) is None, "two degrees of freedom say nothing"


def test_what_runs_differ_by_widens_the_interval() -> None:
    """By hand: three runs with the logarithm 0 in the mean, Student's t of 4 degrees at 99 %: 4.604."""
    before = [constant(1.0)] * 3
    ratio = latency_ratio(before, constant(1.1), alpha=ALPHA, spread=Spread(variance=0.0004, freedom=4))
    half = 4.604 * 0.02 * np.sqrt(4 / 3)
    assert np.log([ratio.low, ratio.estimate, ratio.high]) == pytest.approx(
        [np.log(1.1) - half, np.log(1.1), np.log(1.1) + half], abs=1e-4
    )


def test_runs_that_differ_from_night_to_night_raise_no_false_alarm() -> None:
    """Every run has a factor of its own (sigma 3 %): one night calls them different, five nights do not."""
    random = np.random.default_rng(4)
    alarms = {1: 0, 5: 0}
    for _ in range(60):
        factors = np.exp(0.03 * random.standard_normal(6))
        nights = [Series(samples=f * np.exp(0.01 * random.standard_normal(60)), inputs=1) for f in factors]
        *before, now = nights
        alarms[5] += latency_ratio(before, now, alpha=ALPHA, spread=run_spread([before])).low > 1.02
        alarms[1] += latency_ratio(before[-1:], now, alpha=ALPHA).low > 1.02
    assert alarms[1] > 5
    assert alarms[5] <= 1


@pytest.mark.parametrize(
    ("before", "after", "low", "high"),
    # Newcombe 1998, table II, method 10; he subtracts the other way round
    [((48, 80), (56, 70), -0.3339, -0.0524), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 10), 0.6075, 1.0)],
)
def test_differences_of_shares_are_those_of_the_literature(
    before: tuple[int, int], after: tuple[int, int], low: float, high: float
) -> None:
    found = share_difference(before, after, alpha=0.05)
    assert (-found.high, -found.low) == pytest.approx((low, high), abs=5e-4)
