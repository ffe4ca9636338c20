from __future__ import annotations

import ctypes
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from svitkit.errors import RunError, VerificationError
from svitkit.runtime.bench.profile import LayerTime, PlannedCall, Profile, read_calls, read_profile
from svitkit.runtime.bench.profile_table import render_profile, render_whole
from svitkit.runtime.bench.runner_report import parse_report
from tests.runtime import bundles
from tests.runtime.bench.test_record import record

OK, BAD_ARGUMENT = 0, 1
REPORT = (
    '"load_ns":1,"first_ns":2,"warmup":0,"samples_ns":[],"weights_bytes":4,"state_bytes":5,"workspace_bytes":6,'
    '"cpu_features":[],"threads":1'
)


class CallProfile(ctypes.Structure):
    """``svit_call_profile`` of svit.h."""

    _fields_ = (
        ("layer", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        ("total_ns", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
    )


class Loaded:
    """The tiny network behind the C API alone."""

    def __init__(self, bundle: Path) -> None:
        self.library = ctypes.CDLL(str(bundle / "libsvit.so"))
        self.library.svit_call_count.restype = ctypes.c_size_t
        self.library.svit_last_error.restype = ctypes.c_char_p
        self.session = ctypes.c_void_p()
        assert self.library.svit_load(str(bundle).encode(), ctypes.byref(self.session), None, ctypes.c_size_t(0)) == OK

    def run(self) -> list[float]:
        x, y = np.ones(8, np.float32), np.zeros(2, np.float32)
        sizes = ctypes.c_size_t(x.nbytes), ctypes.c_size_t(y.nbytes)
        x_data, y_data = ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data)
        assert self.library.svit_run(self.session, x_data, sizes[0], y_data, sizes[1]) == OK
        return y.tolist()

    def costs(self) -> list[CallProfile]:
        found = [CallProfile() for _ in range(self.library.svit_call_count(self.session))]
        for index, cost in enumerate(found):
            assert self.library.svit_profile_call(self.session, ctypes.c_size_t(index), ctypes.byref(cost)) == OK
        return found


@pytest.fixture
def loaded(built_host_bundle: Path) -> Iterator[Loaded]:
    network = Loaded(built_host_bundle)
    yield network
    network.library.svit_free(network.session)


def test_libsvit_names_every_call_and_counts_none_until_it_is_asked(loaded: Loaded) -> None:
    loaded.run()
    assert [(cost.layer, cost.kernel) for cost in loaded.costs()] == [
        (b"stem", b"scale"),
        (b"fire", b"fire"),
        (b"head", b"count"),
    ]
    assert [(cost.total_ns, cost.count) for cost in loaded.costs()] == [(0, 0)] * 3


def test_a_profiled_run_computes_the_same_and_costs_add_up(loaded: Loaded) -> None:
    wanted = loaded.run()
    assert loaded.library.svit_set_profile(loaded.session, 1) == OK
    first = [loaded.run() for _ in range(100)]
    once = [(cost.total_ns, cost.count) for cost in loaded.costs()]
    second = [loaded.run() for _ in range(100)]
    twice = [(cost.total_ns, cost.count) for cost in loaded.costs()]
    assert first == second == [wanted] * 100
    assert [count for _, count in once] == [100] * 3
    assert [count for _, count in twice] == [200] * 3
    assert all(0 < before < after for (before, _), (after, _) in zip(once, twice, strict=True))


def test_a_profile_that_is_switched_off_stays_empty_and_one_switched_on_again_starts_at_zero(loaded: Loaded) -> None:
    for on, counted in ((1, 5), (0, 0), (1, 5)):
        assert loaded.library.svit_set_profile(loaded.session, on) == OK
        for _ in range(5):
            loaded.run()
        assert [cost.count for cost in loaded.costs()] == [counted] * 3


def test_calls_that_do_not_exist_are_refused(loaded: Loaded) -> None:
    cost = CallProfile()
    ask = loaded.library.svit_profile_call
    assert ask(loaded.session, ctypes.c_size_t(3), ctypes.byref(cost)) == BAD_ARGUMENT
    assert b"no such call" in loaded.library.svit_last_error(loaded.session)
    assert ask(loaded.session, ctypes.c_size_t(0), None) == BAD_ARGUMENT
    assert ask(None, ctypes.c_size_t(0), ctypes.byref(cost)) == BAD_ARGUMENT
    assert loaded.library.svit_set_profile(None, 1) == BAD_ARGUMENT
    assert loaded.library.svit_call_count(None) == 0


def test_calls_are_read_from_a_program_with_what_they_write() -> None:
    assert read_calls(bundles.PROGRAM) == (
        PlannedCall(layer="stem", kernel="scale", outputs=8, dtype="float32"),
        PlannedCall(layer="fire", kernel="fire", outputs=8, dtype="uint8", fires=True),
        PlannedCall(layer="head", kernel="count", outputs=2, dtype="float32"),
    )


@pytest.mark.parametrize("line", ["tensor 0 a float32 workspace 0 1 x", "call scale stem 1 99", "call scale"])
def test_a_broken_program_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(VerificationError, match=f"broken line: '{line}'"):
        read_calls(f"svit-program 2\n{line}\n")


def test_a_report_without_profile_is_no_profile() -> None:
    with pytest.raises(RunError, match="printed no profile"):
        read_profile(parse_report(f"{{{REPORT}}}"), emulated=False)


def profile(*, emulated: bool = False) -> Profile:
    return Profile(
        emulated=emulated,
        p50_ns=1_900_000,
        overhead_ns=22.5,
        layers=(
            LayerTime(layer="head.lif", kernel="event_matmul_lif_0", p50_ns=1_500_000, total_ns=3_100_000, calls=2),
            LayerTime(layer="node_add", kernel="add_1", p50_ns=300_000, total_ns=700_000, calls=2),
        ),
    )


def rendered(shown: Profile) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render_profile(record(), shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_shares_are_those_of_the_sum_of_the_parts_even_if_the_clock_saw_nothing() -> None:
    made = profile()
    assert made.sum_ns == 1_800_000
    assert [made.share(layer) for layer in made.layers] == [1_500_000 / 1_800_000, 300_000 / 1_800_000]
    silent = dataclasses.replace(made, layers=(dataclasses.replace(made.layers[0], p50_ns=0),))
    assert silent.share(silent.layers[0]) == 0.0


def test_the_table_shows_each_layers_time_share_and_rate_and_the_whole_beside_the_sum() -> None:
    lines = rendered(profile()).splitlines()
    (lif,) = [line for line in lines if "head.lif" in line]
    assert all(text in lif for text in ("event_matmul_lif_0", "12.5%", "1,500.0 us", "83.3%"))
    (add,) = [line for line in lines if "node_add" in line]
    assert add.count("%") == 1  # no firing rate
    text = " ".join(" ".join(lines).split())  # the caption is wrapped
    assert "sum of the parts 1.800 ms, p50 of the same inferences 1.900 ms" in text
    assert "p50 of the samples without profile 2.000 ms" in text
    assert "reading the clock adds 22 ns to each of 2 calls" in text
    assert "emulator" not in text


def test_the_table_of_an_emulated_profile_says_so_above_and_below() -> None:
    text = " ".join(rendered(profile(emulated=True)).split())
    assert text.count("emulator, not a board") == 2


def test_a_record_is_shown_with_its_profile_only_if_it_has_one() -> None:
    assert len(render_whole(record())) == 1
    assert len(render_whole(dataclasses.replace(record(), profile=profile()))) == 2
