"""Programs for GPUs: through OpenCL on PoCL, and through CUDA on a test double of its driver, which PoCL plays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svitkit.errors import ConfigError
from svitkit.runtime.bench.runner_report import RunnerDevice, parse_report
from svitkit.runtime.session import Session
from svitkit.runtime.single_file import link_single_file
from svitkit.runtime.toolchain import archive_objects
from tests.runtime import bundles, gpu_bundles
from tests.runtime.gpu_bundles import LAYERS, reseal, wanted
from tests.runtime.test_runner import FAST, INPUTS, failed

RUNNER = Path(gpu_bundles.__file__).parents[2] / "runtime" / "runner"
CUDA = "cuda 53 kernels.ptx"
STEP = ["--count", 3]


@pytest.fixture(scope="module")
def built(pocl: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network for any OpenCL device, shared: not to be changed."""
    return gpu_bundles.make_bundle(tmp_path_factory.mktemp("opencl") / "bundle")


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def cuda_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network for CUDA, shared: not to be changed."""
    return gpu_bundles.make_bundle(tmp_path_factory.mktemp("cuda") / "bundle", device=CUDA)


def build_double(folder: Path, *flags: str) -> Path:
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "c++",
        "-target",
        f"{bundles.HOST}.2.27",
        "-std=c++17",
        "-O1",
        "-shared",
    ]
    command += ["-fPIC", f"-I{RUNNER}", *flags, str(Path(__file__).parent / "cuda_double.cc"), "-ldl"]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


@pytest.fixture(scope="module")
def double(pocl: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the driver's double."""
    return build_double(tmp_path_factory.mktemp("double"))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames.bin"
    path.write_bytes(INPUTS.tobytes())
    return path


def svit_run(
    bundle: Path, *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(bundle / "svit-run"), str(bundle), *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}
    )


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Like ``failed``, but PoCL's compiler prints a line of its own."""
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    *others, last = result.stderr.splitlines()
    assert others in ([], ["1 error generated."])
    assert last.startswith("svit-run: ")
    return last


def report(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    parse_report(result.stdout)
    return dict(json.loads(result.stdout))


def check_results(
    bundle: Path, frames: Path, *arguments: object, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs the inputs through svit-run and compares logits and spikes with numpy."""
    output, spikes = frames.with_name("y.bin"), frames.with_name("s.bin")
    files = ["--input", frames, *STEP, "--output", output, "--spikes", spikes]
    made = report(svit_run(bundle, *files, *FAST, *arguments, environment=environment))
    expected = [wanted(x) for x in INPUTS]
    np.testing.assert_array_equal(np.fromfile(output, np.float32).reshape(3, 2), [logits for logits, _ in expected])
    taps = np.fromfile(spikes, np.uint8).reshape(3, 4, 3, 8)  # input, step, tap, neuron
    for tap, layer in enumerate(LAYERS):
        np.testing.assert_array_equal(taps[:, :, tap], [spikes[layer] for _, spikes in expected])
    return made


def test_steps_keep_their_states_on_the_device_until_they_are_reset(built: Path, frames: Path) -> None:
    made = check_results(built, frames)
    assert (made["weights_bytes"], made["state_bytes"], made["workspace_bytes"]) == (284, 32, 2048)
    with Session(built) as session:
        logits = bundles.expected(INPUTS[0])[0]
        np.testing.assert_array_equal([session.step(frame[None])[0] for frame in INPUTS[0]], logits)
        session.reset()
        np.testing.assert_array_equal([session.step(frame[None])[0] for frame in INPUTS[0]], logits)


def test_a_session_gives_logits_and_spikes_as_bytes_and_names_its_device(built: Path, pocl: str) -> None:
    with Session(built) as session:
        logits, spikes = session.run_with_spikes(INPUTS[0])
        np.testing.assert_array_equal(session.run(INPUTS[0]), logits)
        np.testing.assert_array_equal(logits[0], wanted(INPUTS[0])[0])
        assert list(spikes) == list(LAYERS)
        for layer in LAYERS:
            assert spikes[layer].dtype == np.uint8
            np.testing.assert_array_equal(spikes[layer], wanted(INPUTS[0])[1][layer])
        device = session.device
    assert (device.api, device.type, device.name) == ("opencl", "cpu", pocl)
    assert "OpenCL" in device.driver


def test_two_sessions_share_nothing(built: Path) -> None:
    with Session(built) as first, Session(built) as second:
        got = [(first.step(x[None])[0], second.step(y[None])[0]) for x, y in zip(INPUTS[0], INPUTS[1], strict=True)]
    np.testing.assert_array_equal([x for x, _ in got], bundles.expected(INPUTS[0])[0])
    np.testing.assert_array_equal([y for _, y in got], bundles.expected(INPUTS[1])[0])


def test_a_whole_sequence_runs_from_reset_states(pocl: str, tmp_path: Path) -> None:
    bundle = gpu_bundles.make_bundle(tmp_path / "sequence", mode="sequence")
    (tmp_path / "x.bin").write_bytes(INPUTS.tobytes())
    report(svit_run(bundle, "--input", tmp_path / "x.bin", "--count", 12, "--output", tmp_path / "y.bin", *FAST))
    expected = [bundles.expected(x[None])[0][0] for x in INPUTS.reshape(12, 8)]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y.bin", np.float32).reshape(12, 2), expected)


def test_bytes_become_the_input_of_a_gpu_too(bundle: Path) -> None:
    reseal(bundle, "program.txt", "end\n", "frame 1 2 2 2 255 0.5 0.25 0.5 0.25\nend\n")
    frame = np.random.default_rng(0).integers(0, 256, (2, 2, 2), dtype=np.uint8)
    mean, std = np.array([0.5, 0.25], np.float32), np.array([0.5, 0.25], np.float32)
    x = (frame / np.float32(255) - mean[:, None, None]) / std[:, None, None]
    with Session(bundle) as session:
        got = session.run_frame(frame, layout="chw")
    np.testing.assert_array_equal(got[0], wanted(np.repeat(x.reshape(1, 8), 4, axis=0))[0])


def test_a_profile_tells_every_launch(built: Path, frames: Path) -> None:
    made = check_results(built, frames, "--profile", "--repeat", 5)
    assert [(cost["layer"], cost["kernel"], cost["calls"]) for cost in made["profile"]] == [
        ("stem", "scale", 20),
        ("fire", "fire", 20),
        ("head", "count", 20),
    ]
    assert all(0 < cost["p50_ns"] <= made["profile_p50_ns"] for cost in made["profile"])


@pytest.mark.parametrize(("dtype", "value", "bits"), [("float16", "-0.3", 0xB4CD), ("uint32", "4294967295", 2**32 - 1)])
def test_states_of_every_type_start_at_their_values(bundle: Path, dtype: str, value: str, bits: int) -> None:
    kind = {"float16": "ushort", "uint32": "uint"}[dtype]
    reseal(bundle, "kernels.cl", "__global float* v,", f"__global {kind}* state,")
    body = f"    float v[8] = {{0}};\n    rows[i] = state[i] == {bits}u;\n    bits[0] |= rows[i] << i;\n    continue;\n"
    reseal(bundle, "kernels.cl", "    v[i] += x[i];\n", body + "    v[i] += x[i];\n")
    reseal(bundle, "program.txt", "fire.v float32", f"fire.v {dtype}")
    reseal(bundle, "program.txt", "state 6 0.0", f"state 6 {value}")
    with Session(bundle) as session:
        np.testing.assert_array_equal(session.step(INPUTS[0, :1]), [[4.0, 4.0]])


def test_products_and_sums_are_rounded_apart(bundle: Path) -> None:
    product = "sum = sum * 0 + 1.0000002f; logits[part] = sum * sum - 1.0000005f;"
    reseal(bundle, "kernels.cl", "logits[part] = sum;", product)
    with Session(bundle) as session:
        rounded = np.float32(1.0000002) * np.float32(1.0000002) - np.float32(1.0000005)
        np.testing.assert_array_equal(session.step(INPUTS[0, :1]), [[rounded, rounded]])


def test_a_program_for_gpus_alone_never_runs_on_a_cpu(bundle: Path, frames: Path, pocl: str) -> None:
    reseal(bundle, "program.txt", "opencl any", "opencl gpu")
    words = failed(svit_run(bundle, "--input", frames, *STEP), 1)
    assert f"no OpenCL GPU: found '{pocl}', which is no GPU" in words
    assert "libOpenCL.so.1: loaded; " in words
    assert "libmali.so.1" in words
    with pytest.raises(ConfigError, match="no OpenCL GPU: found"):
        Session(bundle)


@pytest.mark.skipif(find_library("cuda") is not None, reason="this machine has a CUDA driver")
def test_without_a_driver_the_error_says_what_was_looked_for(cuda_bundle: Path, frames: Path) -> None:
    words = failed(svit_run(cuda_bundle, "--input", frames, *STEP), 1)
    assert "no CUDA driver on this machine. Looked for: libcuda.so.1: " in words
    assert "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1" in words


def test_a_library_without_opencl_is_named_and_passed_over(built: Path, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.c").write_text("int nothing;\n")
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-shared",
        "-o",
        tmp_path / "libOpenCL.so.1",
        tmp_path / "empty.c",
    ]
    subprocess.run(command, check=True)
    environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    words = failed(svit_run(built, "--input", frames, *STEP, environment=environment), 1)
    assert "no OpenCL device: found nothing. Looked for libraries: libOpenCL.so.1: no OpenCL; " in words


def test_a_required_device_is_checked(built: Path, built_host_bundle: Path, frames: Path) -> None:
    inputs = ["--input", frames, *FAST]
    assert report(svit_run(built, *inputs, *STEP, "--require-device", "cpu"))["device"]["type"] == "cpu"
    words = failed(svit_run(built, *inputs, *STEP, "--require-device", "gpu"), 1)
    assert "--require-device gpu: the network runs on a cpu (opencl, '" in words
    machine_code = report(svit_run(built_host_bundle, *inputs, "--count", 12, "--require-device", "cpu"))
    assert machine_code["device"] == {"api": "cpu", "type": "cpu", "name": "", "driver": ""}
    assert "system_memory_bytes" not in machine_code
    words = failed(svit_run(built_host_bundle, *inputs, "--count", 12, "--require-device", "gpu"), 1)
    assert "--require-device gpu: the network runs on a cpu (cpu)" in words
    assert "--require-device is 'cpu' or 'gpu'" in failed(svit_run(built, *inputs, "--require-device", "npu"), 2)


def test_the_report_and_the_information_name_the_device(built: Path, frames: Path, pocl: str) -> None:
    printed = parse_report(svit_run(built, "--input", frames, *STEP, *FAST).stdout)
    assert printed.device is not None
    assert (printed.device.api, printed.device.name) == ("opencl", pocl)
    assert printed.system_memory_bytes is not None
    assert printed.system_memory_bytes >= 0
    assert printed.floor_bytes is None
    shown = svit_run(built, "--info")
    assert shown.stdout == (built / "manifest.json").read_text()
    assert shown.stderr.startswith(f"runs on a cpu: {pocl} (opencl, OpenCL ")


def test_a_report_of_an_earlier_program_has_no_device(built_host_bundle: Path, frames: Path) -> None:
    printed = report(svit_run(built_host_bundle, "--input", frames, "--count", 12, *FAST))
    del printed["device"]
    assert parse_report(json.dumps(printed)).device is None


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (
            "kernels.cl",
            "const int part",
            "const strange part",
            ") cannot compile kernels.cl: clBuildProgram gave CL_BUILD",
        ),
        ("kernels.cl", "const int part", "const strange part", "'strange'"),
        (
            "kernels.cl",
            "void scale",
            "void scales",
            "line 21: kernels.cl has no kernel 'scale': clCreateKernel gave CL_",
        ),
        (
            "program.txt",
            "count head 1 2 1 1 1 1 2 8 10",
            "count head 1 2 1 1 1 1 1 8",
            "it has 2 parameters, program.txt",
        ),
        ("program.txt", "1 1 1 8 1 1 2 3 4", "1 1 1 8 1 900000 2 3 4", "it wants blocks of 7200000 threads, '"),
        (
            "program.txt",
            "workspace 2048",
            "workspace 70368744177664",
            "bytes in one piece, the network wants 7036874417",
        ),
        ("program.txt", "weights 284", "weights 285", "weights.bin has 284 bytes, program.txt says 285"),
        ("program.txt", "opencl any kernels.cl", "opencl any other.cl", "other.cl"),
    ],
)
def test_what_the_driver_refuses_is_told_when_the_bundle_is_loaded(
    bundle: Path, frames: Path, name: str, old: str, new: str, words: str
) -> None:
    reseal(bundle, name, old, new)
    assert words in refused(svit_run(bundle, "--input", frames, *STEP))


def test_damaged_weights_are_found_when_they_are_expanded(bundle: Path, frames: Path) -> None:
    content = bytearray((bundle / "weights.bin").read_bytes())
    content[0] = 0xFF
    (bundle / "weights.bin").write_bytes(bytes(content))
    words = failed(svit_run(bundle, "--input", frames, *STEP), 1)
    assert "weights.bin is damaged: the bitmap of 'w' does not fit its values" in words


def test_a_gpu_has_one_thread(built: Path) -> None:
    with pytest.raises(ConfigError, match="threads=2, the bundle was built for 1 to 1"):
        Session(built, threads=2)


DEVICE = "device opencl any kernels.cl"
SCALE = "launch scale stem 2 1 1 4 1 1 3 0 4 5"
MALFORMED = [
    ("threads 1", "threads 2", "line 4: a program for a GPU has 1 thread"),
    (DEVICE, "device vulkan any kernels.cl", "line 4: unknown device 'vulkan': cuda or opencl"),
    (DEVICE, "device opencl cpu kernels.cl", "line 4: expected 'gpu', got 'cpu'"),
    (DEVICE, "device cuda x kernels.ptx", "line 4: compute capability is no number: 'x'"),
    (DEVICE, "device cuda 1000 kernels.ptx", "line 4: compute capability is '1000', the largest allowed is 999"),
    (DEVICE, "device cuda 8 kernels.ptx", "line 4: compute capability '8', the first one was 10"),
    (DEVICE, "device opencl any", "line 4: 'device' wants 3 values, got 2"),
    (DEVICE, "device opencl any ../kernels.cl", "line 4: not the name of a file: '../kernels.cl'"),
    (DEVICE, "device opencl any /kernels.cl", "line 4: not the name of a file"),
    (DEVICE, "device opencl any .kernels", "line 4: not the name of a file"),
    (DEVICE, "device opencl any " + "k" * 61, "line 4: not the name of a file"),
    (DEVICE + "\n", "", "line 12: unknown dtype 'uint1'"),
    (DEVICE, DEVICE + "\n" + DEVICE, "line 5: 'device' belongs on line 4"),
    (
        "tensor 3 w float32 workspace 256",
        "tensor 3 w float32 workspace 64",
        "line 8: offset '64' is no multiple of 256",
    ),
    ("rows uint1 workspace 1280 2 8 1", "rows uint1 workspace 1280 2 8 1000", "line 13: the tensor ends at byte 2304"),
    ("tensor 0 input float32", "tensor 0 input uint1", "line 30: the input must not be packed"),
    (
        "logits float32 workspace 1792 2 1 2",
        "logits float16 workspace 1792 2 1 2",
        "line 30: the output must be float32",
    ),
    ("state 6 0.0", "state 6 0.0\nstate 6 0.0", "line 17: a second initial value"),
    ("6 fire.v float32", "6 fire.v uint1", "line 16: the initial value '1.0' is no uint1"),
    ("6 fire.v float32", "6 fire.v float16", "line 16: the initial value '65505' is no float16"),
    ("w float32 workspace 256 1 8", "w uint1 workspace 256 1 8", "line 19: the values are packed"),
    (SCALE, "call scale stem whole 3 0 4 5", "line 21: a program for a GPU has no 'call'"),
    (SCALE, "launch scale", "line 21: 'launch' is cut off"),
    (SCALE, "launch sc-ale stem 2 1 1 4 1 1 3 0 4 5", "line 21: not a symbol: 'sc-ale'"),
    (SCALE, "launch scale stem 2 0 1 4 1 1 3 0 4 5", "line 21: a launch without threads"),
    (SCALE, "launch scale stem 2 -1 1 4 1 1 3 0 4 5", "line 21: extent is no number: '-1'"),
    (SCALE, "launch scale stem 2147483648 1 1 1 1 1 3 0 4 5", "line 21: extent is '2147483648', the largest"),
    (SCALE, "launch scale stem 65536 1 1 1 32768 1 3 0 4 5", "line 21: a launch of more than 2147483647 threads"),
    (SCALE, "launch scale stem 2 1 1 4 1 1 3 0 4", "line 21: 'launch' wants 12 values, got 11"),
    (SCALE, "launch scale stem 2 1 1 4 1 1 0", "line 21: a call without arguments"),
    (SCALE, "launch scale stem 2 1 1 4 1 1 3 0 4 11", "line 21: tensor id is '11', the largest allowed is 10"),
    ("prepare turn stem 1 1 1 8 1 1 2 3 4", "prepare turn stem 1 1 1 8 1 1 2 3", "line 20: 'prepare' wants 11 values"),
    ("tap fire 7 1", "tap fire 7 3", "line 24: call index is '3', the largest allowed is 2"),
]


@pytest.mark.parametrize(("old", "new", "words"), MALFORMED, ids=[words for _, _, words in MALFORMED])
def test_a_malformed_program_is_refused_with_its_line(
    cuda_bundle: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    values = {"'1.0'": "state 6 1.0", "'65505'": "state 6 65505"}
    state = next((line for value, line in values.items() if value in words), "state 6 0.0")
    text = gpu_bundles.PROGRAM.replace("state 6 0.0", state)
    assert old in text
    (tmp_path / "program.txt").write_text(text.replace(old, new, 1))
    shutil.copy(cuda_bundle / "svit-run", tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    result = svit_run(tmp_path, "--self-test")
    assert words in failed(result, 1)


def test_a_program_for_the_cpu_has_no_launches(tmp_path: Path, cuda_bundle: Path) -> None:
    for kind in ("launch", "prepare"):
        text = bundles.PROGRAM.replace("call scale stem split 3", f"{kind} scale stem 1 1 1 1 1 1 3")
        (tmp_path / "program.txt").write_text(text)
        shutil.copy(cuda_bundle / "svit-run", tmp_path)
        assert f"line 14: a program for the CPU has no '{kind}'" in failed(svit_run(tmp_path, "--self-test"), 1)


def test_a_single_file_says_that_it_cannot_load_a_driver(tmp_path: Path) -> None:
    program, parts = tmp_path / "tiny", tmp_path / "work" / "parts"
    bundles.write_parts(parts, bundles.HOST)
    (parts / "program.txt").write_text(gpu_bundles.PROGRAM)
    bundles.compile_code(tmp_path / "work" / "kernels.a", bundles.HOST, archive_objects)
    link_single_file(parts, tmp_path / "work" / "kernels.a", ("scale", "fire", "count"), program, bundles.HOST)
    result = subprocess.run([program, "--classify", parts / "golden_input.bin"], capture_output=True, text=True)
    assert "this program is one static file, which cannot load a GPU's driver" in failed(result, 1)


def by_double(folder: Path, counts: Path, **settings: str) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(folder), "DOUBLE_COUNTS": str(counts)} | {
        f"DOUBLE_{name.upper()}": value for name, value in settings.items()
    }


def read_counts(path: Path) -> dict[str, int]:
    return {name: int(count) for name, count in (line.split() for line in path.read_text().splitlines())}


def test_cuda_replays_a_run_as_one_graph_and_gives_everything_back(
    cuda_bundle: Path, double: Path, frames: Path, tmp_path: Path
) -> None:
    environment = by_double(double, tmp_path / "counts", name="Orin")
    made = check_results(cuda_bundle, frames, "--profile", "--require-device", "gpu", environment=environment)
    driver = "CUDA 12.6, sm_87, replays a graph"
    assert made["device"] == {"api": "cuda", "type": "gpu", "name": "Orin", "driver": driver}
    plain = ["--input", frames, *STEP, "--warmup", 0, "--repeat", 2]
    report(svit_run(cuda_bundle, *plain, environment=environment))
    counts = read_counts(tmp_path / "counts")
    steps = 3 * 4  # the first inference and two samples
    assert counts["cuGraphLaunch"] == steps
    assert counts["cuLaunchKernel"] == 1 + 3  # preparing, and what was captured
    assert counts["cuMemcpyDtoHAsync_v2"] == 1
    assert counts["cuStreamSynchronize"] == steps + 4  # weights, their expansion, the preparation, and the end
    assert counts["left"] == 0


def test_an_early_driver_with_graphs_replays_them_too(
    cuda_bundle: Path, pocl: str, frames: Path, tmp_path: Path
) -> None:
    environment = by_double(build_double(tmp_path, "-DLIKE_CUDA_10"), tmp_path / "counts")
    assert check_results(cuda_bundle, frames, environment=environment)["device"]["driver"] == (
        "CUDA 10.2, sm_87, replays a graph"
    )


@pytest.mark.parametrize("fails", ["no functions for graphs", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags"])
def test_without_graphs_cuda_launches_in_a_stream(
    cuda_bundle: Path, double: Path, frames: Path, tmp_path: Path, fails: str
) -> None:
    folder = build_double(tmp_path, "-DWITHOUT_GRAPHS") if " " in fails else double
    environment = by_double(folder, tmp_path / "counts", fails=fails)
    made = check_results(cuda_bundle, frames, environment=environment)
    assert made["device"]["driver"] == "CUDA 12.6, sm_87, launches in a stream"
    counts = read_counts(tmp_path / "counts")
    assert "cuGraphLaunch" not in counts
    assert counts["left"] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"capability": "50"},
            "need sm_53 or newer, this machine has 'a double' with compute capability 5.0 (sm_50): build",
        ),
        (
            {"memory": "2000"},
            "'a double' has no 2048 bytes for the workspace: cuMemAlloc gave CUDA_ERROR_OUT_OF_MEMORY (out",
        ),
        ({"fails": "cuInit"}, "libcuda.so.1 is there, but finds no GPU: cuInit gave CUDA_ERROR_NOT_SUPPORTED"),
        ({"fails": "cuMemAllocHost_v2"}, "cuMemAllocHost of 32 bytes gave CUDA_ERROR_NOT_SUPPORTED"),
        (
            {"fails": "cuLaunchKernel"},
            "kernel 'turn' of layer 'stem' failed: cuLaunchKernel gave CUDA_ERROR_NOT_SUPPORTED",
        ),
        ({"fails": "cuGraphLaunch"}, "cuGraphLaunch gave CUDA_ERROR_NOT_SUPPORTED (operation not supported)"),
        ({"fails": "cuCtxPushCurrent_v2"}, "cuStreamCreate gave CUDA_ERROR_INVALID_CONTEXT"),
    ],
)
def test_what_cuda_refuses_is_named(
    cuda_bundle: Path, double: Path, frames: Path, tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    environment = by_double(double, tmp_path / "counts", **settings)
    assert words in failed(svit_run(cuda_bundle, "--input", frames, *STEP, environment=environment), 1)
    if "memory" in settings:
        assert read_counts(tmp_path / "counts")["left"] == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "const int part",
            "const strange part",
            "CUDA 12.6, sm_87) cannot compile kernels.ptx: cuModuleLoadDataEx gave",
        ),
        ("const int part", "const strange part", "CUDA_ERROR_INVALID_PTX (a PTX JIT compilation failed): error: "),
        (
            "void scale",
            "void scales",
            "line 21: kernels.ptx has no kernel 'scale': cuModuleGetFunction gave CUDA_ERROR_NOT",
        ),
    ],
)
def test_what_cuda_cannot_compile_is_told_with_its_log(
    cuda_bundle: Path, double: Path, frames: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    bundle = Path(shutil.copytree(cuda_bundle, tmp_path / "bundle"))
    reseal(bundle, "kernels.ptx", old, new)
    environment = by_double(double, tmp_path / "counts")
    assert words in refused(svit_run(bundle, "--input", frames, *STEP, environment=environment))
    assert read_counts(tmp_path / "counts")["left"] == 0


def test_the_cpus_session_names_its_device_as_well(built_host_bundle: Path) -> None:
    with Session(built_host_bundle) as session:
        assert session.device == RunnerDevice(api="cpu", type="cpu", name="", driver="")
