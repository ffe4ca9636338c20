"""What svit-run does beside taking samples: warm-up, cores, sustained load, streams and energy."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svitkit.runtime.bench.runner_report import RunnerReport, parse_report
from tests.runtime.test_runner import INPUTS, failed, svit_run

NONE = ["--warmup", "0", "--repeat", "0"]
SEQUENCE = ["--count", 12]
STEP = ["--count", 3, "--mode", "step", "--timesteps", 4]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames.bin"
    path.write_bytes(INPUTS.tobytes())
    return path


def report(bundle: Path, frames: Path, *arguments: object) -> RunnerReport:
    result = svit_run(bundle, "--input", frames, *arguments)
    assert result.returncode == 0, result.stderr
    return parse_report(result.stdout)


def test_without_a_limit_the_warm_up_is_as_long_as_it_is_told(built_host_bundle: Path, frames: Path) -> None:
    done = report(built_host_bundle, frames, *SEQUENCE, "--warmup", 7, "--repeat", 1)
    assert (done.warmup, done.is_steady) == (7, None)


def test_the_warm_up_goes_on_until_times_are_steady_or_its_limit_is_reached(
    built_host_bundle: Path, frames: Path
) -> None:
    steady = report(built_host_bundle, frames, *SEQUENCE, "--warmup", 1, "--warmup-s", 20, "--repeat", 1)
    assert steady.warmup > 3 * 12
    assert steady.is_steady
    cut = report(built_host_bundle, frames, *SEQUENCE, "--warmup", 1, "--warmup-s", 0.06, "--repeat", 1)
    assert 12 < cut.warmup < steady.warmup
    assert cut.is_steady is False


def test_threads_stay_on_the_cores_they_are_given(built_host_bundle: Path, frames: Path) -> None:
    core = min(os.sched_getaffinity(0))
    arguments = [*SEQUENCE, *NONE, "--cpus", core, "--sustain-s", "0.1", "--sensor-command", "taskset -pc $PPID"]
    done = report(built_host_bundle, frames, *arguments)
    assert done.sustained is not None
    (said,) = done.sustained.readings[0].values
    assert said is not None
    assert said.strip().endswith(f"current affinity list: {core}")
    both = svit_run(built_host_bundle, "--input", frames, *SEQUENCE, *NONE, "--cpus", core, "--threads", 2)
    assert "this process may use 1 CPU," in failed(both, 1)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--cpus", "8000"], 1, "cannot run on CPU 8000: Invalid argument"),
        (["--cpus", "1-"], 2, "--cpus wants a whole number from 1 to 8191, got ''"),
        (["--cpus", "3-1"], 2, "--cpus wants a whole number from 3 to 8191, got '1'"),
        (["--cpus", "0,"], 2, "--cpus wants a whole number"),
        (["--fps", "10"], 2, "--fps belongs to --stream"),
        (["--fps", "0", "--stream", "2"], 2, "--fps wants frames per second from 0.001 to 1e+09, got '0'"),
        (["--energy-s", "1"], 2, "--energy-s wants a --sensor"),
        (["--sensor-period-s", "0"], 2, "--sensor-period-s wants seconds from 0.001 to 86400, got '0'"),
        (["--sustain-s", "nan"], 2, "--sustain-s wants seconds"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(
    built_host_bundle: Path, frames: Path, arguments: list[str], status: int, message: str
) -> None:
    said = failed(svit_run(built_host_bundle, "--input", frames, *SEQUENCE, *NONE, *arguments), status)
    assert message in said


def test_sustained_load_is_cut_into_windows_with_the_sensors_between_them(
    built_host_bundle: Path, frames: Path, tmp_path: Path
) -> None:
    sensor = tmp_path / "temp"
    sensor.write_text("48686\nsecond line\n")
    sensors = ["--sensor", sensor, "--sensor", tmp_path / "absent", "--sensor-command", "printf 'a\\n\"b\"'"]
    done = report(built_host_bundle, frames, *SEQUENCE, *NONE, "--sustain-s", "2.2", *sensors)
    assert done.samples_ns == ()
    assert done.sustained is not None
    windows, readings = done.sustained.windows, done.sustained.readings
    assert len(windows) == len(readings) - 1 == 3
    for window, start_s, length_s in zip(windows, (0, 1, 2), (1, 1, 0.2), strict=True):
        assert window.start_ns / 1e9 == pytest.approx(start_s, abs=0.1)
        assert window.count * window.p50_ns / 1e9 < length_s + 0.1
        assert 0 < window.p50_ns <= window.max_ns
    assert {reading.values for reading in readings} == {("48686", None, 'a\n"b"')}


def test_frames_that_come_one_by_one_are_done_one_by_one(built_host_bundle: Path, frames: Path) -> None:
    stream = report(built_host_bundle, frames, *STEP, *NONE, "--stream", 50).stream
    assert stream is not None
    assert (stream.period_ns, len(stream.latencies_ns)) == (0, 50)


def test_frames_of_a_camera_arrive_late_or_not(built_host_bundle: Path, frames: Path) -> None:
    easy = report(built_host_bundle, frames, *STEP, *NONE, "--stream", 40, "--fps", 200).stream
    assert easy is not None
    assert easy.period_ns == 5_000_000
    assert sorted(easy.latencies_ns)[20] < 5_000_000
    # A frame every nanosecond: each waits for all before it.
    flood = report(built_host_bundle, frames, *STEP, *NONE, "--stream", 2000, "--fps", 1e9).stream
    assert flood is not None
    assert flood.latencies_ns[-1] > 10 * flood.latencies_ns[0]
    assert np.median(np.diff(flood.latencies_ns)) > 0


def test_a_stream_keeps_the_states_of_a_step_network(built_host_bundle: Path, frames: Path, tmp_path: Path) -> None:
    # The output written afterwards is that of whole inferences, which begin from reset states again.
    plain, streamed = tmp_path / "plain.bin", tmp_path / "streamed.bin"
    report(built_host_bundle, frames, *STEP, *NONE, "--output", plain)
    report(built_host_bundle, frames, *STEP, *NONE, "--stream", 7, "--output", streamed)
    assert plain.read_bytes() == streamed.read_bytes()


def test_energy_is_read_while_the_network_rests_and_while_it_runs(
    built_host_bundle: Path, frames: Path, tmp_path: Path
) -> None:
    sensor = tmp_path / "power"
    sensor.write_text("2170\n")
    arguments = ["--energy-s", "0.3", "--sensor-period-s", "0.01", "--sensor", sensor]
    energy = report(built_host_bundle, frames, *SEQUENCE, *NONE, *arguments).energy
    assert energy is not None
    assert energy.inferences > 0
    ends = [0, energy.active_ns, energy.idle_ns, energy.end_ns]
    assert all(0.29e9 < later - earlier < 0.6e9 for earlier, later in itertools.pairwise(ends))
    times = [reading.at_ns for reading in energy.readings]
    assert times == sorted(times)
    assert times[-1] <= energy.end_ns
    assert all(sum(early <= at < late for at in times) >= 5 for early, late in itertools.pairwise(ends))
    assert {reading.values for reading in energy.readings} == {("2170",)}


def test_a_report_with_every_phase_is_one_json_object(built_host_bundle: Path, frames: Path) -> None:
    wanted = ["--sustain-s", "0.05", "--stream", 2, "--energy-s", "0.05", "--sensor-command", "echo 1", "--profile"]
    result = svit_run(built_host_bundle, "--input", frames, *STEP, "--warmup", 1, "--repeat", 3, *wanted)
    told: dict[str, Any] = json.loads(result.stdout)
    assert {"profile", "sustained", "stream", "energy", "samples_ns"} <= told.keys()
    parse_report(result.stdout)
