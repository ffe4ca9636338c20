from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svitkit.runtime.bench.gate import Comparison, Gate, compare_runs
from svitkit.runtime.bench.latency import summarize_latency
from svitkit.runtime.bench.record import Accuracy, BenchRecord
from tests.runtime.bench.test_record import ORIN, gpu_record, record

PLACE = "pi4-left"
INPUTS = 8


def measured(factor: float = 1.0, *, n: int = 400, seed: int = 0, place: str = PLACE, **changes: object) -> BenchRecord:
    """A record of a network that takes 2 ms, more or less by its input and by a little noise."""
    noise = np.exp(0.02 * np.random.default_rng(seed).standard_normal(n))
    samples = tuple(map(int, factor * 2e6 * (1 + 0.05 * (np.arange(n) % INPUTS)) * noise))
    made = replace(record(), place=place, samples_ns=samples, latency_ms=summarize_latency(samples, emulated=False))
    return replace(made, **changes)


def compare(before: BenchRecord, after: BenchRecord, gate: Gate | None = None) -> dict[str, Comparison]:
    return {each.metric: each for each in compare_runs([([before], after)], gate or Gate())[0]}


def accuracy(percent: float, count: int = 1000, dataset: str = "digits") -> dict[str, Accuracy]:
    return {"accuracy": Accuracy(percent=percent, count=count, dataset=dataset)}


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "passed"), (0.8, "passed"), (1.02, "passed"), (1.05, "undecided"), (1.1, "regression")],
)
def test_a_run_is_slower_only_if_the_whole_interval_is_beyond_the_limit(factor: float, verdict: str) -> None:
    latency = compare(measured(), measured(factor, seed=1))["latency"]
    assert latency.verdict == verdict
    assert latency.change is not None
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < latency.change < latency.high
    assert latency.change == pytest.approx(factor - 1, abs=0.01)
    assert (latency.before, latency.after) == (measured().latency_ms.p50, measured(factor, seed=1).latency_ms.p50)


def test_the_limit_is_the_users() -> None:
    before, after = measured(), measured(1.1, seed=1)
    assert compare(before, after, Gate(max_slowdown=0.2))["latency"].verdict == "passed"
    assert compare(before, measured(1.05, seed=1), Gate(max_slowdown=0.02))["latency"].verdict == "regression"


def test_few_samples_decide_nothing_where_many_do() -> None:
    few = compare(measured(n=50), measured(1.07, n=50, seed=1))["latency"]
    assert few.verdict == "undecided"
    assert compare(measured(n=2000), measured(1.07, n=2000, seed=1))["latency"].verdict == "regression"
    none = compare(measured(n=20), measured(2.0, n=20, seed=1))["latency"]
    assert (none.verdict, none.reason) == ("not compared", "20 samples are too few, 4 blocks of 8 are wanted")


def test_the_more_is_compared_the_wider_the_intervals() -> None:
    pair = ([measured()], measured(seed=1))
    one, many = compare_runs([pair], Gate())[0][0], compare_runs([pair] * 8, Gate())[0][0]
    assert one.low is not None
    assert many.low is not None
    assert many.low < one.low
    assert many.change == one.change


def test_a_rack_without_a_change_is_quiet_night_after_night() -> None:
    """20 nights of 10 comparisons at the limit itself: 99 % of the nights should pass."""
    pairs = [([measured(n=120, seed=2 * i)], measured(1.05, n=120, seed=2 * i + 1)) for i in range(200)]
    nights = [compare_runs(pairs[i : i + 10], Gate()) for i in range(0, 200, 10)]
    assert sum(any(run[0].verdict == "regression" for run in night) for night in nights) <= 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"emulated": True}, "the times of an emulator are not a board's"),
        ({"threads": 4}, "the baseline's threads is 2, now 4"),
        ({"prefix": ("taskset", "-c", "0")}, "the baseline's prefix is None, now ('taskset', '-c', '0')"),
        ({"device": "Raspberry Pi 5"}, "the baseline's device is Raspberry Pi 4 Model B Rev 1.4, now Raspberry Pi 5"),
        ({"valid": False, "reasons": ("throttled",)}, "the run is not valid"),
    ],
)
def test_times_that_tell_nothing_of_the_bundle_are_not_compared(changes: dict[str, object], reason: str) -> None:
    latency = compare(measured(), measured(3.0, seed=1, **changes))["latency"]
    assert (latency.verdict, latency.reason, latency.change) == ("not compared", reason, None)


def test_of_several_nights_those_are_compared_that_can_be() -> None:
    nights = [measured(seed=i, threads=2 if i else 1) for i in range(4)]
    latency = compare_runs([(nights, measured(1.2, seed=9))], Gate())[0][0]
    assert latency.verdict == "regression"
    none = compare_runs([(nights[:1], measured(1.2, seed=9))], Gate())[0][0]
    assert none.verdict == "not compared"


def test_several_nights_tell_how_much_runs_on_a_place_differ() -> None:
    """Medians 6 % apart from night to night, so 8 % more than their mean is nothing special; on a quiet place it is."""
    restless = [measured(1 + 0.06 * (i % 2), seed=i) for i in range(6)]
    quiet = [measured(1.03, seed=i) for i in range(6)]
    assert compare_runs([(restless, measured(1.11, seed=9))], Gate())[0][0].verdict == "undecided"
    assert compare_runs([(quiet, measured(1.11, seed=9))], Gate())[0][0].verdict == "regression"
    elsewhere = [
        ([replace(run, place="pi4-right") for run in restless], measured(1.03, place="pi4-right")),
        (quiet, measured(1.11, seed=9)),
    ]
    assert compare_runs(elsewhere, Gate())[1][0].verdict == "regression", "another board's restlessness counts"


def test_what_a_bundle_was_before_it_became_faster_hides_no_regression() -> None:
    """Since Wednesday the bundle takes 30 % less; on Friday it takes 10 % more than on Thursday."""
    nights = [measured(seed=0), measured(seed=1), *(measured(0.7, seed=i, bundle_sha256="cd" * 32) for i in (2, 3))]
    friday = measured(0.77, seed=4, bundle_sha256="ef" * 32)
    latency = compare_runs([(nights, friday)], Gate())[0][0]
    assert (latency.verdict, latency.change) == ("regression", pytest.approx(0.1, abs=0.01))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(97.0, 97.0, "passed"), (97.0, 98.0, "passed"), (97.0, 96.5, "undecided"), (97.0, 90.0, "regression")],
)
def test_accuracy_is_worse_only_if_the_images_show_it(before: float, after: float, verdict: str) -> None:
    old, new = measured(**accuracy(before)), measured(bundle_sha256="cd" * 32, **accuracy(after))
    found = compare(old, new)["accuracy"]
    assert (found.verdict, found.change) == (verdict, pytest.approx(after - before))


def test_one_bundle_with_two_accuracies_is_broken() -> None:
    found = compare(measured(**accuracy(97.0)), measured(**accuracy(97.1)))["accuracy"]
    assert (found.verdict, found.reason) == ("regression", "the same bundle named other images right")


def test_accuracies_on_other_images_are_not_compared() -> None:
    found = compare(measured(**accuracy(97.0)), measured(**accuracy(50.0, count=10)))["accuracy"]
    assert found.reason == "the baseline's is of 1000 images of digits, now 10 of digits"
    assert compare(measured(accuracy=None), measured())["accuracy"].reason == "the baseline has no accuracy"


def test_bytes_are_compared_exactly_and_those_of_an_emulator_are_not() -> None:
    before = measured()
    grown = replace(before.memory, vm_hwm_bytes=round(5_242_880 * 1.06), weights_bytes=2150)
    found = compare(before, measured(memory=grown))
    assert (found["peak memory"].verdict, found["weights"].verdict) == ("regression", "passed")
    assert found["weights"].change == pytest.approx(2150 / 2048 - 1)
    assert compare(before, measured(memory=grown), Gate(max_growth=0.01))["weights"].verdict == "regression"
    emulated = compare(before, measured(memory=replace(grown, weights_bytes=4096), emulated=True))
    assert (emulated["peak memory"].verdict, emulated["weights"].verdict) == ("not compared", "regression")


def test_a_run_on_the_gpu_is_not_slower_or_bigger_than_one_on_the_cpu() -> None:
    on_cpu = measured()
    on_gpu = measured(ran_on=ORIN, memory=gpu_record().memory)
    for before, after, says in (
        (on_cpu, on_gpu, "the baseline's processor is CPU, now GPU Orin (CUDA 12.6)"),
        (on_gpu, on_cpu, "the baseline's processor is GPU Orin (CUDA 12.6), now CPU"),
    ):
        found = compare(before, after)
        for metric in ("latency", "peak memory"):
            assert (found[metric].verdict, found[metric].reason) == ("not compared", says)
    assert compare(on_gpu, on_gpu)["peak memory"].verdict == "passed"


def test_another_version_of_a_gpus_driver_is_another_condition() -> None:
    newer = measured(ran_on=replace(ORIN, driver="CUDA 12.8"))
    assert "now GPU Orin (CUDA 12.8)" in (compare(measured(ran_on=ORIN), newer)["latency"].reason or "")
