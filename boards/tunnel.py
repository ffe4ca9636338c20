"""A way to a server on a board that listens there on 127.0.0.1 alone, through SSH.

TVM's RPC server runs whatever it is sent, in plain text ("full remote code execution capabilities to anyone who can
access this API", TVM, docs/reference/security.rst). svitkit does not need it. Whoever does starts it on the board with
``--host 127.0.0.1`` and reaches it so.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from svitkit.boards.hosts import Host
from svitkit.boards.ssh_client import end_process, patience_s, require_ssh, ssh_command, ssh_target
from svitkit.boards.ssh_errors import connection_lost, explain_connection, no_answer
from svitkit.errors import ConfigError

LOOPBACK = "127.0.0.1"
RPC_PORT = 9090  # TVM's own default
STEP_S = 0.05


@dataclass(frozen=True)
class Tunnel:
    """An open tunnel; ``port`` is its end on this machine's 127.0.0.1."""

    host: Host
    port: int
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Waits as long as the connection lasts.

        Raises:
            RunError: it was lost.
        """
        self.process.wait()
        raise connection_lost(self.host, "tunnel")


@contextmanager
def open_tunnel(host: Host, *, port: int = RPC_PORT, local_port: int | None = None) -> Iterator[Tunnel]:
    """Forwards a port of this machine's loopback to one of the board's, as long as the block runs.

    Args:
        host: the board.
        port: where the server on the board listens, on 127.0.0.1.
        local_port: port here; a free one if None.

    Raises:
        ConfigError: a port is none or in use here, or the board does not let one in.
        RunError: the board does not answer.
    """
    require_ssh()
    for number in (port, local_port):
        if number is not None and not 1 <= number <= 65535:
            raise ConfigError(f"there is no port {number}. Wanted 1 to 65535; TVM's RPC server takes {RPC_PORT}.")
    here = _free_port() if local_port is None else local_port
    if _listens(here):
        raise ConfigError(f"port {here} of this machine is in use. Leave the choice to svitkit, or name another one.")
    forward = ["-N", "-L", f"{LOOPBACK}:{here}:{LOOPBACK}:{port}"]
    options = ["-o", "ExitOnForwardFailure=yes", "-o", "ClearAllForwardings=no"]
    program, *rest = ssh_command(host)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [program, *options, *forward, *rest],  # ssh takes the first value that it is told
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            _wait_until_open(host, process, here, errors)
            yield Tunnel(host, here, process)
        finally:
            process.terminate()
            end_process(process)


def _wait_until_open(host: Host, process: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> None:
    end = time.monotonic() + patience_s(host)
    while not _listens(port):
        if process.poll() is not None:
            errors.seek(0)
            raise explain_connection(host, errors.read().decode(errors="replace"), ssh_target(host))
        if time.monotonic() > end:
            raise no_answer(host)
        time.sleep(STEP_S)


def _listens(port: int) -> bool:
    """Whether somebody listens on a port of the loopback, without connecting: that would reach the board's server."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
