"""What boards say of themselves, as ``remote.sh facts`` prints it, and what svitkit makes of it.

The answers are written from documentation, not taken from boards: device trees from Linux (arch/arm64/boot/dts) and
https://github.com/rbonghi/jetson_stats, the format of nv_tegra_release and the places of libraries from
https://github.com/dusty-nv/jetson-containers.
"""

from __future__ import annotations

import dataclasses

import pytest

from svitkit.boards.board import list_boards, load_board
from svitkit.boards.device_facts import DeviceFacts, read_facts
from svitkit.boards.preflight import check_device, mismatches
from svitkit.errors import ConfigError
from tests.boards.test_preflight import bundle_for, gpu_bundle_for

A53 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
LIB = "/usr/lib/aarch64-linux-gnu"
TEGRA, NVIDIA = (f"looked {LIB}/{folder}/libcuda.so.1" for folder in ("tegra", "nvidia"))
CARMEL = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm dcpop"


def told(
    model: str,
    *,
    parts: tuple[str, ...],
    features: str,
    libc: str = "glibc 2.36",
    cores: int = 4,
    implementers: tuple[str, ...] = ("0x41",),
    page: int = 4096,
    memory_kib: int = 3_884_396,
    tree: str = "",
    l4t: str = "",
    drivers: str = "looked",
) -> str:
    """Text in the shape that the board's shell prints."""
    lines = [
        *("architecture\taarch64", "kernel\t6.6.51+rpt-rpi-v8", f"libc\t{libc}", f"page_size\t{page}", "word_bits\t64"),
        *(f"cores\t{cores}", "sha256sum\t/usr/bin/sha256sum", f"model\t{model}"),
        *(f"MemTotal\t        {memory_kib} kB", f"MemAvailable\t    {memory_kib // 2} kB"),
        *(f"CPU implementer\t{implementer}" for implementer in implementers),
        *(f"CPU part\t{part}" for part in parts),
        *(f"Features\t{features}", f"drivers\t{drivers}", "free_kib\t9000000"),
        *([f"compatible\t{tree} "] if tree else []),
        *([f"l4t\t{l4t}"] if l4t else []),
    ]
    return "".join(line + "\n" for line in lines)


DEVICES = {
    "raspberry-pi-zero-2w": told("Raspberry Pi Zero 2 W Rev 1.0", parts=("0xd03",), features=A53, memory_kib=426_000),
    "raspberry-pi-3b-plus": told("Raspberry Pi 3 Model B Plus Rev 1.3", parts=("0xd03",), features=A53),
    "raspberry-pi-4": told("Raspberry Pi 4 Model B Rev 1.4", parts=("0xd08",), features=A53),
    "raspberry-pi-5": told("Raspberry Pi 5 Model B Rev 1.0", parts=("0xd0b",), features=A76, page=16384),
    "jetson-nano": told(
        "NVIDIA Jetson Nano Developer Kit",
        parts=("0xd07",),
        features=A53,
        libc="glibc 2.27",
        tree="nvidia,p3449-0000-b00+p3448-0000-b00 nvidia,jetson-nano nvidia,tegra210",
        l4t="32.7.1",
        drivers=TEGRA,
    ),
    "jetson-tx2": told(
        "quill",
        parts=("0x003", "0xd07"),
        implementers=("0x4e", "0x41"),
        features=A53,
        libc="glibc 2.27",
        cores=6,
        tree="nvidia,quill nvidia,p2597-0000+p3310-1000 nvidia,tegra186",
        l4t="32.7.1",
        drivers=TEGRA,
    ),
    "jetson-xavier-nx": told(
        "NVIDIA Jetson Xavier NX",
        parts=("0x004",),
        features=CARMEL,
        libc="glibc 2.31",
        implementers=("0x4e",),
        cores=6,
        tree="nvidia,p3509-0000+p3668-0000 nvidia,p3668-0000 nvidia,tegra194",
        l4t="35.4.1",
        drivers=TEGRA,
    ),
    "jetson-xavier-agx": told(
        "Jetson-AGX",
        parts=("0x004",),
        features=CARMEL,
        libc="glibc 2.31",
        implementers=("0x4e",),
        cores=8,
        tree="nvidia,p2972-0000+p2888-0004 nvidia,p2972-0000 nvidia,tegra194",
        l4t="35.4.1",
        drivers=TEGRA,
    ),
    "jetson-orin-nano": told(
        "NVIDIA Jetson Orin Nano Developer Kit",
        parts=("0xd42",),
        features=A76,
        libc="glibc 2.35",
        cores=6,
        tree="nvidia,p3768-0000+p3767-0005 nvidia,p3767-0005 nvidia,tegra234",
        l4t="36.4.3",
        drivers=NVIDIA,
    ),
    "jetson-orin-nx": told(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        parts=("0xd42",),
        features=A76,
        libc="glibc 2.35",
        cores=8,
        tree="nvidia,p3768-0000+p3767-0000 nvidia,p3767-0000 nvidia,tegra234",
        l4t="36.4.3",
        drivers=NVIDIA,
    ),
    "jetson-orin-agx": told(
        "NVIDIA Jetson AGX Orin Developer Kit",
        parts=("0xd42",),
        features=A76,
        libc="glibc 2.35",
        cores=12,
        tree="nvidia,p3737-0000+p3701-0000 nvidia,p3701-0000 nvidia,tegra234",
        l4t="36.4.3",
        drivers=NVIDIA,
    ),
    "rock-5b": told(
        "Radxa ROCK 5B",
        parts=("0xd05", "0xd0b"),
        features=A76,
        libc="glibc 2.31",
        cores=8,
        tree="radxa,rock-5b rockchip,rk3588",
        drivers=f"looked {LIB}/libOpenCL.so.1 {LIB}/libmali.so.1",
    ),
}


def facts_of(name: str, **changes: object) -> DeviceFacts:
    return dataclasses.replace(read_facts(DEVICES[name]), **changes)


@pytest.mark.parametrize("name", DEVICES)
def test_a_board_is_itself(name: str) -> None:
    board = load_board(name)
    assert mismatches(facts_of(name), board, bundle_for(name)) == []
    if board.gpu is not None:
        assert mismatches(facts_of(name), board, gpu_bundle_for(name), 1) == []


def test_every_board_on_the_network_says_something_of_itself_here() -> None:
    assert set(DEVICES) == {board.name for board in list_boards() if board.transport == "ssh"}


def test_every_fact_is_read() -> None:
    assert read_facts(DEVICES["rock-5b"]) == DeviceFacts(
        architecture="aarch64",
        kernel="6.6.51+rpt-rpi-v8",
        model="Radxa ROCK 5B",
        parts=("0x41:0xd05", "0x41:0xd0b"),
        cpu_features=tuple(A76.split()),
        cores=8,
        libc="2.31",
        page_size=4096,
        word_bits=64,
        memory_bytes=3_884_396 * 1024,
        available_bytes=1_942_198 * 1024,
        free_bytes=9_000_000 * 1024,
        hashes=True,
        compatible=("radxa,rock-5b", "rockchip,rk3588"),
        drivers=(f"{LIB}/libOpenCL.so.1", f"{LIB}/libmali.so.1"),
    )
    assert facts_of("jetson-orin-nano").l4t == "36.4.3"
    assert facts_of("jetson-tx2").parts == ("0x4e:0x003", "0x4e:0xd07", "0x41:0x003", "0x41:0xd07")


def test_what_a_device_does_not_say_speaks_against_nothing() -> None:
    gpu_bundle = gpu_bundle_for("jetson-orin-nano")
    silent = read_facts("sha256sum\t/bin/sha256sum\nnoise\n\t\n")
    assert silent == DeviceFacts(hashes=True)
    assert silent.name == "unknown device"
    assert mismatches(silent, load_board("raspberry-pi-4"), bundle_for("raspberry-pi-4")) == []
    assert mismatches(silent, load_board("jetson-orin-nano"), gpu_bundle) == []


def test_numbers_that_no_board_has_are_unknown() -> None:
    facts = read_facts(f"cores\t{'9' * 5000}\npage_size\t\u0663\nMemTotal\t{'9' * 5000} kB\n")
    assert (facts.cores, facts.page_size, facts.memory_bytes) == (None, None, None)


def test_only_features_that_all_kinds_of_cores_have_count() -> None:
    facts = read_facts("Features\tfp asimd crc32 asimddp\nFeatures\tfp asimd crc32\n")
    assert facts.cpu_features == ("fp", "asimd", "crc32")


@pytest.mark.parametrize(
    ("printed", "libc"),
    [
        ("glibc 2.36", "2.36"),
        ("musl libc (aarch64)", "musl"),
        ("musl", "musl"),
        ("glibc", None),
        ("odd", None),
        ("glibc 2.\u00b2", None),
    ],
)
def test_the_c_library_is_read_or_unknown(printed: str, libc: str | None) -> None:
    assert read_facts(f"libc\t{printed}\n").libc == libc


def refused(device: DeviceFacts, board: str, built_for: str | None = None, **options: int) -> str:
    with pytest.raises(ConfigError) as caught:
        check_device(device, load_board(board), bundle_for(built_for or board), **options)
    assert str(caught.value).endswith("Nothing was sent.")
    return str(caught.value)


def test_a_bundle_for_another_core_is_refused_with_the_features_and_the_boards_that_fit() -> None:
    said = refused(facts_of("raspberry-pi-4"), "raspberry-pi-5")
    assert "its cores lack aes, asimddp, asimdhp, asimdrdm, atomics, dcpop, fphp, lrcpc, pmull, sha1, sha2" in said
    assert "it would die of an illegal instruction; build for the board that it is, one of raspberry-pi-4," in said


def test_figures_are_not_filed_under_another_board_with_the_same_instructions() -> None:
    said = refused(facts_of("raspberry-pi-3b-plus"), "raspberry-pi-4")
    assert said.startswith("Raspberry Pi 3 Model B Plus Rev 1.3 cannot run this as raspberry-pi-4: ")
    assert "cortex-a72 cores (0x41:0xd08) and this device others (0x41:0xd03)" in said
    assert "one of raspberry-pi-3b-plus, raspberry-pi-zero-2w, with --board" in said


def test_another_architecture_is_refused() -> None:
    said = refused(facts_of("raspberry-pi-4", architecture="x86_64"), "raspberry-pi-4")
    assert "it is x86_64, and raspberry-pi-4 is aarch64; check where --host leads" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "armv7l"},
            "its system is a 32-bit one (armv7l), and programs are aarch64; install the 64-bit",
        ),
        (
            {"word_bits": 32},
            "its kernel has 64 bits, but its programs and libraries have 32; install the 64-bit system",
        ),
        ({"libc": "2.24"}, "it has glibc 2.24, and programs need 2.27 or newer; install a newer system on it"),
        ({"libc": "musl"}, "its C library is musl, and programs need glibc 2.27 or newer; install a system with glibc"),
        ({"page_size": 1 << 17}, "its pages have 131072 bytes, and programs start with up to 65536"),
        (
            {"hashes": False},
            "it has no sha256sum, which is needed to check what was sent; install busybox or coreutils",
        ),
        ({"cores": 2}, "4 threads are wanted and 2 cores switched on; switch the others on (a Jetson: nvpmodel)"),
        ({"available_bytes": 5 << 20}, "the network needs 8 MiB and 5 MiB are free; end other programs"),
    ],
)
def test_what_would_fail_on_the_board_is_a_sentence_that_says_what_to_do(
    changes: dict[str, object], message: str
) -> None:
    assert message in refused(facts_of("raspberry-pi-4", **changes), "raspberry-pi-4")


def test_several_objections_are_told_at_once() -> None:
    said = refused(facts_of("raspberry-pi-4", libc="2.24", cores=1), "raspberry-pi-4")
    assert "glibc 2.24" in said
    assert "say --threads 1" in said


def test_fewer_threads_run_on_fewer_cores() -> None:
    check_device(facts_of("raspberry-pi-4", cores=2), load_board("raspberry-pi-4"), threads=2)


def test_a_newer_bundle_is_compared_with_the_library_of_the_device_and_not_with_that_of_the_board_file() -> None:
    newer = bundle_for("raspberry-pi-4", glibc_floor="2.34")
    check_device(facts_of("raspberry-pi-4"), load_board("raspberry-pi-4"), newer)
    with pytest.raises(ConfigError, match=r"it has glibc 2\.31, and programs need 2\.34"):
        check_device(facts_of("raspberry-pi-4", libc="2.31"), load_board("raspberry-pi-4"), newer)


def test_a_name_cannot_steer_the_terminal() -> None:
    assert read_facts("model\t\x1b[31mPi\x07 4\n").name == "[31mPi 4"
