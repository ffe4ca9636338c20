from pathlib import Path

from svitkit.boards.machine import read_cpu_features, read_machine

PI_4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41

processor\t: 1
Features\t: fp asimd evtstrm cpuid

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def test_features_are_those_that_all_cores_share(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(PI_4)
    assert read_cpu_features(tmp_path / "cpuinfo") == ("fp", "asimd", "evtstrm", "cpuid")


def test_the_flags_of_an_x86_machine_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse2 avx2\nvmx flags : vnmi\n")
    assert read_cpu_features(tmp_path / "cpuinfo") == ("fpu", "sse2", "avx2")


def test_a_machine_is_read_from_its_proc_tree(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(PI_4)
    (tmp_path / "meminfo").write_text("MemTotal:         948304 kB\nMemFree: 1 kB\n")
    machine = read_machine(tmp_path, "aarch64")
    assert machine.triple == "aarch64-linux-gnu"
    assert machine.memory_bytes == 948304 * 1024
    assert machine.cores >= 1


def test_a_proc_tree_without_files_gives_no_features_and_no_memory(tmp_path: Path) -> None:
    machine = read_machine(tmp_path, "riscv64")
    assert (machine.triple, machine.cpu_features, machine.memory_bytes) == ("riscv64-linux-gnu", (), 0)
