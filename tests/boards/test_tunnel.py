from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from svitkit.boards.hosts import Host
from svitkit.boards.tunnel import open_tunnel
from svitkit.errors import ConfigError, RunError
from tests.boards.ssh_server import Wire, free_port, wait_until


@contextmanager
def echo() -> Iterator[int]:
    """A server on the loopback that says again what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(connection.recv(100))

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def said_by(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"spike")
        return connection.recv(100)


def test_a_server_on_the_boards_loopback_is_reached_and_the_tunnel_ends_with_the_block(host: Host) -> None:
    with echo() as port:
        with open_tunnel(host, port=port) as tunnel:
            assert tunnel.port != port
            assert said_by(tunnel.port) == b"spike"
        assert tunnel.process.poll() is not None
        with pytest.raises(ConnectionRefusedError):
            said_by(tunnel.port)


def test_the_end_on_this_machine_is_its_loopback_alone(host: Host) -> None:
    with echo() as port, open_tunnel(host, port=port) as tunnel:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {line[1] for line in lines if line[3] == "0A"}
        assert {address for address in listening if address.endswith(f":{tunnel.port:04X}")} == {
            f"0100007F:{tunnel.port:04X}"
        }


def test_a_port_in_use_here_or_none_is_refused(host: Host) -> None:
    with echo() as port, pytest.raises(ConfigError, match=f"port {port} of this machine is in use"):
        open_tunnel(host, port=port, local_port=port).__enter__()
    with pytest.raises(ConfigError, match="there is no port 70000"):
        open_tunnel(host, port=70000).__enter__()


def test_a_board_with_an_unknown_key_gets_no_tunnel(host: Host, tmp_path: Path) -> None:
    (tmp_path / "nobody").write_text("")
    with pytest.raises(ConfigError, match=r"host key .* is unknown"):
        open_tunnel(replace(host, known_hosts=str(tmp_path / "nobody"))).__enter__()


def test_a_connection_that_is_lost_ends_the_wait(host: Host, wire: Wire) -> None:
    with echo() as port, open_tunnel(replace(host, port=wire.port), port=port) as tunnel:
        assert said_by(tunnel.port) == b"spike"
        wire.close()
        with pytest.raises(RunError, match="was lost during 'tunnel'"):
            tunnel.wait()


def test_tvms_own_server_is_used_through_the_tunnel(host: Host) -> None:
    tvm = pytest.importorskip("tvm")
    from tvm import rpc

    port = free_port()
    words = ["-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
    server = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        wait_until(lambda: f"bind to 127.0.0.1:{port}" in server.stderr.readline(), 60)
        with open_tunnel(host, port=port) as tunnel:
            device = rpc.connect("127.0.0.1", tunnel.port, session_timeout=60).cpu(0)
            there = tvm.runtime.tensor(np.arange(4, dtype=np.float32), device=device)
            np.testing.assert_array_equal(there.numpy(), [0, 1, 2, 3])
    finally:
        server.terminate()
        server.wait(20)
