"""Measuring with a stand-in for svit-run: a script whose network names the brightest of the first three pixels."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from svitkit.boards.board import Board, load_board
from svitkit.boards.governor import set_governor
from svitkit.boards.gpu import Gpu
from svitkit.data.dataset import Dataset, Split
from svitkit.errors import ConfigError, RunError, SvitError, VerificationError
from svitkit.files import sha256
from svitkit.manifest import (
    FileEntry,
    KernelChoice,
    Manifest,
    Mode,
    ModelMetadata,
    Normalization,
    TensorSpec,
    read_manifest,
    write_manifest,
)
from svitkit.runtime.bench import measure, verdict
from svitkit.runtime.bench.clusters import Cluster
from svitkit.runtime.bench.device_checks import accuracy_inputs
from svitkit.runtime.bench.device_state import DeviceState
from svitkit.runtime.bench.measure import bench
from svitkit.runtime.bench.options import BenchOptions
from svitkit.runtime.bench.power_meter import Meter
from svitkit.runtime.bench.record import BenchRecord, record_json
from svitkit.runtime.bench.runner_report import RunnerDevice, parse_report
from tests.boards.test_preflight import gpu_plan

CLASSES = 3
SHAPE = (1, 2, 2)
TIMESTEPS = 2
PROGRAM = """svit-program 2
tensor 0 input float32 workspace 0 4 1 1 2 2
tensor 1 spikes uint8 workspace 16 1 4
tap head.lif 1 0
end
"""
RUNNER = """#!{python}
import array, json, os, signal, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
fault = os.environ.get("FAULT", "")
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if fault.startswith("SIG"):
    print("last words", file=sys.stderr)
    sys.stderr.flush()
    os.kill(os.getpid(), getattr(signal, fault))
if fault == "fail":
    print("first line\\nsvit-run: no such kernel", file=sys.stderr)
    sys.exit(1)
if fault == "hang":
    signal.pause()
count = int(options["--count"])
values = array.array("f", open(options["--input"], "rb").read())
size = len(values) // count
if "--output" in options:
    logits = array.array("f")
    for i in range(count):
        logits.extend(values[i * size : i * size + 3])
    if fault == "wrong":
        logits[0], logits[1] = logits[1] + 1, logits[0]
    if fault == "nan":
        logits[0] = float("nan")
    if fault == "short":
        logits.pop()
    open(options["--output"], "wb").write(logits.tobytes())
if "--spikes" in options:
    steps = int(options.get("--timesteps", 1))
    open(options["--spikes"], "wb").write(bytes([1, 0, 0, 0]) * count * steps)
samples = [1000000] * int(options["--repeat"])
if fault == "drift":
    samples[len(samples) // 2 :] = [2000000] * len(samples[len(samples) // 2 :])
features = {features} if fault != "poor" else ["fpu"]
report = dict(load_ns=5, first_ns=6, warmup=3, is_steady=True, samples_ns=samples, vm_hwm_bytes=7, pss_bytes=None,
              private_bytes=8, weights_bytes=9, state_bytes=10, workspace_bytes=11, cpu_features=features,
              accuracy_samples=count, threads=int(options["--threads"]))
report.update(json.loads(os.environ.get("REPORT", "{{}}")))
if fault == "crowded":
    samples = [{{1: 2000000, 2: 1000000, 4: 3000000, 6: 5000000}}[report["threads"]]] * len(samples)
    report["samples_ns"] = samples
second = 1000000000
if "--stream" in options:
    report["stream"] = dict(period_ns=second // 100, latencies_ns=[1000, 1000, second, 1000])
if "--energy-s" in options:
    at = [i * second // 50 for i in range(150)]
    power = ["2" if time < second or time >= 2 * second else "5" for time in at]
    readings = [dict(at_ns=time, values=[value]) for time, value in zip(at, power)]
    report["energy"] = dict(active_ns=second, idle_ns=2 * second, end_ns=3 * second, inferences=10, readings=readings)
if "--sustain-s" in options:
    windows = [dict(start_ns=i * second, count=10, p50_ns=1000, max_ns=1000) for i in range(2)]
    readings = [dict(at_ns=i * second, values=[f"{{40 + 10 * i}}000"]) for i in range(3)]
    report["sustained"] = dict(windows=windows, readings=readings)
if "--profile" in sys.argv and fault != "old":
    report["profile"] = [dict(layer="head.lif", kernel="lif_0", p50_ns=700, total_ns=7000, calls=10)]
    report.update(profile_overhead_ns=21.5, profile_p50_ns=800, floor_bytes=2, weights_resident_bytes=4)
print("hello" if fault == "chatter" else json.dumps(report))
"""


def model(mode: Mode = "sequence", *, static: bool = True) -> ModelMetadata:
    steps = 1 if mode == "step" else TIMESTEPS
    shape = (1, *SHAPE) if mode == "sequence" and static else (steps, 1, *SHAPE)
    return ModelMetadata(
        family="spikformer",
        mode=mode,
        timesteps=TIMESTEPS,
        static_input=static,
        input=TensorSpec(name="input", shape=shape),
        output=TensorSpec(name="logits", shape=(1, CLASSES)),
        lif_layers=(),
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        class_names=("a", "b", "c"),
        parameter_bytes=4,
        original_parameter_bytes=8,
        checkpoint_sha256="0" * 64,
        plan_sha256=None,
        producer="svitkit",
    )


def write_bundle(folder: Path, board: Board, mode: Mode = "sequence", *, static: bool = True) -> Path:
    folder.mkdir()
    (folder / "svit-run").write_text(RUNNER.format(python=sys.executable, features=list(board.cpu_features)))
    (folder / "svit-run").chmod(0o755)
    (folder / "program.txt").write_text(PROGRAM)
    network = model(mode, static=static)
    frames = 1 if static else TIMESTEPS
    inputs = np.random.default_rng(0).normal(size=(4, frames, 4)).astype(np.float32)
    (folder / "golden_input.bin").write_bytes(inputs.tobytes())
    (folder / "golden_output.bin").write_bytes(np.ascontiguousarray(inputs[:, 0, :CLASSES]).tobytes())
    manifest = Manifest(
        model=network,
        board=board.name,
        triple=board.triple,
        target=dict(board.tvm_target()),
        required_features=board.required_features,
        glibc_floor=board.glibc,
        tvm_version="0.27.0",
        kernels=(),
        weights_bytes=9,
        state_bytes=10,
        workspace_bytes=11,
        golden_count=4,
        golden_tolerance=1e-3,
        files={p.name: FileEntry(sha256=sha256(p), size=p.stat().st_size) for p in sorted(folder.iterdir())},
    )
    write_manifest(folder, manifest)
    return folder


def images(count: int = 100, wrong: int = 0, *, static: bool = True, timesteps: int = TIMESTEPS) -> Dataset:
    """Every image is brightest where its label says, but for the first ``wrong`` ones."""
    y = np.arange(count, dtype=np.int64) % CLASSES
    x = np.zeros((count, 4), np.uint8)
    x[np.arange(count), np.where(np.arange(count) < wrong, (y + 1) % CLASSES, y)] = 200
    frames = x.reshape(count, *SHAPE)
    test = Split(x=frames if static else np.stack([frames] * timesteps, axis=1), y=y)
    return Dataset(
        name="dots",
        train=test,
        validation=test,
        test=test,
        normalization=Normalization(mean=(9.0,), std=(9.0,)),
        class_names=("x", "y", "z"),
        shape=SHAPE,
        static=static,
    )


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Board:
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(measure, "read_device_state", lambda root: DeviceState(governor="performance"))
    return load_board("host")


@pytest.fixture
def bundle(host: Board, tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", host)


def commands(tmp_path: Path) -> list[dict[str, str]]:
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    return [dict(zip(call[1::2], call[2::2], strict=True)) for call in calls]


def test_a_whole_measurement(bundle: Path, host: Board, tmp_path: Path) -> None:
    record = bench(
        bundle, host, dataset=images(100, wrong=10), options=BenchOptions(repeat=70, warmup=3, min_time_s=0.5)
    )
    assert record.valid, record.reasons
    assert record.golden.match
    assert (record.golden.count, record.golden.max_abs_diff) == (4, 0.0)
    assert record.accuracy is not None
    assert (record.accuracy.percent, record.accuracy.count, record.accuracy.split) == (90.0, 100, "test")
    assert (record.load_ns, record.first_ns, record.samples_ns) == (5, 6, (1_000_000,) * 70)
    assert (record.latency_ms.p50, record.latency_ms.p90, record.latency_ms.p99) == (1.0, 1.0, None)
    assert (record.memory.vm_hwm_bytes, record.memory.pss_bytes, record.memory.private_bytes) == (7, None, 8)
    assert record.firing_rates == {"head.lif": 0.25}
    assert (record.board, record.emulated, record.latency_ms.emulated) == ("host", False, False)
    assert record.attempts == 1
    assert record.bundle_bytes == sum(path.stat().st_size for path in bundle.iterdir())
    assert record.bundle_sha256 == sha256(bundle / "manifest.json")
    assert record.before == record.after == DeviceState(governor="performance")
    golden, first, second, timed = commands(tmp_path)
    assert (golden["--count"], golden["--repeat"], golden["--warmup"]) == ("4", "0", "0")
    assert (first["--count"], second["--count"]) == ("60", "40")
    assert (timed["--warmup"], timed["--repeat"], timed["--min-time-s"]) == ("3", "70", "0.5")
    assert "--output" not in timed
    assert {call["--threads"] for call in commands(tmp_path)} == {str(host.threads)}
    assert record.threads == host.threads


def test_the_number_of_threads_can_be_chosen(bundle: Path, host: Board, tmp_path: Path) -> None:
    assert bench(bundle, host, options=BenchOptions(threads=5)).threads == 5
    assert {call["--threads"] for call in commands(tmp_path)} == {"5"}


def test_a_profile_is_taken_in_the_timed_run_only_and_only_if_asked_for(
    bundle: Path, host: Board, tmp_path: Path
) -> None:
    record = bench(bundle, host, options=BenchOptions(profile=True))
    assert record.profile is not None
    assert (record.profile.emulated, record.profile.p50_ns, record.profile.overhead_ns) == (False, 800, 21.5)
    assert [(layer.layer, layer.p50_ns) for layer in record.profile.layers] == [("head.lif", 700)]
    assert (record.memory.floor_bytes, record.memory.weights_resident_bytes) == (2, 4)
    assert len(record.samples_ns) == 50
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert ["--profile" in call for call in calls] == [False, True]
    assert "profile" not in json.loads(record_json(bench(bundle, host)))


def test_a_program_that_knows_no_profile_is_named(bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "old")
    with pytest.raises(RunError, match="printed no profile"):
        bench(bundle, host, options=BenchOptions(profile=True))


def test_no_data_means_no_accuracy_and_no_key_in_the_record(bundle: Path, host: Board) -> None:
    record = bench(bundle, host)
    assert record.accuracy is None
    assert "accuracy" not in json.loads(record_json(record))


def test_at_most_limit_test_images_are_shown(bundle: Path, host: Board) -> None:
    record = bench(bundle, host, dataset=images(100), options=BenchOptions(limit=7))
    assert record.accuracy is not None
    assert record.accuracy.count == 7


def test_images_are_normalized_as_the_network_was_trained_and_not_as_the_data_say() -> None:
    ((inputs, labels),) = accuracy_inputs(images(2), model(), 360)
    low, high = (0 - 0.5) / 0.25, (200 / 255 - 0.5) / 0.25
    expected = np.array([[high, low, low, low], [low, high, low, low]], np.float32)
    np.testing.assert_allclose(inputs.reshape(2, 4), expected, rtol=1e-6)
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mode", "static_model", "static_data", "frames"),
    [
        ("sequence", True, True, 1),
        ("sequence", False, True, 2),
        ("sequence", False, False, 2),
        ("step", True, True, 1),
        ("step", False, False, 2),
    ],
)
def test_each_kind_of_network_gets_the_frames_it_reads(
    mode: Mode, static_model: bool, static_data: bool, frames: int
) -> None:
    ((inputs, _),) = accuracy_inputs(images(5, static=static_data), model(mode, static=static_model), 360)
    assert inputs.shape == (5, frames, *SHAPE)


@pytest.mark.parametrize("static", [True, False])
def test_a_step_bundle_is_run_with_its_time_steps(host: Board, tmp_path: Path, static: bool) -> None:
    bundle = write_bundle(tmp_path / "step", host, "step", static=static)
    record = bench(bundle, host, dataset=images(9, static=static))
    assert record.valid, record.reasons
    assert record.accuracy is not None
    assert record.accuracy.percent == 100
    assert {(call["--mode"], call["--timesteps"]) for call in commands(tmp_path)} == {("step", "2")}


def test_progress_is_told_stage_by_stage(bundle: Path, host: Board) -> None:
    told: list[tuple[str, float]] = []
    bench(bundle, host, dataset=images(100), progress=lambda stage, share: told.append((stage, share)))
    assert told == [
        ("golden check", 0.0),
        ("accuracy", 0.0),
        ("accuracy", 0.6),
        ("accuracy", 1.0),
        ("timing", 0.0),
        ("timing", 1.0),
    ]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("SIGILL", RunError, r"ended by SIGILL\. It said: last words .*instructions that this CPU lacks"),
        ("SIGKILL", RunError, r"ended by SIGKILL.*want of memory"),
        ("SIGSEGV", RunError, r"ended by SIGSEGV.*outside its memory"),
        ("SIGUSR1", RunError, r"ended by SIGUSR1\. It said: last words$"),
        ("fail", RunError, r"failed with exit status 1\. It said: svit-run: no such kernel"),
        ("short", RunError, "wrote 11 logits for 4 inputs of 3 classes"),
        ("chatter", RunError, r"printed 'hello', which is not its report"),
        ("nan", VerificationError, "1 of 12 logits computed on the board are not finite"),
    ],
)
def test_a_program_that_fails_is_explained(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, fault: str, kind: type[SvitError], message: str
) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(kind, match=message):
        bench(bundle, host)


def test_a_program_that_hangs_is_stopped(bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "hang")
    with pytest.raises(RunError, match="svit-run did not end within 1 s"):
        bench(bundle, host, options=BenchOptions(timeout_s=1, warmup_s=0, min_time_s=0))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong", r"golden outputs differ by .* \(accepted: 0\.001\), 1 of 4 with another class"),
        ("drift", r"unstable: the second half of the samples is \+\d+% from the first"),
        ("poor", r"the program found no .* on the device"),
    ],
)
def test_a_run_that_may_not_be_believed_is_invalid_with_its_reason(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setenv("FAULT", fault)
    record = bench(bundle, host)
    assert not record.valid
    assert any(re.search(reason, said) for said in record.reasons), record.reasons
    assert record.golden.match == (fault != "wrong")


def test_a_throttled_run_is_invalid(bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed = DeviceState(requested_mhz=(2000.0,), actual_mhz=(600.0,))
    monkeypatch.setattr(measure, "read_device_state", lambda root: slowed)
    record = bench(bundle, host)
    assert record.attempts == measure.MAX_ATTEMPTS
    assert record.reasons == ("throttled: core 0 runs at 600 MHz although 2000 MHz were requested",)
    assert not record.valid


def test_a_disturbed_run_is_repeated_until_it_is_stable(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calm, slowed = DeviceState(), DeviceState(requested_mhz=(2000.0,), actual_mhz=(600.0,))
    states = iter([calm, slowed, calm, calm])
    monkeypatch.setattr(measure, "read_device_state", lambda root: next(states))
    record = bench(bundle, host)
    assert (record.valid, record.attempts, record.before, record.after) == (True, 2, calm, calm)
    assert ["--output" in call for call in commands(tmp_path)] == [True, False, False]


@pytest.mark.parametrize("name", ["svit-run", "program.txt", "golden_output.bin"])
def test_a_changed_file_is_found_before_anything_runs(bundle: Path, host: Board, tmp_path: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(VerificationError, match=f"{name} is not the file that the manifest names"):
        bench(bundle, host)
    assert not (tmp_path / "log").exists()


def test_a_missing_file_is_found(bundle: Path, host: Board) -> None:
    (bundle / "program.txt").unlink()
    with pytest.raises(VerificationError, match=r"program\.txt is missing"):
        bench(bundle, host)


def test_a_manifest_cannot_name_files_outside_the_bundle(bundle: Path, host: Board, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    (bundle / "link").symlink_to(outside)
    entry = FileEntry(sha256=sha256(outside), size=1)
    for name in ("../outside", "link"):
        manifest = read_manifest(bundle)
        write_manifest(bundle, dataclasses.replace(manifest, files={name: entry}))
        with pytest.raises(VerificationError, match="no plain file of the bundle"):
            bench(bundle, host)


def test_golden_files_of_the_wrong_size_are_found(bundle: Path, host: Board) -> None:
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), golden_count=5))
    with pytest.raises(VerificationError, match="16 golden input and 12 output numbers are not 5 inputs"):
        bench(bundle, host)


def test_a_bundle_for_another_cpu_is_refused_before_anything_runs(bundle: Path, host: Board, tmp_path: Path) -> None:
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), required_features=("amx_tile9",)))
    with pytest.raises(ConfigError, match=r"host lacks: amx_tile9.*--board host"):
        bench(bundle, host)
    assert not (tmp_path / "log").exists()


def test_a_folder_that_is_no_bundle_is_refused(host: Board, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no bundle"):
        bench(tmp_path, host)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: dataclasses.replace(data, shape=(3, 2, 2)), r"are \(3, 2, 2\) .* reads \(1, 2, 2\)"),
        (lambda data: dataclasses.replace(data, class_names=("a", "b")), "have 2 classes, the network has 3"),
        (lambda data: dataclasses.replace(data, static=False), "are recordings, the network reads one image"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    bundle: Path, host: Board, change: Callable[[Dataset], Dataset], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        bench(bundle, host, dataset=change(images()))


def emulated_record(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, profile: bool = False
) -> BenchRecord:
    """Measures on a board that claims to be emulated, with the stand-in run natively."""
    host = load_board("host")
    board = dataclasses.replace(host, name="pretended", transport="qemu", qemu_cpu="cortex-a72")
    monkeypatch.setattr("svitkit.boards.transports.qemu_command", lambda cpu: ())
    monkeypatch.setattr(verdict, "qemu_version", lambda: "7.2.0")
    return bench(bundle, board, dataset=images(6), options=BenchOptions(repeat=50, profile=profile))


def test_the_profile_of_an_emulated_run_is_marked_and_its_memory_is_not_summed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = emulated_record(bundle, monkeypatch, tmp_path, profile=True)
    assert record.profile is not None
    assert record.profile.emulated
    assert record.memory.floor_bytes == 2
    assert record.memory.unexplained is None


def test_an_emulated_run_is_valid_but_its_times_and_memory_are_marked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAULT", "drift")
    record = emulated_record(bundle, monkeypatch, tmp_path)
    assert record.valid, record.reasons
    assert (record.emulated, record.latency_ms.emulated, record.memory.emulated) == (True, True, True)
    assert record.device.startswith("qemu-aarch64 -cpu cortex-a72 on ")
    assert record.versions["qemu"] == "7.2.0"
    assert (record.before, record.after) == (None, None)
    assert len(record.samples_ns) == measure.EMULATED_REPEAT
    timed = commands(tmp_path)[-1]
    assert (timed["--repeat"], timed["--min-time-s"]) == ("10", "0")


def test_an_emulated_run_with_wrong_outputs_is_invalid(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAULT", "wrong")
    record = emulated_record(bundle, monkeypatch, tmp_path)
    assert not record.valid
    assert not record.golden.match


def test_memory_that_the_kernel_does_not_tell_is_absent() -> None:
    report = parse_report(
        '{"load_ns":1,"first_ns":2,"warmup":0,"samples_ns":[],"vm_hwm_bytes":3,"pss_bytes":null,"private_bytes":null,'
        '"weights_bytes":4,"state_bytes":5,"workspace_bytes":6,"cpu_features":["fp"],"threads":1}'
    )
    assert (report.vm_hwm_bytes, report.pss_bytes, report.private_bytes) == (3, None, None)


@pytest.mark.parametrize("text", ["", "{}", '{"load_ns": 1}', "[1]", '{"load_ns": "1"}'])
def test_a_report_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="which is not its report"):
        parse_report(text)


def test_the_warm_up_that_was_needed_is_in_the_record(bundle: Path, host: Board, tmp_path: Path) -> None:
    record = bench(bundle, host, options=BenchOptions(warmup=2, warmup_s=4.5))
    assert (record.warmup, record.steady) == (3, True)
    assert (commands(tmp_path)[-1]["--warmup"], commands(tmp_path)[-1]["--warmup-s"]) == ("2", "4.5")


def test_the_fastest_number_of_threads_is_found_by_trying(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAULT", "crowded")  # the stand-in is fastest with 2 threads
    record = bench(bundle, dataclasses.replace(host, cores=6), options=BenchOptions(threads="auto"))
    assert record.threads_tried is not None
    assert [(tried.threads, tried.p50_ms) for tried in record.threads_tried] == [(1, 2.0), (2, 1.0), (4, 3.0), (6, 5.0)]
    assert (record.threads, commands(tmp_path)[-1]["--threads"]) == (2, "2")


def test_the_fastest_cluster_is_chosen_and_named(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clusters = (Cluster(cpus=(4, 5), capacity=1024), Cluster(cpus=(0, 1, 2, 3), capacity=400))
    monkeypatch.setattr(measure, "read_clusters", lambda root: clusters)
    board = dataclasses.replace(host, cores=6)
    assert bench(bundle, board).cpus == (4, 5)
    assert (commands(tmp_path)[-1]["--cpus"], commands(tmp_path)[-1]["--threads"]) == ("4,5", "2")
    assert bench(bundle, board, options=BenchOptions(cpus="little")).cpus == (0, 1, 2, 3)
    assert bench(bundle, board, options=BenchOptions(cpus="all")).cpus is None


def test_sustained_load_stream_and_energy_are_runs_of_their_own(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meter = Meter(
        name="INA3221",
        scope="all",
        files=("/in",),
        period_s=0.05,
        rails=lambda values: {"in": float(values[0] or 0)},
    )
    monkeypatch.setattr(measure, "find_meter", lambda root: meter)
    monkeypatch.setattr(measure, "sustained_sensors", lambda root: ("/sys/class/thermal/thermal_zone0/temp",))
    options = BenchOptions(duration_s=3.0, frames=4, fps=100.0, energy_s=1.0)
    record = bench(bundle, host, options=options)
    assert record.stream is not None
    assert (record.stream.frames, record.stream.misses) == (4, 1)
    assert record.energy is not None
    assert record.energy.net_per_inference_mj == pytest.approx(300)
    assert record.sustained is not None
    assert [window.celsius for window in record.sustained.windows] == [50.0, 60.0]
    told = [{key for key in call if key in ("--stream", "--energy-s", "--sustain-s")} for call in commands(tmp_path)]
    assert told == [set(), set(), {"--stream"}, {"--energy-s"}, {"--sustain-s"}]
    text = json.loads(record_json(record))
    assert {"stream", "energy", "sustained", "stability"} <= text.keys()


def test_a_board_without_a_sensor_of_power_is_told_before_anything_runs(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "find_meter", lambda root: None)
    with pytest.raises(ConfigError, match="host has no sensor of power that this user may read"):
        bench(bundle, host, options=BenchOptions(energy_s=1.0))
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BenchOptions(energy_s=1.0), "the energy it takes is no board's"),
        (BenchOptions(governor="performance"), "its clock is that of this machine"),
    ],
)
def test_an_emulator_has_neither_energy_nor_a_governor(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, options: BenchOptions, message: str
) -> None:
    monkeypatch.setattr("svitkit.boards.transports.qemu_command", lambda cpu: ())
    board = dataclasses.replace(load_board("host"), name="pretended", transport="qemu", qemu_cpu="cortex-a72")
    with pytest.raises(ConfigError, match=message):
        bench(bundle, board, options=options)


def test_the_governor_is_set_as_long_as_the_measurement_takes(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    file.parent.mkdir(parents=True)
    file.write_text("ondemand\n")
    monkeypatch.setattr("svitkit.boards.transports.set_governor", lambda name: set_governor(name, tmp_path))
    seen = []
    monkeypatch.setattr(measure, "read_device_state", lambda root: seen.append(file.read_text()) or DeviceState())
    bench(bundle, host, options=BenchOptions(governor="performance"))
    assert set(seen) == {"performance\n"}
    assert file.read_text() == "ondemand\n"


def test_more_threads_than_cores_to_stay_on_are_refused(bundle: Path, host: Board, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 threads on 1 cores \(0\) would wait for each other"):
        bench(bundle, host, options=BenchOptions(cpus="0", threads=2))
    assert not (tmp_path / "log").exists()


def test_operations_that_spikes_cause_are_told_beside_dense_ones() -> None:
    layers = (
        KernelChoice(layer="stem", kernel="dense", reason="real inputs", macs=1000),
        KernelChoice(layer="qkv", kernel="rows", reason="few spikes", macs=4000, input_density=0.1),
        KernelChoice(layer="fire", kernel="fire", reason="it is the only one"),
    )
    manifest = SimpleNamespace(kernels=layers, model=model("step"))
    operations = verdict.count_operations(cast(Manifest, manifest))
    assert operations is not None
    assert (operations.dense, operations.effective_macs, operations.effective_acs) == (10_000, 2000, 800)
    assert operations.synaptic == 2800
    assert verdict.count_operations(cast(Manifest, SimpleNamespace(kernels=layers[2:]))) is None


ORIN = {"api": "cuda", "type": "gpu", "name": "Orin", "driver": "CUDA 12.6"}
POCL = {"api": "opencl", "type": "cpu", "name": "pthread-EPYC", "driver": "OpenCL 3.1"}


def on_gpu(bundle: Path, board: Board) -> Path:
    """Turns a bundle into one for the GPU of a board; the stand-in does not care."""
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), gpu=gpu_plan(board)))
    return bundle


@pytest.fixture
def gpu_host(host: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """This machine with the GPU of an Orin."""
    monkeypatch.setenv("REPORT", json.dumps({"device": ORIN, "system_memory_bytes": 50_000_000, "floor_bytes": 2}))
    return dataclasses.replace(host, gpu=Gpu(api="cuda", name="Orin", architecture="sm_87"))


def test_a_bundle_for_a_gpu_runs_on_one_thread_where_the_system_wants_and_its_record_names_the_gpu(
    bundle: Path, gpu_host: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clusters = (Cluster(cpus=(4, 5), capacity=1024), Cluster(cpus=(0, 1, 2, 3), capacity=400))
    monkeypatch.setattr(measure, "read_clusters", lambda root: clusters)
    record = bench(on_gpu(bundle, gpu_host), gpu_host)
    assert record.ran_on == RunnerDevice(**ORIN)
    assert (record.on_gpu, record.processor, record.emulated) == (True, "GPU Orin (CUDA 12.6)", False)
    assert (record.threads, record.cpus) == (1, None)
    assert {call["--threads"] for call in commands(tmp_path)} == {"1"}
    assert (record.memory.system_bytes, record.memory.vm_hwm_bytes) == (50_000_000, 7)
    assert (record.memory.floor_bytes, record.memory.unexplained) == (2, None)


def test_a_bundle_for_the_cpu_is_measured_as_before_and_its_record_says_so(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT", json.dumps({"device": {"api": "cpu", "type": "cpu", "name": "", "driver": ""}}))
    record = bench(bundle, host)
    assert (record.on_gpu, record.processor, record.memory.system_bytes) == (False, "CPU", None)
    monkeypatch.delenv("REPORT")
    assert (bench(bundle, host).ran_on, bench(bundle, host).processor) == (None, "CPU")


def test_what_ran_in_place_of_a_gpu_is_an_emulated_record(
    bundle: Path, host: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT", json.dumps({"device": POCL, "system_memory_bytes": 1}))
    pocl = load_board("pocl")
    record = bench(on_gpu(bundle, pocl), pocl)
    assert record.valid, record.reasons
    assert (record.emulated, record.latency_ms.emulated, record.memory.emulated) == (True, True, True)
    assert record.device.startswith("OpenCL in place of a GPU on ")
    assert (record.on_gpu, record.processor) == (False, "CPU pthread-EPYC (OpenCL 3.1)")
    assert len(record.samples_ns) == measure.EMULATED_REPEAT
    assert record.stability is None


@pytest.mark.parametrize("threads", [2, "auto"])
def test_threads_on_a_gpu_are_refused_before_anything_runs(
    bundle: Path, gpu_host: Board, threads: object, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"--threads {threads}: on a GPU the threads of the CPU share no work"):
        bench(on_gpu(bundle, gpu_host), gpu_host, options=BenchOptions(threads=threads))
    assert bench(bundle, gpu_host, options=BenchOptions(threads=1)).threads == 1


def test_a_required_device_is_told_to_the_program(bundle: Path, gpu_host: Board, tmp_path: Path) -> None:
    bench(on_gpu(bundle, gpu_host), gpu_host, options=BenchOptions(require_device="gpu"))
    assert {call["--require-device"] for call in commands(tmp_path)} == {"gpu"}


def test_a_bundle_for_another_device_than_the_required_one_does_not_run(
    bundle: Path, gpu_host: Board, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--require-device gpu: the bundle was built for the CPU of host"):
        bench(bundle, gpu_host, options=BenchOptions(require_device="gpu"))
    with pytest.raises(ConfigError, match=r"--require-device cpu: .* the GPU of host. Build one with --device cpu"):
        bench(on_gpu(bundle, gpu_host), gpu_host, options=BenchOptions(require_device="cpu"))
    assert not (tmp_path / "log").exists()


def test_a_bundle_for_a_gpu_does_not_run_where_there_is_none(bundle: Path, gpu_host: Board, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"built for the GPU of host \(CUDA sm_87\), and host has another one"):
        bench(
            on_gpu(bundle, gpu_host),
            dataclasses.replace(gpu_host, gpu=Gpu(api="cuda", name="H100", architecture="sm_90")),
        )
    assert not (tmp_path / "log").exists()
