"""One program with a network in it: the tiny one, whose logits numpy knows exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from svitkit.boards.board import Board, load_board
from svitkit.boards.preflight import check_bundle
from svitkit.errors import ConfigError, VerificationError
from svitkit.kinds import kind_of
from svitkit.manifest import check_files, read_manifest
from svitkit.parts import read_part
from svitkit.runtime.bench.measure import bench
from svitkit.runtime.bench.options import BenchOptions
from svitkit.runtime.session import Session
from svitkit.runtime.single_file import PARTS, build_single_file
from svitkit.runtime.toolchain import link_program
from tests.runtime import bundles
from tests.runtime.test_runner import check_memory_sum

QEMU = shutil.which("qemu-aarch64-static")
A53 = (str(QEMU), "-cpu", "cortex-a53")  # without -L: there is no library to be found
emulated = pytest.mark.skipif(QEMU is None, reason="needs qemu-user-static")
INPUTS = np.random.default_rng(1).uniform(0, 1.5, (3, 4, 8)).astype(np.float32)  # (N, T, features)
LOGITS = np.stack([bundles.expected(x)[0].mean(axis=0) for x in INPUTS])
FEW = ["--warmup", "1", "--repeat", "2"]
CPUS = len(os.sched_getaffinity(0))


def start(program: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the program alone in an empty folder, without environment."""
    command = [*prefix, str(program), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={}, check=False)


def check_logits(program: Path, folder: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> dict[str, object]:
    (folder / "x.bin").write_bytes(INPUTS.tobytes())
    files = ["--input", folder / "x.bin", "--count", 3, "--output", folder / "y.bin"]
    done = start(program, *files, *FEW, *arguments, prefix=prefix)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.fromfile(folder / "y.bin", np.float32).reshape(3, 2), LOGITS)
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_it_runs_alone_and_gives_the_logits_of_the_network(host_program: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(host_program, tmp_path / "alone"))
    report = check_logits(alone, tmp_path)
    assert (report["weights_bytes"], report["state_bytes"], report["workspace_bytes"]) == (32, 32, 320)


@emulated
def test_it_runs_on_a_cortex_a53_without_any_library_beside_it(arm_program: Path, tmp_path: Path) -> None:
    check_logits(arm_program, tmp_path, prefix=A53)
    if CPUS > 1:
        check_logits(arm_program, tmp_path, "--threads", 2, prefix=A53)
    assert start(arm_program, "--self-test", prefix=A53).stdout.startswith("golden check: equal on 3 inputs")


@emulated
@pytest.mark.parametrize("page_bytes", [16384, 65536])
def test_it_runs_on_kernels_with_larger_pages(arm_program: Path, page_bytes: int) -> None:
    done = start(arm_program, "--self-test", prefix=(*A53, "-p", str(page_bytes)))
    assert done.stdout.startswith("golden check: equal"), done.stderr


@emulated
def test_a_cortex_a53_is_told_that_it_lacks_dot_products(tmp_path: Path) -> None:
    newer = bundles.make_single_file(tmp_path / "newer", bundles.ARM, features=("fp", "asimd", "asimddp"))
    done = start(newer, "--self-test", prefix=A53)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this CPU has no asimddp, which the machine code uses" in done.stderr


@pytest.mark.parametrize("program", ["host_program", "arm_program"])
def test_it_names_no_loader_and_no_library(program: str, request: pytest.FixtureRequest) -> None:
    with request.getfixturevalue(program).open("rb") as file:
        elf = ELFFile(file)
        assert {segment["p_type"] for segment in elf.iter_segments()} & {"PT_INTERP", "PT_DYNAMIC"} == set()
        weights = elf.get_section_by_name(".svit.weights.bin")
        assert weights["sh_addr"] % 4096 == 0
        assert [s["p_flags"] for s in elf.iter_segments() if s.section_in_segment(weights)] == [4]  # readable, no more


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
def test_threads_share_the_work(host_program: Path, tmp_path: Path) -> None:
    assert check_logits(host_program, tmp_path, "--threads", 2, "--repeat", 200)["threads"] == 2


def test_its_memory_is_the_plan_and_a_floor_below_that_of_a_bundle(
    host_program: Path, built_host_bundle: Path, tmp_path: Path
) -> None:
    report = check_logits(host_program, tmp_path)
    check_memory_sum(report)
    bundle = ["--input", tmp_path / "x.bin", "--count", 3, "--mode", "step", "--timesteps", 4, *FEW]
    beside = json.loads(start(built_host_bundle / "svit-run", built_host_bundle, *bundle).stdout)
    assert report["vm_hwm_bytes"] < beside["vm_hwm_bytes"]


def test_the_self_test_passes_or_exits_with_1(host_program: Path, tmp_path: Path) -> None:
    passed = start(host_program, "--self-test")
    assert (passed.returncode, passed.stderr) == (0, "")
    assert passed.stdout == ("golden check: equal on 3 inputs (largest difference 0, accepted 0; other class: 0)\n")
    shifted = start(bundles.make_single_file(tmp_path / "shifted", bundles.HOST, shift=0.5), "--self-test")
    assert (shifted.returncode, shifted.stdout) == (1, "")
    assert "golden check: NOT equal on 3 inputs (largest difference 0.5, accepted 0" in shifted.stderr


def test_info_is_the_manifest(host_program: Path) -> None:
    manifest = json.loads(start(host_program, "--info").stdout)
    assert manifest["model"]["family"] == "tiny"
    assert manifest["glibc_floor"] is None
    assert set(manifest["files"]) == set(PARTS) - {"manifest.json"}


def test_classify_prints_a_line_for_each_input_with_the_name_of_its_class(host_program: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(INPUTS.tobytes())
    done = start(host_program, "--classify", tmp_path / "x.bin", "--count", 3)
    assert done.returncode == 0, done.stderr
    names = bundles.metadata(4).class_names
    wanted = [f"{i}\t{y.argmax()}\t{names[y.argmax()]}\t{y.max():.9g}" for i, y in enumerate(LOGITS)]
    assert done.stdout.splitlines() == wanted


def test_a_cpu_that_lacks_a_feature_is_told_so_before_any_kernel_runs(tmp_path: Path) -> None:
    poor = bundles.make_single_file(tmp_path / "poor", bundles.HOST, features=("fpu", "sse99"))
    done = start(poor, "--self-test")
    assert (done.returncode, done.stdout) == (1, "")
    assert "this CPU has no sse99, which the machine code uses" in done.stderr
    assert json.loads(start(poor, "--info").stdout)["board"] == "host"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bundle"], "the network is in this program, got 'bundle'"),
        ([], "--input FILE is missing"),
        (["--classify"], "'--classify' wants a value"),
        (["--classify", "x", "--frames", "whc"], "--frames is 'hwc' or 'chw', got 'whc'"),
    ],
)
def test_wrong_arguments_exit_with_2(host_program: Path, arguments: list[str], words: str) -> None:
    done = start(host_program, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_the_same_network_gives_the_same_bytes(host_program: Path, tmp_path: Path) -> None:
    again = bundles.make_single_file(tmp_path / "again", bundles.HOST)
    assert again.read_bytes() == host_program.read_bytes()


@pytest.mark.parametrize(("board", "program"), [("host", "host_program"), ("qemu-cortex-a72", "arm_program")])
def test_it_is_measured_like_a_bundle(board: str, program: str, request: pytest.FixtureRequest) -> None:
    if board != "host" and QEMU is None:
        pytest.skip("needs qemu-user-static")
    path = request.getfixturevalue(program)
    options = BenchOptions(warmup=1, warmup_s=0, repeat=5, min_time_s=0, threads=1)
    record = bench(path, load_board(board), options=options)
    assert record.golden.match
    assert record.golden.max_abs_diff == 0
    assert record.bundle_bytes == path.stat().st_size
    assert len(record.samples_ns) == 5
    assert record.firing_rates is not None
    assert kind_of(str(path)) == "bundle"


def test_a_part_that_was_changed_is_found(host_program: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    content = host_program.read_bytes()
    assert content.count(bundles.WEIGHTS.tobytes()) == 1
    changed.write_bytes(content.replace(bundles.WEIGHTS.tobytes(), np.flip(bundles.WEIGHTS).tobytes()))
    check_files(host_program, read_manifest(host_program))
    with pytest.raises(VerificationError, match=r"its weights\.bin is not what its manifest names"):
        check_files(changed, read_manifest(changed))


def test_what_is_no_single_file_says_so(host_program: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut").write_bytes(host_program.read_bytes()[:5000])
    for name in ("text", "cut"):
        with pytest.raises(ConfigError, match="is no bundle"):
            read_manifest(tmp_path / name)
        with pytest.raises(ConfigError, match="does not know"):
            kind_of(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"has no model\.so"):
        read_part(host_program, "model.so")
    with pytest.raises(ConfigError, match="is a program: run it"):
        Session(host_program)
    with pytest.raises(ConfigError, match="is a directory, and --single-file writes a file"):
        build_single_file(tmp_path / "x.onnx", load_board("host"), tmp_path, golden=INPUTS)


def test_a_damaged_program_is_a_config_error_or_its_parts_are_checked(host_program: Path, tmp_path: Path) -> None:
    content, damaged = host_program.read_bytes(), tmp_path / "damaged"
    table = int.from_bytes(content[0x28:0x30], "little")  # of the sections
    damaged.write_bytes(content)
    random = np.random.default_rng(0)
    refused = 0
    with damaged.open("r+b", buffering=0) as file:
        for _ in range(300):
            place = int(random.choice([random.integers(0, 64), random.integers(table, len(content))]))
            os.pwrite(file.fileno(), bytes([random.integers(0, 256)]), place)
            try:
                check_files(damaged, read_manifest(damaged))
            except (ConfigError, VerificationError):
                refused += 1
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert 20 < refused < 280
    check_files(damaged, read_manifest(damaged))


def test_no_glibc_is_asked_of_a_board_but_features_are(host_program: Path) -> None:
    manifest, board = read_manifest(host_program), load_board("host")
    old: Board = dataclasses.replace(board, system_glibc="2.5")
    check_bundle(manifest, old)
    with pytest.raises(ConfigError, match="sse99"):
        check_bundle(dataclasses.replace(manifest, required_features=("sse99",)), old)


def test_a_program_that_cannot_be_linked_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "network.S").write_text("")
    (tmp_path / "network.c").write_text("")
    with pytest.raises(ConfigError, match=r"kernels\.a: file not found"):
        link_program(tmp_path, tmp_path / "kernels.a", tmp_path / "out", bundles.HOST)
    assert not (tmp_path / "out").exists()
