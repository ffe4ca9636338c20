import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from svitkit.boards.board import (
    BoardFile,
    best_cpu,
    board_names,
    complete_board,
    list_boards,
    load_board,
    read_board_file,
    read_cpus,
)
from svitkit.boards.machine import Machine
from svitkit.errors import ConfigError, UnsupportedError

BASE_X86 = read_cpus()["x86-64-v2"].features
GOOD = """
title = "A board"
transport = "ssh"
cpu = "cortex-a72"
cores = 4
memory_bytes = 1_073_741_824
[sources]
cpu = "data sheet"
cores = "data sheet"
memory_bytes = "not verified"
"""


def machine(triple: str, features: tuple[str, ...]) -> Machine:
    return Machine(triple=triple, cpu_features=features, cores=3, memory_bytes=1 << 30, glibc="2.36")


def test_every_promised_board_loads() -> None:
    assert [board.name for board in list_boards()] == [
        "host",
        "jetson-nano",
        "jetson-orin-agx",
        "jetson-orin-nano",
        "jetson-orin-nx",
        "jetson-tx2",
        "jetson-xavier-agx",
        "jetson-xavier-nx",
        "pocl",
        "qemu-cortex-a53",
        "qemu-cortex-a72",
        "qemu-cortex-a76",
        "raspberry-pi-3b-plus",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "raspberry-pi-zero-2w",
        "rock-5b",
    ]


@pytest.mark.parametrize("name", board_names())
def test_every_fact_of_a_board_has_a_source(name: str) -> None:
    content = load_board(name).facts
    assert set(content.sources) == content.facts()
    assert all(content.sources.values())
    if content.gpu is not None:
        assert set(content.gpu.sources) == content.gpu.facts()
        assert all(content.gpu.sources.values())


@pytest.mark.parametrize("name", board_names())
def test_what_a_board_requires_it_has(name: str) -> None:
    board = load_board(name)
    assert board.required_features
    assert set(board.required_features) <= set(board.cpu_features)


def test_a_misspelt_board_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown board 'raspbery-pi4'.*Did you mean 'raspberry-pi-4'"):
        load_board("raspbery-pi4")


@pytest.mark.parametrize("name", ["cpus", "../boards/host", ""])
def test_names_that_are_files_but_no_boards_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown board"):
        load_board(name)


def test_the_targets_of_a_board_name_its_cpu_and_the_glibc_floor() -> None:
    board = load_board("raspberry-pi-4")
    assert board.tvm_target() == {
        "kind": "llvm",
        "mtriple": "aarch64-linux-gnu",
        "mcpu": "cortex-a72",
        "mattr": ["-aes", "-sha2"],
    }
    assert board.zig_target == "aarch64-linux-gnu.2.27"


def test_an_emulated_board_runs_on_the_cores_of_this_machine() -> None:
    content = BoardFile(title="e", transport="qemu", cpu="cortex-a53", qemu_cpu="cortex-a53", sources={"cpu": "x"})
    board = complete_board("e", content, machine("x86_64-linux-gnu", BASE_X86))
    assert (board.cores, board.memory_bytes, board.emulated) == (3, 1 << 30, True)
    assert board.cpu_features == read_cpus()["cortex-a53"].features
    assert board.threads == 1  # what an emulator takes says nothing


def test_an_inference_takes_one_thread_for_each_big_core_and_at_most_8() -> None:
    assert (load_board("raspberry-pi-4").threads, load_board("rock-5b").threads) == (4, 4)
    host = load_board("host")
    assert host.threads == min(host.cores, 8)
    assert dataclasses.replace(host, cores=64).threads == 8


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (("cores = 4", "cores = 4\ncoers = 4"), r"coers: .*nexpected"),
        (('title = "A board"', ""), "title: Field required"),
        (("cores = 4", 'cores = "4"'), "cores: Input should be a valid integer"),
        (("cores = 4", "cores = 0"), "cores: Input should be greater than 0"),
        (('transport = "ssh"', 'transport = "usb"'), "transport"),
        (('cores = "data sheet"', ""), r"the facts and the \[sources\] differ in cores"),
        (('cores = "data sheet"', 'clock_mhz = "data sheet"'), "differ in clock_mhz, cores"),
        (('transport = "ssh"', 'transport = "qemu"'), "transport is 'qemu' and qemu_cpu is None"),
        (('transport = "ssh"', 'transport = "ssh"\nqemu_cpu = "cortex-a72"'), "transport is 'ssh' and qemu_cpu"),
        (('cpu = "cortex-a72"', ""), "differ in cpu"),
        (("[sources]", "[sources"), "cannot be read as TOML"),
        (
            ("[sources]", '[gpu]\napi = "cuda"\nname = "G"\n[sources]'),
            r"of \[gpu\] and the \[gpu.sources\] differ in name",
        ),
        (("[sources]", '[gpu]\napi = "vulkan"\nname = "G"\n[sources]'), "gpu.api: Input should be 'cuda' or 'opencl'"),
        (("[sources]", '[gpu]\napi = "cuda"\nname = "G"\narchitecture = "8.7"\n[sources]'), "gpu.architecture"),
    ],
)
def test_a_wrong_board_file_is_refused_with_the_key_at_fault(
    tmp_path: Path, mend: tuple[str, str], message: str
) -> None:
    path = tmp_path / "board.toml"
    path.write_text(GOOD.replace(*mend, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        read_board_file(path)
    assert str(path) in str(caught.value)


def test_a_board_elsewhere_needs_a_cpu_model(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text('title = "A board"\ntransport = "ssh"\n[sources]\n')
    with pytest.raises(ConfigError, match="cpu is missing"):
        read_board_file(path)


def test_an_unknown_cpu_model_names_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(GOOD.replace('"cortex-a72"', '"cortex-a73"'))
    with pytest.raises(ConfigError, match=r"unknown CPU model 'cortex-a73'.*Did you mean 'cortex-a7"):
        complete_board("board", read_board_file(path), machine("x86_64-linux-gnu", BASE_X86))


@pytest.mark.parametrize(
    ("triple", "like", "without", "chosen"),
    [
        ("x86_64-linux-gnu", "x86-64-v4-vnni", "", "x86-64-v4-vnni"),
        ("x86_64-linux-gnu", "x86-64-v4-vnni", "avx512_vbmi2", "x86-64-v4"),
        ("x86_64-linux-gnu", "x86-64-v4", "", "x86-64-v4"),
        ("x86_64-linux-gnu", "x86-64-v4", "avx512bw", "x86-64-v3"),
        ("x86_64-linux-gnu", "x86-64-v4", "bmi2", "x86-64-v2"),
        ("aarch64-linux-gnu", "cortex-a76", "", "cortex-a76"),
        ("aarch64-linux-gnu", "cortex-a76", "asimddp", "carmel"),
        ("aarch64-linux-gnu", "cortex-a76", "aes", "cortex-a53"),
    ],
)
def test_the_host_gets_the_best_cpu_model_that_its_flags_allow(
    triple: str, like: str, without: str, chosen: str
) -> None:
    flags = tuple(flag for flag in (*read_cpus()[like].features, "evtstrm") if flag != without)
    assert best_cpu(machine(triple, flags), read_cpus()) == chosen


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "riscv64-linux-gnu"])
def test_a_host_without_the_least_features_is_refused(triple: str) -> None:
    with pytest.raises(UnsupportedError, match="fewer CPU features than any model"):
        best_cpu(machine(triple, ("fpu",)), read_cpus())


def test_boards_are_known_without_torch_and_tvm() -> None:
    code = (
        "import sys; from svitkit.boards import board, preflight, transports; board.list_boards(); "
        "print([name for name in ('torch', 'tvm', 'onnxruntime', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# LLVM's name of a subtarget feature, and the instruction sets it stands for in /proc/cpuinfo.
LLVM_NAMES = {
    "fp-armv8": {"fp"},
    "neon": {"asimd"},
    "crc": {"crc32"},
    "aes": {"aes", "pmull"},
    "sha2": {"sha1", "sha2"},
    "lse": {"atomics"},
    "fullfp16": {"fphp", "asimdhp"},
    "rdm": {"asimdrdm"},
    "ccpp": {"dcpop"},
    "rcpc": {"lrcpc"},
    "dotprod": {"asimddp"},
    "bf16": {"bf16"},
    "i8mm": {"i8mm"},
    "sve": {"sve"},
    "fp16fml": {"asimdfhm"},
}


@pytest.mark.parametrize("mcpu", [name for name, cpu in read_cpus().items() if cpu.triple == "aarch64-linux-gnu"])
def test_the_features_of_a_cpu_model_are_those_that_llvm_may_use(mcpu: str) -> None:
    tvm = pytest.importorskip("tvm")
    cpu = read_cpus()[mcpu]
    target = {"kind": "llvm", "mtriple": cpu.triple, "mcpu": mcpu, "mattr": list(cpu.llvm_features)}
    subtarget = map(str, tvm.target.codegen.llvm_get_cpu_features(tvm.target.Target(target)))
    may_use = set().union(*(LLVM_NAMES.get(name, set()) for name in subtarget))
    assert may_use == set(cpu.features)


@pytest.mark.parametrize("line", ["cores = 2026-01-01", f"cores = {'9' * 5000}", f"cores = {'[' * 10_000}"])
def test_a_file_that_breaks_parsers_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "b.toml").write_text(line)
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_board_file(tmp_path / "b.toml")
