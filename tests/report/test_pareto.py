from __future__ import annotations

from dataclasses import replace

import pytest

from svitkit.report.pareto import Point, best, front
from svitkit.runtime.bench.record import Accuracy
from tests.report.records import ORIN, record, run


def test_the_front_holds_what_nothing_beats_and_equals_stay_together():
    costs = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (4.0, 1.0), (4.0, 1.0), (5.0, 5.0)]
    assert front(costs) == [0, 1, 3, 4]


def test_one_who_is_worse_everywhere_is_not_on_the_front_of_three():
    runs = [
        run("small", record(accuracy=90.0, peak_kib=1000, samples_ms=(3.0,) * 5)),
        run("fast", record(accuracy=90.0, peak_kib=2000, samples_ms=(1.0,) * 5)),
        run("accurate", record(accuracy=99.0, peak_kib=3000, samples_ms=(5.0,) * 5)),
        run("beaten", record(accuracy=89.0, peak_kib=2500, samples_ms=(2.0,) * 5)),
    ]
    assert best([Point(each) for each in runs]) == {
        f"{name} on raspberry-pi-4" for name in ("small", "fast", "accurate")
    }


def test_every_set_of_test_images_has_a_front_of_its_own():
    easy = replace(record(), accuracy=Accuracy(percent=99.0, count=9, dataset="easy"))
    hard = replace(record(), accuracy=Accuracy(percent=50.0, count=9, dataset="hard"))
    found = best([Point(run("one", easy)), Point(run("other", hard))])
    assert found == {"one on raspberry-pi-4", "other on raspberry-pi-4"}


def test_an_invalid_run_is_on_no_front_and_beats_nobody():
    runs = [
        run("throttled", record(accuracy=99.0, samples_ms=(0.1,) * 5, reasons=("throttled",))),
        run("honest", record(accuracy=90.0, samples_ms=(1.0,) * 5)),
    ]
    assert best([Point(each) for each in runs]) == {"honest on raspberry-pi-4"}


def test_every_board_has_a_front_of_its_own():
    runs = [
        run("a", record(board="slow", accuracy=90.0, samples_ms=(9.0,) * 5)),
        run("a", record(board="quick", accuracy=90.0, samples_ms=(1.0,) * 5)),
    ]
    assert best([Point(each) for each in runs]) == {"a on slow", "a on quick"}


def test_cpu_and_gpu_of_a_board_have_fronts_of_their_own():
    runs = [
        run("a", record(accuracy=90.0, samples_ms=(9.0,) * 5)),
        run("a", record(accuracy=90.0, samples_ms=(1.0,) * 5, ran_on=ORIN)),
    ]
    assert best([Point(each) for each in runs]) == {"a on raspberry-pi-4", "a on raspberry-pi-4, GPU"}


def test_the_time_of_an_emulator_decides_on_no_front():
    runs = [
        run("slow", record(board="qemu", emulated=True, accuracy=90.0, samples_ms=(9.0,) * 5)),
        run("fast", record(board="qemu", emulated=True, accuracy=89.0, samples_ms=(1.0,) * 5)),
    ]
    assert best([Point(each) for each in runs]) == {"slow on qemu"}


def test_too_few_samples_for_a_median_and_no_images_cost_nothing_known():
    assert Point(run(found=record(samples_ms=(1.0,) * 4))).costs is None
    assert Point(run(found=record(accuracy=None))).costs is None
    assert Point(run(found=record(accuracy=None))).accuracy_range is None


def test_the_interval_of_accuracy_is_wilsons():
    # 190 of 200: centre (p + z^2/2n) / (1 + z^2/n), half width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n), z = 1.959964
    assert Point(run(found=record(accuracy=95.0))).accuracy_range == pytest.approx((91.0425, 97.2619), abs=1e-3)


def test_latency_has_the_quartiles_of_its_samples():
    assert Point(run(found=record(samples_ms=(4.0, 1.0, 3.0, 2.0, 5.0)))).latency_range == (2.0, 4.0)


def test_memory_of_a_board_is_its_peak_and_of_an_emulator_the_plan():
    assert Point(run(found=record(peak_kib=4096))).memory_kib == 4096
    assert Point(run(found=record(peak_kib=4096, emulated=True))).memory_kib == 512 + 64 + 192
