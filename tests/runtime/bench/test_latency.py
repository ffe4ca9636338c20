from __future__ import annotations

import pytest

from svitkit.runtime.bench.latency import instabilities, percentile, read_stability, summarize_latency


def test_percentiles_are_samples_by_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert [percentile(ordered, p) for p in (50, 90, 99)] == [50.0, 90.0, 99.0]
    assert percentile([7.0], 50) == 7.0


@pytest.mark.parametrize(
    ("count", "supported"),
    [
        (4, set()),
        (5, {"p50"}),
        (63, {"p50"}),
        (64, {"p50", "p90"}),
        (129, {"p50", "p90"}),
        (130, {"p50", "p90", "p95"}),
        (661, {"p50", "p90", "p95"}),
        (662, {"p50", "p90", "p95", "p99"}),
    ],
)
def test_only_percentiles_that_the_count_supports_are_stated(count: int, supported: set[str]) -> None:
    latency = summarize_latency([1_000_000] * count, emulated=False)
    stated = {name for name in ("p50", "p90", "p95", "p99") if getattr(latency, name) is not None}
    assert stated == supported


def test_latencies_are_milliseconds() -> None:
    latency = summarize_latency(range(1_000_000, 101_000_000, 1_000_000), emulated=True)
    assert (latency.count, latency.min, latency.mean, latency.max) == (100, 1.0, 50.5, 100.0)
    assert (latency.p50, latency.p90, latency.emulated) == (50.0, 90.0, True)


def test_steady_samples_with_one_outlier_are_stable() -> None:
    assert instabilities([1000, 1010, 990, 1000, 9000, 1005, 995, 1000], inputs=1) == []


def test_inputs_that_take_different_times_are_stable_if_each_one_repeats() -> None:
    assert instabilities([1000, 2000] * 20, inputs=2) == []


def test_samples_of_one_input_that_spread_widely_are_unstable() -> None:
    (reason,) = instabilities([1000, 2000] * 20, inputs=1)
    assert reason == "unstable: the middle half of an input's samples spreads over 100% of their median"


def test_samples_that_drift_are_unstable() -> None:
    (reason,) = instabilities([1000] * 30 + [1200] * 30, inputs=1)
    assert reason == "unstable: the second half of the samples is +20% from the first"


def test_too_few_samples_are_no_measurement() -> None:
    assert instabilities([1, 2, 3, 4], inputs=1) == ["4 samples do not support a median; 5 are wanted"]


def test_more_inputs_than_samples_are_no_obstacle() -> None:
    assert instabilities([1000] * 6, inputs=360) == []


def test_what_is_judged_is_also_told() -> None:
    stability = read_stability([100, 100, 100, 100, 150, 150, 150, 150], inputs=1)
    assert stability is not None
    assert (stability.spread, stability.drift) == (0.5, 0.5)
    assert stability.variation == pytest.approx(0.2138, abs=1e-4)
    assert read_stability([100] * 4, inputs=1) is None
