"""The board's side of the transport by itself, in every shell that boards have."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from svitkit.boards.ssh_client import REMOTE
from tests.boards.ssh_server import wait_until

SHELLS = {"sh": ["sh"], "dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
CONTENT = b"some content\n" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Board:
    """A directory, a lock and a shell."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.base = folder / "base"
        (self.base / "files").mkdir(parents=True)
        self.lock = folder / "lock"
        self.command = [*shell, str(REMOTE), str(self.base)]
        self.environment = {**os.environ, "SVITKIT_LOCK": str(self.lock)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def ask(self, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        done = subprocess.run(
            [*self.command, *words], input=stdin, capture_output=True, env=self.environment, timeout=60, check=False
        )
        return done.returncode, done.stdout.decode().removeprefix("svitkit-begin\n"), done.stderr.decode()

    def hold(self, seconds: int = 60, wait: int = 0) -> tuple[subprocess.Popen[str], str]:
        """Takes the board; returns the process and its last line."""
        process = self.start("hold", "ada@lab pid 7", str(wait), str(seconds), "1000")
        assert process.stdout is not None
        line = ""
        while not line.startswith(("ready", "busy")):
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
        return process, line.strip()


@pytest.fixture(params=["sh", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dash", "bash", "busybox"))])
def board(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    program = shutil.which(SHELLS[request.param][0])
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    if request.param == "busybox":  # a small image has nothing else
        applets = tmp_path / "applets"
        applets.mkdir()
        subprocess.run([program, "--install", "-s", applets], check=True)
        monkeypatch.setenv("PATH", str(applets))
    return Board(tmp_path, [program, *SHELLS[request.param][1:]])


def test_one_holds_the_board_and_gives_it_back(board: Board) -> None:
    first, said = board.hold()
    assert said.startswith(f"ready\t{board.base}/runs/")
    assert (board.lock / "held" / "owner").read_text().splitlines()[4] == "ada@lab pid 7"
    second, said = board.hold()
    owner, since, left = said.split("\t")[1:]
    assert (owner, since.isdigit(), 50 < int(left) <= 61) == ("ada@lab pid 7", True, True)
    assert second.wait(20) == 75
    first.communicate()
    assert not (board.lock / "held").exists()
    assert not list((board.base / "runs").iterdir())


def test_of_many_that_find_a_stale_lock_one_gets_it(board: Board) -> None:
    held = board.lock / "held"
    held.mkdir(parents=True)
    (held / "owner").write_text("old\n1\nanother-boot\n1700000000\ngone@lab pid 1\n")
    (held / "deadline").write_text("99999999\n")
    taken = [board.start("hold", f"client {number}", "0", "60", "1000") for number in range(8)]
    last = []
    for process in taken:
        assert process.stdout is not None
        lines = [""]
        while not lines[-1].startswith(("ready", "busy")):
            lines.append(process.stdout.readline())
        last.append(lines[-1].split("\t")[0])
    assert sorted(last) == ["busy"] * 7 + ["ready"]
    for process in taken:
        process.communicate()
    assert [path.name for path in board.lock.iterdir()] == []


def test_a_holder_that_hears_nothing_ends_by_itself(board: Board) -> None:
    process, _ = board.hold(seconds=1)
    assert process.wait(30) == 74
    assert not (board.lock / "held").exists()
    assert not list((board.base / "runs").iterdir())
    process.communicate()


def test_a_holder_that_is_killed_is_cleared_up_after(board: Board) -> None:
    process, _ = board.hold(seconds=11)
    process.kill()
    process.communicate()
    wait_until(lambda: not (board.lock / "held").exists() and not list((board.base / "runs").iterdir()))


def test_a_holder_whose_lock_was_taken_leaves_with_its_own_status(board: Board) -> None:
    process, _ = board.hold()
    shutil.rmtree(board.lock / "held")
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(30) == 74
    process.communicate()


@pytest.mark.parametrize("content", ["a[$(touch HACKED)]", "-1", "x", "", "99999999999999999999"])
def test_what_another_account_writes_into_the_lock_is_never_run(board: Board, tmp_path: Path, content: str) -> None:
    held = board.lock / "held"
    held.mkdir(parents=True)
    evil = content.replace("HACKED", str(tmp_path / "hacked"))
    (held / "owner").write_text(f"../../x\n{evil}\nboot\n{evil}\nmallory\n")
    (held / "deadline").write_text(f"{evil}\n")
    status, _, _ = board.ask("unlock", "yes")
    assert status == 0
    assert not held.exists()
    assert not (tmp_path / "hacked").exists()


def test_a_link_is_no_place_for_the_lock(board: Board, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir(mode=0o700)
    board.lock.symlink_to(tmp_path / "precious")
    status, _, said = board.ask("hold", "ada", "0", "60", "1000")
    assert (status, "is no directory to write into" in said) == (73, True)
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o700


def test_a_file_comes_in_pieces_is_checked_and_placed(board: Board) -> None:
    process, said = board.hold()
    run = said.split("\t")[1]
    names = f"{DIGEST} sub/a file\n{DIGEST} b\n".encode()
    status, said, _ = board.ask("place", run, "bundle", stdin=names)
    assert (status, said.count(f"missing\t{DIGEST}\t0")) == (0, 2)
    assert board.ask("put", DIGEST, str(len(CONTENT)), "0", stdin=CONTENT[:500])[0] == 74
    assert f"missing\t{DIGEST}\t500" in board.ask("place", run, "bundle", stdin=names)[1]
    assert board.ask("put", DIGEST, str(len(CONTENT)), "400", stdin=CONTENT[400:])[0] == 75
    assert board.ask("put", DIGEST, str(len(CONTENT)), "500", stdin=CONTENT[500:])[0] == 0
    status, said, _ = board.ask("place", run, "bundle", stdin=names)
    assert (status, said.splitlines()[-1]) == (0, f"placed\t{run}/work/bundle")
    assert Path(run, "work", "bundle", "sub", "a file").read_bytes() == CONTENT
    assert Path(run, "work", "bundle", "b").read_bytes() == CONTENT
    assert board.ask("place", run, "alone", stdin=f"{DIGEST} .\n".encode())[0] == 0
    assert Path(run, "work", "alone").read_bytes() == CONTENT
    process.communicate()


def test_a_damaged_file_is_not_kept(board: Board) -> None:
    status, _, said = board.ask("put", DIGEST, str(len(CONTENT)), "0", stdin=CONTENT.upper())
    assert (status, "arrived damaged" in said) == (76, True)
    assert not list((board.base / "files").iterdir())


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -4 $$", 132), ("kill -9 $$", 137)])
def test_a_program_ends_as_it_ends_and_nothing_is_added_to_what_it_says(board: Board, script: str, status: int) -> None:
    process, said = board.hold()
    run = said.split("\t")[1]
    child = board.start("run", run, "sh", "-c", f"echo out; echo err >&2; {script}")
    assert child.wait(30) == status
    stdout, stderr = child.communicate()
    assert stdout == "svitkit-begin\nout\n"
    assert stderr == f"svitkit-begin\nerr\n\nsvitkit-end {status}\n"
    process.communicate()


def test_a_program_dies_with_its_connection(board: Board) -> None:
    process, said = board.hold()
    run = said.split("\t")[1]
    child = board.start("run", run, "sleep", "1000.125")
    wait_until(lambda: Path(run, "child").exists())
    pid = Path(run, "child").read_text().strip()
    _, stderr = child.communicate()
    assert stderr.endswith("svitkit-end 137\n")
    assert not Path("/proc", pid).exists()
    process.communicate()


def test_the_facts_are_lines_of_a_key_and_a_value(board: Board) -> None:
    status, said, _ = board.ask("facts")
    facts = dict(line.split("\t", 1) for line in said.splitlines())
    assert (status, facts["page_size"], facts["word_bits"]) == (0, str(os.sysconf("SC_PAGESIZE")), "64")
    assert {"architecture", "kernel", "libc", "cores", "MemTotal", "free_kib"} <= facts.keys()


def plant(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def facts_under(board: Board, root: Path) -> dict[str, str]:
    """Asks a board that is described by files for its facts."""
    plant(root, {"proc/cpuinfo": "", "proc/meminfo": "MemTotal: 1 kB\n"})
    board.environment |= {"SVITKIT_ROOT": str(root)}
    status, said, stderr = board.ask("facts")
    assert (status, stderr) == (0, "svitkit-begin\n\nsvitkit-end 0\n")
    return dict(line.split("\t", 1) for line in said.splitlines())


def test_a_jetson_says_its_soc_its_release_its_driver_and_its_toolkit(board: Board, tmp_path: Path) -> None:
    release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025"
    files = {
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
        "etc/nv_tegra_release": f"{release}\n# KERNEL_VARIANT: oot\n",
        "usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1": "",
        "usr/local/cuda/version.json": '{\n "cuda" : {\n  "name" : "CUDA SDK",\n  "version" : "12.6.68"\n }\n}\n',
    }
    plant(tmp_path / "root", files)
    facts = facts_under(board, tmp_path / "root")
    assert facts["compatible"].split() == ["nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"]
    assert (facts["l4t"], facts["cuda_toolkit"]) == ("36.4.3", "12.6.68")
    assert facts["drivers"].split() == ["looked", "/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1"]


def test_an_older_jetson_has_other_places_and_another_file_of_its_toolkit(board: Board, tmp_path: Path) -> None:
    files = {
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
        "usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1": "",
        "usr/local/cuda/version.txt": "CUDA Version 10.2.300\n",
    }
    plant(tmp_path / "root", files)
    facts = facts_under(board, tmp_path / "root")
    assert (facts["l4t"], facts["cuda_toolkit"]) == ("32.7.1", "10.2.300")
    assert facts["drivers"].split() == ["looked", "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1"]


def test_opencl_libraries_are_named_and_a_board_without_drivers_says_that_it_looked(
    board: Board, tmp_path: Path
) -> None:
    plant(tmp_path / "rock", {f"usr/lib/aarch64-linux-gnu/{name}": "" for name in ("libOpenCL.so.1", "libmali.so.1")})
    rock = facts_under(board, tmp_path / "rock")
    assert rock["drivers"].split() == [
        "looked",
        "/usr/lib/aarch64-linux-gnu/libOpenCL.so.1",
        "/usr/lib/aarch64-linux-gnu/libmali.so.1",
    ]
    bare = facts_under(board, tmp_path / "bare")
    assert bare["drivers"].split() == ["looked"]
    assert not {"compatible", "l4t", "cuda_toolkit"} & bare.keys()


def test_governors_are_set_and_return_when_the_connection_ends(board: Board, tmp_path: Path) -> None:
    files = [tmp_path / f"root/sys/devices/system/cpu/cpufreq/policy{policy}/scaling_governor" for policy in (0, 4)]
    for file, name in zip(files, ("ondemand", "schedutil"), strict=True):
        file.parent.mkdir(parents=True)
        file.write_text(name + "\n")
    board.environment |= {"SVITKIT_ROOT": str(tmp_path / "root")}
    (tmp_path / "root/proc").mkdir()
    for name in ("cpuinfo", "meminfo"):
        (tmp_path / "root/proc" / name).write_text("")
    process, said = board.hold()
    run = said.partition("\t")[2]
    assert board.ask("governor", run, "performance")[0] == 0
    assert [file.read_text() for file in files] == ["performance\n"] * 2
    process.communicate()
    assert [file.read_text() for file in files] == ["ondemand\n", "schedutil\n"]


def test_a_board_without_governors_says_so(board: Board, tmp_path: Path) -> None:
    board.environment |= {"SVITKIT_ROOT": str(tmp_path / "empty")}
    (tmp_path / "empty").mkdir()
    status, _, said = board.ask("governor", str(tmp_path), "performance")
    assert status == 77
    assert "it has no cpufreq" in said


def test_flags_of_the_firmware_are_asked_of_its_program(board: Board, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "vcgencmd").write_text('#!/bin/sh\necho "$1=0x50005"\n')
    (programs / "vcgencmd").chmod(0o755)
    board.environment |= {"PATH": f"{programs}:{os.environ['PATH']}"}
    assert "sys/vcgencmd/get_throttled\tget_throttled=0x50005\n" in board.ask("look", "sys/vcgencmd/get_throttled")[1]
