from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime import bundles

QEMU = shutil.which("qemu-aarch64-static")
SYSROOT = Path("/usr/aarch64-linux-gnu")
INPUTS = np.random.default_rng(1).uniform(0, 1.5, (3, 4, 8)).astype(np.float32)  # (N, T, features)
FAST = ["--warmup", "1", "--repeat", "2"]
CPUS = len(os.sched_getaffinity(0))
PAGE_BYTES = resource.getpagesize()
# Weights, states and workspace end inside a page, and the kernel maps files in windows of 64 KiB (fault_around_bytes).
ALLOWANCE_BYTES = 3 * PAGE_BYTES + 65536


def svit_run(bundle: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, str(bundle / "svit-run"), str(bundle), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def failed(result: subprocess.CompletedProcess[str], status: int) -> str:
    """Checks the exit status and that one sentence, and nothing else, was printed; returns it."""
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    assert result.stderr.startswith("svit-run: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames.bin"
    path.write_bytes(INPUTS.tobytes())
    return path


def check_step_mode(
    bundle: Path, frames: Path, tmp_path: Path, prefix: tuple[str, ...] = (), *, threads: int = 1
) -> dict[str, object]:
    output, spikes = tmp_path / "output.bin", tmp_path / "spikes.bin"
    arguments = ["--input", frames, "--count", 3, "--mode", "step", "--timesteps", 4, *FAST]
    arguments += ["--threads", threads]
    result = svit_run(bundle, *arguments, "--output", output, "--spikes", spikes, prefix=prefix)
    assert result.returncode == 0, result.stderr
    expected = [bundles.expected(x) for x in INPUTS]
    np.testing.assert_array_equal(np.fromfile(output, np.float32).reshape(3, 2), [y.mean(axis=0) for y, _ in expected])
    taps = np.fromfile(spikes, np.uint8).reshape(3, 4, 2, 8)  # input, step, tap, neuron
    for tap in range(2):
        np.testing.assert_array_equal(taps[:, :, tap], [s for _, s in expected])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "frames.bin",
        "output.bin",
        "spikes.bin",
    ]
    report = json.loads(result.stdout)
    assert isinstance(report, dict)
    return report


def test_step_mode_writes_mean_outputs_and_spikes(built_host_bundle: Path, frames: Path, tmp_path: Path) -> None:
    report = check_step_mode(built_host_bundle, frames, tmp_path)

    assert len(report["samples_ns"]) == 2
    assert report["load_ns"] > 0
    assert report["first_ns"] > 0
    assert report["accuracy_samples"] == 3
    assert (report["weights_bytes"], report["state_bytes"], report["workspace_bytes"]) == (32, 32, 320)
    assert 0 < report["private_bytes"] <= report["vm_hwm_bytes"]
    assert 0 < report["pss_bytes"] <= report["vm_hwm_bytes"] < 6_000_000
    assert report["cpu_features"]


@pytest.mark.skipif(QEMU is None or not SYSROOT.is_dir(), reason="needs qemu-user-static and libc6-arm64-cross")
def test_an_emulated_cortex_a72_gives_the_same_and_names_its_features(
    built_arm_bundle: Path, frames: Path, tmp_path: Path
) -> None:
    prefix = (str(QEMU), "-cpu", "cortex-a72", "-L", str(SYSROOT))
    features = check_step_mode(built_arm_bundle, frames, tmp_path, prefix)["cpu_features"]
    if CPUS > 1:
        check_step_mode(built_arm_bundle, frames, tmp_path, prefix, threads=2)
    assert {"asimd", "crc32"} <= set(features)
    assert "asimddp" not in features


def test_a_static_image_is_shown_at_every_step(built_host_bundle: Path, tmp_path: Path) -> None:
    images = INPUTS[:, 0]
    (tmp_path / "images.bin").write_bytes(images.tobytes())
    arguments = ["--input", tmp_path / "images.bin", "--count", 3, "--mode", "step", "--timesteps", 4]
    result = svit_run(built_host_bundle, *arguments, "--output", tmp_path / "y.bin", *FAST)
    assert result.returncode == 0, result.stderr
    expected = [bundles.expected(np.repeat(x[None], 4, axis=0))[0].mean(axis=0) for x in images]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y.bin", np.float32).reshape(3, 2), expected)


def test_sequence_mode_resets_before_every_input(built_host_bundle: Path, frames: Path, tmp_path: Path) -> None:
    result = svit_run(built_host_bundle, "--input", frames, "--count", 12, "--output", tmp_path / "y.bin", *FAST)
    assert result.returncode == 0, result.stderr
    expected = [bundles.expected(x[None])[0][0] for x in INPUTS.reshape(12, 8)]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y.bin", np.float32).reshape(12, 2), expected)


def test_the_timed_part_lasts_at_least_the_minimum_time(built_host_bundle: Path, frames: Path) -> None:
    arguments = ["--input", frames, "--count", 12, "--warmup", 0, "--repeat", 0]
    assert json.loads(svit_run(built_host_bundle, *arguments).stdout)["samples_ns"] == []
    timed = json.loads(svit_run(built_host_bundle, *arguments, "--min-time-s", 0.005).stdout)
    assert len(timed["samples_ns"]) >= 1
    assert "accuracy_samples" not in timed


def profiled(bundle: Path, frames: Path, *arguments: object) -> dict[str, Any]:
    step = ["--input", frames, "--count", 3, "--mode", "step", "--timesteps", 4]
    result = svit_run(bundle, *step, *arguments)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert isinstance(report, dict)
    return report


def test_a_profile_tells_every_call_in_program_order_apart_from_the_samples(
    built_host_bundle: Path, frames: Path
) -> None:
    report = profiled(built_host_bundle, frames, "--warmup", 1, "--repeat", 7, "--profile")
    assert len(report["samples_ns"]) == 7
    assert [(cost["layer"], cost["kernel"], cost["calls"]) for cost in report["profile"]] == [
        ("stem", "scale", 7 * 4),
        ("fire", "fire", 7 * 4),
        ("head", "count", 7 * 4),
    ]
    for cost in report["profile"]:
        assert 0 < cost["p50_ns"] <= report["profile_p50_ns"]  # a part is never longer than its whole
        assert cost["p50_ns"] * 4 <= cost["total_ns"]  # 4 of 7 are not below the median
    assert 0 < report["profile_overhead_ns"] < 100_000


def test_a_profile_takes_at_most_1000_inferences(built_host_bundle: Path, frames: Path) -> None:
    report = profiled(built_host_bundle, frames, "--warmup", 0, "--repeat", 1001, "--profile")
    assert {cost["calls"] for cost in report["profile"]} == {4000}


def test_there_is_no_profile_unless_asked_for(built_host_bundle: Path, frames: Path) -> None:
    assert not [key for key in profiled(built_host_bundle, frames, *FAST) if key.startswith("profile")]


def test_results_written_after_a_profile_are_the_same(built_host_bundle: Path, frames: Path, tmp_path: Path) -> None:
    plain, after = tmp_path / "plain.bin", tmp_path / "after.bin"
    profiled(built_host_bundle, frames, *FAST, "--output", plain)
    profiled(built_host_bundle, frames, *FAST, "--profile", "--output", after)
    assert plain.read_bytes() == after.read_bytes()


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
def test_two_threads_give_the_same_and_take_no_memory_to_speak_of(
    built_host_bundle: Path, frames: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.bin", tmp_path / "two.bin"
    single = profiled(built_host_bundle, frames, *FAST, "--output", one)
    double = profiled(built_host_bundle, frames, "--threads", 2, "--repeat", 500, "--profile", "--output", two)
    assert (single["threads"], double["threads"]) == (1, 2)
    assert one.read_bytes() == two.read_bytes()
    assert {cost["calls"] for cost in double["profile"]} == {2000}
    check_memory_sum(double)
    check_same_private(single, double)


def test_more_threads_than_cpus_are_refused(built_host_bundle: Path, frames: Path) -> None:
    words = failed(svit_run(built_host_bundle, "--input", frames, "--count", 12, "--threads", CPUS + 1), 1)
    assert f"--threads {CPUS + 1}: this process may use {CPUS} CPU" in words


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
def test_more_threads_than_a_bundle_was_built_for_are_refused(tiny_bundle: Path, frames: Path) -> None:
    path = tiny_bundle / "program.txt"
    path.write_text(path.read_text().replace("threads 3", "threads 1"))
    words = failed(svit_run(tiny_bundle, "--input", frames, "--count", 12, "--threads", 2), 1)
    assert "2 threads are wanted, the bundle was built for 1 to 1" in words


def test_a_layers_name_is_quoted_as_json_wants(tiny_bundle: Path, frames: Path) -> None:
    path = tiny_bundle / "program.txt"
    path.write_text(path.read_text().replace("call scale stem", 'call scale s"t\\em-ü'), encoding="utf-8")
    assert profiled(tiny_bundle, frames, *FAST, "--profile")["profile"][0]["layer"] == 's"t\\em-ü'


def check_memory_sum(report: dict[str, Any]) -> None:
    """The peak is floor, weights, states and workspace: within 10 %, and within pages and one fault's read-ahead."""
    plan = report["weights_bytes"] + report["state_bytes"] + report["workspace_bytes"]
    allowed = 0.1 * report["vm_hwm_bytes"] + ALLOWANCE_BYTES
    assert abs(report["vm_hwm_bytes"] - report["floor_bytes"] - plan) <= allowed, report


def check_same_private(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Private memory is compared: shared libraries differ from run to run by where they are mapped."""
    assert abs(one["private_bytes"] - other["private_bytes"]) <= 65536


def test_the_peak_is_the_plan_and_a_floor(built_host_bundle: Path, frames: Path) -> None:
    report = profiled(built_host_bundle, frames, *FAST)
    check_memory_sum(report)
    assert report["weights_resident_bytes"] == PAGE_BYTES  # 32 bytes of weights


def test_memory_does_not_grow_with_the_number_of_inputs_or_samples(
    built_host_bundle: Path, frames: Path, tmp_path: Path
) -> None:
    (tmp_path / "many.bin").write_bytes(bytes(32 * 500_000))
    arguments = ["--input", tmp_path / "many.bin", "--count", 500_000, "--warmup", 0, "--repeat", 100_000]
    many = json.loads(svit_run(built_host_bundle, *arguments).stdout)
    check_memory_sum(many)
    check_same_private(many, profiled(built_host_bundle, frames, *FAST))


def test_memory_does_not_grow_with_the_time_steps_of_an_input(
    built_host_bundle: Path, frames: Path, tmp_path: Path
) -> None:
    (tmp_path / "long.bin").write_bytes(bytes(32 * 100_000))
    arguments = ["--input", tmp_path / "long.bin", "--count", 1, "--mode", "step", "--timesteps", 100_000]
    long = json.loads(svit_run(built_host_bundle, *arguments, "--warmup", 0, "--repeat", 1).stdout)
    check_memory_sum(long)
    check_same_private(long, profiled(built_host_bundle, frames, *FAST))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--input FILE is missing"),
        (["--input", "x"], "--count N is missing"),
        (["--input", "x", "--count", "0"], "--count wants a whole number from 1"),
        (["--input", "x", "--count", "-1"], "--count wants a whole number"),
        (["--input", "x", "--count", "1e3"], "--count wants a whole number"),
        (["--input", "x", "--count", "99999999999999999999"], "--count wants a whole number"),
        (["--input", "x", "--count"], "'--count' wants a value"),
        (["--input", "x", "--count", "1", "--mode", "both"], "got 'both'"),
        (["--input", "x", "--count", "1", "--mode", "step"], "--mode step wants --timesteps T"),
        (["--input", "x", "--count", "1", "--timesteps", "4"], "--timesteps belongs to --mode step"),
        (["--input", "x", "--count", "1", "--min-time-s", "nan"], "--min-time-s wants seconds"),
        (["--input", "x", "--count", "1", "--repeat", "100001"], "--repeat wants a whole number from 0 to 100000"),
        (["--input", "x", "--count", "1", "--output", "y", "--spikes", "y"], "the same file"),
        (["--colour", "4"], "unknown option '--colour'"),
        (["--threads", "0"], "--threads wants a whole number from 1"),
        (["another"], "one BUNDLE only"),
    ],
)
def test_wrong_arguments_exit_with_2(built_host_bundle: Path, arguments: list[str], words: str) -> None:
    assert words in failed(svit_run(built_host_bundle, *arguments), 2)


def test_the_manifest_is_shown_and_without_golden_inputs_there_is_no_self_test(tiny_bundle: Path) -> None:
    assert svit_run(tiny_bundle, "--info").stdout == (tiny_bundle / "manifest.json").read_text()
    assert "has no golden inputs" in failed(svit_run(tiny_bundle, "--self-test"), 1)
    path = tiny_bundle / "program.txt"
    path.write_text(path.read_text().replace("end\n", "features sse99\nend\n"))
    assert "this CPU has no sse99" in failed(svit_run(tiny_bundle, "--classify", path), 1)


def test_help_and_version_are_answered(built_host_bundle: Path) -> None:
    assert "--timesteps T" in svit_run(built_host_bundle, "--help").stdout
    assert svit_run(built_host_bundle, "--version").stdout.startswith("svit-run ")


def test_an_input_of_the_wrong_size_is_refused_with_both_sizes(built_host_bundle: Path, frames: Path) -> None:
    text = failed(svit_run(built_host_bundle, "--input", frames, "--count", 5), 1)
    assert "has 384 bytes, wanted 5 inputs of 32 bytes" in text
    arguments = ["--input", frames, "--count", 3, "--mode", "step", "--timesteps", 5]
    assert "once or for each of 5 time steps" in failed(svit_run(built_host_bundle, *arguments), 1)


def test_files_that_are_missing_or_cannot_be_written_are_named(built_host_bundle: Path, frames: Path) -> None:
    assert "nowhere" in failed(svit_run(built_host_bundle, "--input", "nowhere", "--count", 1), 1)
    arguments = ["--input", frames, "--count", 12, "--output", "/nowhere/y.bin", *FAST]
    assert "cannot write /nowhere/y.bin" in failed(svit_run(built_host_bundle, *arguments), 1)
    assert "no regular file" in failed(svit_run(built_host_bundle, "--input", "/dev", "--count", 1), 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_without_partial_files(
    built_host_bundle: Path, frames: Path, tmp_path: Path, number: signal.Signals
) -> None:
    # The output is a name that svit-run must not touch: the signal comes during the timed part, which lasts a minute.
    (tmp_path / "y.bin").write_text("old")
    command = [built_host_bundle / "svit-run", built_host_bundle, "--input", frames, "--count", "12"]
    slow = ["--warmup", "1000000000", "--output", tmp_path / "y.bin"]
    with subprocess.Popen([*command, *slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while b"read\n" not in wait_for_input(process.pid, frames):
            assert process.poll() is None
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == f"svit-run: stopped by signal {int(number)}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.bin", "y.bin"]
    assert (tmp_path / "y.bin").read_text() == "old"


def wait_for_input(pid: int, path: Path) -> bytes:
    """Returns b"read\\n" once the process has its input file open, by when its signal handlers stand."""
    try:
        links = [link.resolve() for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return b""
    return b"read\n" if path.resolve() in links else b""


MALFORMED = [
    ("", "", "stops without 'end'", None),
    ("svit-program 2", "svit-program 3", "line 1: program format '3'", 1),
    ("svit-program 2", "ELF", "line 1: this is no svit program", 1),
    ("sizes weights 32", "sizes weight 32", "line 2: expected 'weights', got 'weight'", 1),
    ("workspace 320\n", "workspace 320 1\n", "line 2: 'sizes' wants 6 values, got 7", 1),
    ("states 32", "states -1", "line 2: size in bytes is no number: '-1'", 1),
    ("states 32", "states 99999999999999999999", "line 2: size in bytes is '99999999999999999999', the largest", 1),
    ("workspace 320", "workspace 9223372036854775807", "line 2: size in bytes is", 1),
    ("threads 3", "threads 0", "line 3: a program without threads", 1),
    ("threads 3", "threads 65", "line 3: number of threads is '65', the largest allowed is 64", 1),
    ("threads 3\n", "", "line 3: expected 'threads', got 'tensor'", 1),
    ("tensor 1 w", "tensor 2 w", "line 5: tensor ids count up from 0: expected 1, got '2'", 1),
    ("tensor 1 w float32", "tensor 1 w float16", "line 5: unknown dtype 'float16'", 1),
    ("float32 weights 0 1 8", "float32 heap 0 1 8", "line 5: unknown space 'heap'", 1),
    ("weights 0 1 8", "weights 64 1 8", "line 5: the tensor ends at byte 96 of 'weights', which has 32", 1),
    ("weights 0 1 8", "weights 0 1 9", "line 5: the tensor ends at byte 36 of 'weights', which has 32", 1),
    ("weights 0 1 8", "weights 4 1 7", "line 5: offset '4' is no multiple of 64", 1),
    ("weights 0 1 8", "weights 0 1 0", "line 5: a tensor without elements", 1),
    ("weights 0 1 8", "weights 0 2 8", "line 5: 'tensor' wants 8 values, got 7", 1),
    ("weights 0 1 8", "weights 0 9 1 1 1 1 1 1 1 1 8", "line 5: number of axes is '9', the largest allowed is 8", 1),
    ("weights 0 1 8", "weights 0 2 4294967296 4294967296", "line 5: the tensor is too large", 1),
    ("weights 0 1 8", "weights 140737488355264 1 8", "line 5: the tensor ends at byte", 1),
    ("weights 0 1 8", "weights", "line 5: 'tensor' is cut off", 1),
    ("input float32 workspace 0", "my input float32 workspace 0", "line 4: unknown dtype 'input'", 1),
    ("tensor 1 w", "tensor 1  w", "line 5: empty line, or a blank too many", 1),
    ("tensor 1 w", "tensor\t1 w", "line 5: control character", 1),
    ("state 2 0.0\n", "", "state 'fire.v' has no initial value", 1),
    ("state 2 0.0", "state 2 0.0\nstate 2 0.0", "line 12: a second initial value", 1),
    ("state 2 0.0", "state 1 0.0", "line 11: tensor 'w' does not lie in 'states'", 1),
    ("state 2 0.0", "state 2 nan", "line 11: the initial value is no finite number: 'nan'", 1),
    ("state 2 0.0", "state 2 1e39", "line 11: the initial value '1e39' is no float32", 1),
    ("state 2 0.0", "state 2 0.0f", "line 11: the initial value is no finite number", 1),
    ("state 2 0.0", "state 7 0.0", "line 11: tensor id is '7', the largest allowed is 6", 1),
    ("input 0\n", "", "no input is declared", 1),
    ("output 5\n", "", "no output is declared", 1),
    ("input 0", "input 0\ninput 0", "line 13: a second input", 1),
    ("input 0", "input 1", "line 12: the input must lie in 'workspace'", 1),
    ("output 5", "output 4", "the output must be float32", 1),
    ("call scale", "call nothing", "line 14: model.so has no kernel 'nothing'", 1),
    ("call scale", "call ../x", "line 14: not a symbol: '../x'", 1),
    ("call scale stem split 3 0 1 3", "call scale stem split 3 0 1", "line 14: 'call' wants 7 values, got 6", 1),
    ("call scale stem split", "call scale stem half", "line 14: expected 'whole', got 'half'", 1),
    ("call scale stem split 3 0 1 3", "call scale stem split 0", "line 14: a call without arguments", 1),
    ("call scale stem split 3 0 1 3", "call scale stem split 3 0 1 7", "line 14: tensor id is '7'", 1),
    ("tap fire 4 1", "tap fire 4 3", "line 17: call index is '3', the largest allowed is 2", 1),
    ("tap counts 6 1", "tap fire 6 1", "line 19: a second tap 'fire'", 1),
    ("taporder fire 2 1 0\n", "", "tap 'fire' has no order", 1),
    ("taporder fire 2 1 0", "taporder fire 2 1 1", "line 18: an axis comes twice", 1),
    ("taporder fire 2 1 0", "taporder fire 2 1 2", "line 18: axis is '2', the largest allowed is 1", 1),
    ("taporder fire 2 1 0", "taporder fire 1 0", "line 18: the tap's tensor has 2 axes, not '1'", 1),
    ("taporder fire 2 1 0", "taporder none 2 1 0", "line 18: no tap 'none'", 1),
    ("taporder fire 2 1 0", "taporder fire 2 1 0\ntaporder fire 2 1 0", "line 19: a second order", 1),
    ("end\n", "", "line 21: the file stops without 'end'", 1),
    ("end\n", "end\nend\n", "line 22: something follows 'end'", 1),
    ("end\n", "finish\n", "line 21: unknown statement 'finish'", 1),
    ("sizes weights 32", "sizes weights 64", "weights.bin has 32 bytes, program.txt says 64", 1),
    ("workspace 320", "workspace 140737488355328", "cannot allocate 140737488355328 bytes for the workspace", 1),
]


@pytest.mark.parametrize(("old", "new", "words", "count"), MALFORMED, ids=[case[2] for case in MALFORMED])
def test_a_malformed_program_is_refused_with_its_line(
    tiny_bundle: Path, frames: Path, old: str, new: str, words: str, count: int | None
) -> None:
    text = (tiny_bundle / "program.txt").read_text()
    if count is None:
        changed = ""
    else:
        assert old in text
        changed = text.replace(old, new, count)
    (tiny_bundle / "program.txt").write_text(changed)
    assert words in failed(svit_run(tiny_bundle, "--input", frames, "--count", 12), 1)


def test_every_cut_of_a_program_is_refused(tiny_bundle: Path, frames: Path) -> None:
    text = (tiny_bundle / "program.txt").read_text()
    for length in range(0, len(text) - 1, 7):
        (tiny_bundle / "program.txt").write_text(text[:length])
        assert "program.txt line" in failed(svit_run(tiny_bundle, "--input", frames, "--count", 12), 1)


@pytest.mark.parametrize("name", ["program.txt", "model.so", "weights.bin"])
def test_a_missing_file_of_the_bundle_is_named(tiny_bundle: Path, frames: Path, name: str) -> None:
    (tiny_bundle / name).unlink()
    assert name in failed(svit_run(tiny_bundle, "--input", frames, "--count", 12), 1)


def test_a_model_that_svitkit_did_not_link_is_refused(tiny_bundle: Path, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.c").write_text("int nothing;\n")
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        f"{bundles.HOST}.2.27",
        "-shared",
        "-o",
        str(tiny_bundle / "model.so"),
    ]
    subprocess.run([*command, str(tmp_path / "empty.c")], check=True)
    assert "not linked by svitkit" in failed(svit_run(tiny_bundle, "--input", frames, "--count", 12), 1)


def test_a_kernels_own_error_is_reported(tiny_bundle: Path, frames: Path) -> None:
    path = tiny_bundle / "program.txt"
    path.write_text(path.read_text().replace("call scale stem split 3 0 1 3", "call scale stem split 3 0 2 5"))
    text = failed(svit_run(tiny_bundle, "--input", frames, "--count", 12), 1)
    assert "kernel 'scale' of layer 'stem' failed: " in text
    assert "it gave no reason" not in text
