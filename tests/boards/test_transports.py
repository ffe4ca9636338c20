import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from svitkit.boards import transports
from svitkit.boards.board import load_board
from svitkit.boards.transports import LocalTransport, open_transport, qemu_command, qemu_version
from svitkit.errors import ConfigError, RunError

PYTHON = sys.executable


def scratch_of(transport: transports.Transport) -> Path:
    assert isinstance(transport, LocalTransport)
    return transport.scratch


def test_a_program_runs_in_the_scratch_directory_and_its_output_comes_back() -> None:
    with open_transport(load_board("host")) as transport:
        code = "import os, sys; print(os.getcwd()); print('oops', file=sys.stderr); sys.exit(3)"
        done = transport.run([PYTHON, "-c", code], 30)
        assert done.stdout.strip() == str(scratch_of(transport).resolve())
        assert (done.stderr.strip(), done.returncode) == ("oops", 3)


def test_files_and_directories_are_pushed_with_their_rights_and_pulled_back(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "program").write_text('#!/bin/sh\ncat "$1" > out.txt\n')
    (bundle / "program").chmod(0o755)
    (tmp_path / "in.txt").write_text("42")
    with open_transport(load_board("host")) as transport:
        remote, given = transport.push(bundle), transport.push(tmp_path / "in.txt")
        assert transport.run([f"{remote}/program", given], 30).returncode == 0
        transport.pull("out.txt", tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_text() == "42"


def test_the_current_directory_can_be_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "file").write_text("x")
    monkeypatch.chdir(tmp_path / "bundle")
    with open_transport(load_board("host")) as transport:
        assert Path(transport.push(Path()), "file").read_text() == "x"
        assert Path(transport.push(Path())).name == "bundle"


def test_a_file_that_no_program_wrote_cannot_be_pulled(tmp_path: Path) -> None:
    with open_transport(load_board("host")) as transport, pytest.raises(RunError, match=r"has no file .*out\.bin"):
        transport.pull("out.bin", tmp_path / "out.bin")


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_scratch_directory_goes_after_success_failure_and_interrupt(error: type[BaseException] | None) -> None:
    scratch = Path()
    try:
        with open_transport(load_board("host")) as transport:
            scratch = scratch_of(transport)
            (scratch / "left").write_text("x")
            assert scratch.is_dir()
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    assert scratch != Path()
    assert not scratch.exists()


def test_ctrl_c_while_a_program_runs_removes_the_scratch_directory_and_the_program() -> None:
    code = """
import sys
from svitkit.boards.board import load_board
from svitkit.boards.transports import open_transport
with open_transport(load_board("host")) as transport:
    child = "import os, signal; open('part', 'w').write(str(os.getpid())); os.rename('part', 'pid'); signal.pause()"
    print(transport.scratch, flush=True)
    transport.run([sys.executable, "-c", child], 600)
"""
    process = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    scratch = Path(process.stdout.readline().strip())
    while not (scratch / "pid").exists():
        assert process.poll() is None
    pid = int((scratch / "pid").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    process.stdout.close()
    assert not scratch.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_program_that_hangs_is_stopped() -> None:
    with open_transport(load_board("host")) as transport, pytest.raises(RunError, match=r"did not end within 0\.2 s"):
        transport.run([PYTHON, "-c", "import time; time.sleep(600)"], 0.2)


def test_a_program_that_is_missing_or_not_executable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    with open_transport(load_board("host")) as transport:
        with pytest.raises(RunError, match="cannot be started: No such file"):
            transport.run(["./svit-run"], 5)
        with pytest.raises(RunError, match="cannot be started: Permission denied"):
            transport.run([transport.push(tmp_path / "data")], 5)


def test_a_board_on_the_network_needs_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"nothing says where raspberry-pi-4 is.*--host user@address.*boards\.toml"):
        open_transport(load_board("raspberry-pi-4")).__enter__()


@pytest.mark.parametrize("name", ["host", "qemu-cortex-a72"])
def test_a_board_that_runs_here_takes_no_host(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} runs on this machine, and --host pi@board names another one"):
        open_transport(load_board(name), host="pi@board").__enter__()


def test_missing_qemu_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"qemu-aarch64-static was not found.*qemu-user-static libc6-arm64-cross"):
        open_transport(load_board("qemu-cortex-a72")).__enter__()


def test_a_missing_c_library_names_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ConfigError, match=f"{tmp_path}/lib was not found.*libc6-arm64-cross"):
        qemu_command("cortex-a72", sysroot=tmp_path)


def test_an_aarch64_machine_emulates_with_its_own_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert qemu_command("cortex-a72", sysroot=tmp_path) == ("/usr/bin/qemu-aarch64-static", "-cpu", "cortex-a72")


@pytest.mark.skipif(shutil.which(transports.QEMU) is None, reason="qemu-user-static is not installed")
def test_the_version_of_qemu_is_a_number() -> None:
    assert qemu_version()[0].isdigit()
