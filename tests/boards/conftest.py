from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from svitkit.boards.hosts import Host
from tests.boards.ssh_server import Server, Wire, start_dropbear, start_server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = start_server(tmp_path_factory.mktemp("sshd"))
    yield started
    started.stop()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A board as it was set up: what one test leaves there cannot help the next."""
    yield shared_server
    shared_server.reset()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection to the board that can be cut."""
    laid = Wire(server.port)
    server.trust(laid.port)
    yield laid
    laid.close()


@pytest.fixture
def host(server: Server) -> Host:
    return server.host()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory with a program and enough data that an upload can be interrupted."""
    folder = tmp_path / "bundle"
    (folder / "sub").mkdir(parents=True)
    (folder / "program").write_text('#!/bin/sh\necho said >&2\ncat "$@"\n')
    (folder / "program").chmod(0o755)
    (folder / "sub" / "a file").write_text("content\n")
    (folder / "empty").write_text("")
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 4096)
    return folder


@pytest.fixture
def dropbear(tmp_path: Path) -> Iterator[Host]:
    """A board with dropbear for its SSH server, as small images have: no sftp, another way to run commands."""
    with start_dropbear(tmp_path) as host:
        yield host
