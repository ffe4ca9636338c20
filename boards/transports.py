"""Ways to run programs on a board: as a process of this machine, emulated by qemu, or over SSH.

A transport owns a scratch directory on the board. What is pushed lies there, programs run there, and it is removed when
the transport is closed: after success, failure or an interrupt.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from svitkit.boards.board import Board
from svitkit.boards.device_facts import DeviceFacts
from svitkit.boards.governor import set_governor
from svitkit.boards.hosts import host_of
from svitkit.boards.ssh import open_ssh
from svitkit.errors import ConfigError, RunError

QEMU = "qemu-aarch64-static"
SYSROOT = Path("/usr/aarch64-linux-gnu")
Completed = subprocess.CompletedProcess[str]


class Transport(Protocol):
    """Runs programs on a board and moves files to and from it."""

    @property
    def facts(self) -> DeviceFacts | None:
        """What a device elsewhere says of itself; None where programs run on this machine."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Arguments that the user wants before every program."""

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Runs a program in the scratch directory and waits for its end.

        Args:
            argv: the program and its arguments, as paths on the board.
            timeout_s: seconds after which it is killed.

        Returns:
            What it printed, and its exit status; ``-n`` if signal n ended it.

        Raises:
            RunError: it could not be started, or did not end in time.
        """

    def push(self, local: Path) -> str:
        """Copies a file or directory into the scratch directory and returns its path on the board."""

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file from the board.

        Raises:
            RunError: the file is not there.
        """

    def look(self, patterns: Sequence[str]) -> AbstractContextManager[Path]:
        """Gives a directory that holds the board's ``sys`` and ``proc`` as they are now.

        Args:
            patterns: names of the files that are wanted, relative to the root, with ``*`` and ``[0-9]``.

        Raises:
            RunError: the board does not answer.
        """

    def governor(self, name: str) -> AbstractContextManager[None]:
        """Keeps the board's cores under a cpufreq governor as long as the block runs.

        Raises:
            ConfigError: the board has none of that name, or this user may not set it.
        """


class LocalTransport:
    """Runs programs as processes of this machine.

    Args:
        scratch: an existing directory.
        wrapper: arguments that stand before every program.
    """

    def __init__(self, scratch: Path, wrapper: Sequence[str] = ()) -> None:
        self.scratch = scratch
        self.wrapper = tuple(wrapper)

    @property
    def facts(self) -> DeviceFacts | None:
        """None: this machine is read where it is needed."""
        return None

    @property
    def prefix(self) -> tuple[str, ...]:
        """Nothing: an emulator is no wish, but part of the board."""
        return ()

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Runs a program, see :meth:`Transport.run`."""
        try:
            return subprocess.run(
                [*self.wrapper, *argv],
                cwd=self.scratch,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(
                f"{Path(argv[0]).name} did not end within {timeout_s:g} s and was stopped. "
                "Give it fewer inputs or repeats, or a longer time-out."
            ) from None
        except OSError as error:
            raise RunError(
                f"{argv[0]} cannot be started: {error.strerror or error}. Build the bundle again for this board."
            ) from None

    def push(self, local: Path) -> str:
        """Copies a file or directory, see :meth:`Transport.push`."""
        target = self.scratch / local.resolve().name
        if local.is_dir():
            shutil.copytree(local, target, dirs_exist_ok=True)
        else:
            shutil.copy(local, target)
        return str(target)

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file back, see :meth:`Transport.pull`."""
        source = self.scratch / remote
        if not source.is_file():
            raise RunError(f"the board has no file {source}: the program that should have written it did not.")
        shutil.copy(source, local)

    @contextmanager
    def look(self, patterns: Sequence[str]) -> Iterator[Path]:
        """Gives this machine's root, see :meth:`Transport.look`."""
        yield Path("/")

    def governor(self, name: str) -> AbstractContextManager[None]:
        """Sets the governor of this machine, see :meth:`Transport.governor`."""
        return set_governor(name)


class QemuTransport(LocalTransport):
    """Runs aarch64 programs under qemu's user-mode emulation, with the instruction set of one CPU model.

    Args:
        scratch: an existing directory.
        cpu: CPU model by qemu's name.

    Raises:
        ConfigError: qemu or the aarch64 C library is missing.
    """

    def __init__(self, scratch: Path, cpu: str) -> None:
        super().__init__(scratch, qemu_command(cpu))


def qemu_command(cpu: str, *, sysroot: Path = SYSROOT) -> tuple[str, ...]:
    """Returns the arguments that stand before an aarch64 program.

    Args:
        cpu: CPU model by qemu's name.
        sysroot: where the aarch64 C library lies; an aarch64 machine uses its own.

    Raises:
        ConfigError: qemu or the C library is missing.
    """
    program = shutil.which(QEMU)
    native = platform.machine() == "aarch64"
    missing = QEMU if program is None else f"{sysroot}/lib" if not native and not (sysroot / "lib").is_dir() else None
    if program is None or missing is not None:
        raise ConfigError(
            f"emulating {cpu} needs qemu and an aarch64 C library, and {missing} was not found. "
            "On Debian or Ubuntu: apt-get install qemu-user-static libc6-arm64-cross"
        )
    return (program, "-cpu", cpu) if native else (program, "-cpu", cpu, "-L", str(sysroot))


def qemu_version() -> str:
    """Returns the version of the qemu that emulates aarch64, such as ``7.2.22``."""
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[words.index("version") + 1] if "version" in words[:-1] else "unknown"


@contextmanager
def open_transport(board: Board, *, host: str | None = None, wait_s: int = 0) -> Iterator[Transport]:
    """Opens the way to a board, with a fresh scratch directory that goes when the block is left.

    Args:
        board: the board.
        host: ``[user@]address[:port]`` of a board that is reached by SSH; boards.toml says it if None.
        wait_s: how long to wait while somebody else uses the board.

    Raises:
        ConfigError: the board cannot be reached from here.
        RunError: the board does not answer, or somebody else uses it.
    """
    if board.transport == "ssh":
        with open_ssh(host_of(board.table, host), wait_s=wait_s) as transport:
            yield transport
        return
    if host is not None:
        raise ConfigError(
            f"{board.name} runs on this machine, and --host {host} names another one. Leave --host out, or name the "
            "board that is there with --board (svitkit boards lists them)."
        )
    with tempfile.TemporaryDirectory(prefix="svitkit-", ignore_cleanup_errors=True) as scratch:
        if board.qemu_cpu is not None:
            yield QemuTransport(Path(scratch), board.qemu_cpu)
        else:
            yield LocalTransport(Path(scratch))
