"""Real emulation: a program of a few instructions says what the emulated CPU offers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from svitkit.boards.board import board_names, load_board
from svitkit.boards.transports import QEMU, SYSROOT, open_transport, qemu_command
from svitkit.errors import RunError
from svitkit.runtime.bench.runner_process import check_end

pytestmark = pytest.mark.skipif(
    shutil.which(QEMU) is None or not SYSROOT.is_dir(), reason="qemu-user-static or libc6-arm64-cross is not installed"
)

# Prints AT_HWCAP as a number of 64 bits, without a C library; with an argument it first executes an fp16 instruction.
PROBE = """
static void call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
}
__attribute__((used)) void enter(unsigned long* stack) {
  unsigned long* entry = stack + 1 + stack[0] + 1;
  if (stack[0] > 1) __asm__ volatile(".inst 0x4e401400"); /* fadd v0.8h, v0.8h, v0.8h */
  while (*entry++) {}
  for (; entry[0]; entry += 2)
    if (entry[0] == 16) call(64, 1, (long)&entry[1], 8);
  call(93, 0, 0, 0);
}
__attribute__((naked)) void _start(void) { __asm__("mov x0, sp\\n b enter"); }
"""
# Bits of AT_HWCAP; source: Linux, arch/arm64/include/uapi/asm/hwcap.h
BITS = {
    **{"fp": 0, "asimd": 1, "aes": 3, "pmull": 4, "sha1": 5, "sha2": 6, "crc32": 7, "atomics": 8, "fphp": 9},
    **{"asimdhp": 10, "asimdrdm": 12, "lrcpc": 15, "dcpop": 16, "asimddp": 20},
}
EMULATED = [name for name in board_names() if name.startswith("qemu-")]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang")
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(PROBE)
    flags = ["-target", "aarch64-freestanding", "-nostdlib", "-static", "-O1", "-fno-stack-protector"]
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *flags, "probe.c", "-o", "probe"], cwd=folder, check=True, timeout=300
    )
    return folder / "probe"


@pytest.mark.parametrize("name", EMULATED)
def test_the_emulated_cpu_has_every_feature_that_code_for_its_board_may_use(name: str, probe: Path) -> None:
    board = load_board(name)
    assert board.qemu_cpu is not None
    done = subprocess.run([*qemu_command(board.qemu_cpu), str(probe)], capture_output=True, check=True, timeout=60)
    hwcap = int.from_bytes(done.stdout, "little")
    offered = {feature for feature, bit in BITS.items() if hwcap >> bit & 1}
    assert set(board.required_features) <= offered
    assert ("asimddp" in offered) == (name == "qemu-cortex-a76")


def test_fp16_code_dies_on_a_cortex_a72_and_the_error_names_the_signal_and_the_remedy(probe: Path) -> None:
    with open_transport(load_board("qemu-cortex-a72")) as transport:
        died = transport.run([transport.push(probe), "fp16"], 60)
    with pytest.raises(RunError, match=r"was ended by SIGILL.*instructions that this CPU lacks.*build the bundle"):
        check_end(died)


def test_fp16_code_runs_on_a_cortex_a76(probe: Path) -> None:
    with open_transport(load_board("qemu-cortex-a76")) as transport:
        assert transport.run([transport.push(probe), "fp16"], 60).returncode == 0
