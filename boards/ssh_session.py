"""One SSH connection to a board, over the system's OpenSSH client.

The process that opens the connection also holds the board's lock and a directory there: it sends a line every few
seconds, and when the lines or the connection end, ``remote.sh`` ends the programs, removes the directory and gives the
lock back. Everything else goes over the same connection (OpenSSH's ControlMaster), so the board logs in once.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from svitkit.boards.answers import Answer, read_answer, read_busy
from svitkit.boards.device_facts import DeviceFacts, read_facts
from svitkit.boards.hosts import Host
from svitkit.boards.ssh_client import (
    BASE,
    REMOTE,
    REMOTE_NAME,
    end_process,
    first_command,
    patience_s,
    refusal,
    require_ssh,
    ssh_command,
)
from svitkit.boards.ssh_errors import connection_lost, in_use, no_answer, taken_away
from svitkit.errors import RunError, SvitError

BEAT_S = 10
LOCK_S = 60
"""Seconds after the last line until the board takes a client for dead."""
CACHE_BYTES = 1 << 30
SHORT_S = 60.0
"""Longest time for what the board does by itself: looking at files, making links."""
BUSY, LOST_LOCK, KILLED = 75, 74, 137
LAST_WORDS_S = 1.0
GREETING_BYTES = 1 << 20
"""Most that a board may print until it is ready; while it waits for its lock, it prints a line a second."""
BUSY_BYTES_A_SECOND = 1024


class SshSession:
    """A connection that holds a board, or only looks at it.

    Args:
        host: the board.
        wait_s: how long to wait while somebody else uses the board.

    Attributes:
        facts: what the device says of itself.
        run_directory: on the board; programs run in its ``work``.
    """

    def __init__(self, host: Host, *, wait_s: int = 0) -> None:
        self.host = host
        self.wait_s = wait_s
        self.facts = DeviceFacts()
        self.run_directory = ""

    def __enter__(self) -> Self:
        """Connects, takes the lock and reads the facts.

        Raises:
            ConfigError: there is no ssh, the host key is unknown or wrong, or the board does not let one in.
            RunError: the board does not answer, or somebody else uses it.
        """
        require_ssh()
        # A socket's path has at most 108 bytes, so it lies directly in /tmp; mkdtemp makes directories for one user.
        self._folder = Path(tempfile.mkdtemp(prefix="svit-", dir="/tmp"))
        self._socket = self._folder / "s"
        self._errors = (self._folder / "errors").open("w+b")
        self._stop = threading.Event()
        try:
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the programs, removes the directory on the board and gives the lock back."""
        self._stop.set()
        process = getattr(self, "_process", None)
        if process is not None:
            end_process(process)
        self._errors.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, verb: str, *arguments: str, stdin: bytes = b"", timeout_s: float = SHORT_S) -> Answer:
        """Runs a verb of ``remote.sh`` that reads ``stdin`` to its end.

        Raises:
            RunError: it took too long, or the connection was lost.
        """
        process = self._start(verb, arguments, subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RunError(
                f"{self.host.name} took longer than {timeout_s:g} s for '{verb}'. Check the network; for large files "
                "on a slow one, set transfer_timeout_s in boards.toml. What has arrived is not sent again."
            ) from None
        finally:
            end_process(process)
        return self._answer(verb, stdout, stderr)

    def call_held(self, verb: str, *arguments: str, timeout_s: float) -> Answer | None:
        """Runs a verb whose program lives as long as its stdin is open; None if it did not end in time.

        Raises:
            RunError: the connection was lost.
        """
        reading, writing = os.pipe()
        try:
            process = self._start(verb, arguments, reading)
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                os.close(writing)  # the board ends the program
                writing = -1
                end_process(process)
        finally:
            for end in {reading, writing} - {-1}:
                os.close(end)
        answer = self._answer(verb, stdout, stderr)
        if answer.status == KILLED and self._has_ended():  # by the board, because the lock is no longer ours
            raise self._lost(verb)
        return answer

    def _open(self) -> None:
        owner = f"{getpass.getuser()}@{socket.gethostname()} pid {os.getpid()}"
        command = first_command(self.host, "hold", owner, str(self.wait_s), str(LOCK_S), str(CACHE_BYTES // 1024))
        self._process = subprocess.Popen(
            [*ssh_command(self.host, socket=self._socket), command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for svitkit, which then ends ssh in order
        )
        self._send(REMOTE.read_bytes())
        lines = self._read_until_ready()
        self._base = next((line.removeprefix(BASE) for line in lines if line.startswith(BASE)), "")
        if not self._base:
            raise self._refusal(lines)
        self.facts = read_facts("\n".join(lines))
        self.run_directory = lines[-1].partition("\t")[2]

    def _read_until_ready(self) -> list[str]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + patience_s(self.host)
        lines: list[str] = []
        pending, received = b"", 0
        while not (lines and lines[-1].startswith("ready\t")):
            if lines and lines[-1].startswith("busy\t"):  # it answers, once a second
                deadline = time.monotonic() + patience_s(self.host)
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._process.kill()
                raise no_answer(self.host)
            got = os.read(self._process.stdout.fileno(), 65536)
            if not got:
                raise self._refusal(lines)
            received += len(got)
            if received > GREETING_BYTES + BUSY_BYTES_A_SECOND * self.wait_s:
                self._process.kill()
                raise RunError(
                    f"{self.host.name} printed more than {GREETING_BYTES} bytes before it was ready. Look at what its "
                    "shell prints when one logs in (.bashrc, .profile)."
                )
            *whole, pending = (pending + got).split(b"\n")
            lines += [line.decode(errors="replace") for line in whole]
        return lines

    def _refusal(self, lines: list[str]) -> SvitError:
        """Builds the error for a connection that ended before the board was ready."""
        status = self._process.wait()
        busy = read_busy(lines)
        if status == BUSY and busy is not None:
            return RunError(
                f"{in_use(self.host, busy)}. Wait for it with --wait SECONDS; if nobody works there any "
                f"more: svitkit boards unlock {self.host.destination}"
            )
        self._errors.seek(0)
        return refusal(self.host, status, "\n".join(lines), self._errors.read().decode(errors="replace"))

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # why it is gone is told on stderr
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._send(b"\n")

    def _start(self, verb: str, arguments: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        if self._process.poll() is not None:
            raise self._lost(verb)
        words = ["sh", f"{self._base}/{REMOTE_NAME}", self._base, verb, *arguments]
        return subprocess.Popen(
            [*ssh_command(self.host, socket=self._socket, opens=False), "exec " + shlex.join(words)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _answer(self, verb: str, stdout: bytes, stderr: bytes) -> Answer:
        answer = read_answer(stdout, stderr)
        if answer is None:
            raise self._lost(verb)
        return answer

    def _has_ended(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_WORDS_S)
        return self._process.returncode is not None

    def _lost(self, verb: str) -> RunError:
        taken = self._has_ended() and self._process.returncode == LOST_LOCK
        return taken_away(self.host, LOCK_S) if taken else connection_lost(self.host, verb)
