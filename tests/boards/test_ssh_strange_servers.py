"""Servers that no sshd is: they let one in, and then refuse, fall silent, hang up or lie."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from svitkit.boards.hosts import Host
from svitkit.boards.ssh import open_ssh
from svitkit.boards.upkeep import look_at_board
from svitkit.errors import RunError

asyncssh = pytest.importorskip("asyncssh", reason="asyncssh is not installed (pip install asyncssh)")
# asyncssh leaves this behind when a connection is aborted, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
Handler = Callable[[Any], Awaitable[None]]


@contextmanager
def serving(folder: Path, handler: Handler) -> Iterator[Host]:
    """Runs a server whose commands are all given to a coroutine."""
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> Any:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(folder / "host_key")],
            authorized_client_keys=str(folder / "user_key.pub"),
            process_factory=handler,
            encoding=None,
        )

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    port = server.get_port()
    key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    paths = {"identity": str(folder / "user_key"), "known_hosts": str(folder / "known_hosts")}
    try:
        yield Host(host="tester@127.0.0.1", port=port, **paths)
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(end_all(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def end_all() -> None:
    """Ends what the server still does."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def as_a_board(folder: Path, *, hangs_up_at: str) -> Handler:
    """Runs what it is asked to, but ends the whole connection when a certain verb comes."""
    environment = {**os.environ, "HOME": str(folder), "SVITKIT_LOCK": str(folder / "lock")}

    async def handle(process: Any) -> None:
        if f" {hangs_up_at} " in process.command:
            process.channel.get_connection().abort()
            return
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        child = subprocess.Popen(process.command, shell=True, env=environment, bufsize=0, **pipes)
        assert child.stdin is not None
        try:
            await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
            process.exit(await asyncio.to_thread(child.wait))
        finally:  # as sshd does when a connection ends
            child.stdin.close()

    return handle


async def forbid(process: Any) -> None:
    process.stdout.write(b"This account is currently not available.\n")
    process.exit(1)


async def hang_up(process: Any) -> None:
    process.channel.get_connection().abort()


async def stay_silent(process: Any) -> None:
    await asyncio.sleep(60)


async def end_without_status(process: Any) -> None:
    process.close()


async def babble(process: Any) -> None:
    process.stdout.write(b"\xff\xfe\x00ready\nbusy\nsvitkit-base\n" * 1000)
    process.exit(0)


async def never_stop(process: Any) -> None:
    while not process.is_closing():
        process.stdout.write(b"Welcome!\n" * 10_000)
        await process.stdout.drain()


async def be_ready_nowhere(process: Any) -> None:
    process.stdout.write(b"ready\t/tmp/run\n")
    process.exit(0)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (never_stop, "printed more than 1048576 bytes before it was ready"),
        (be_ready_nowhere, "cannot work there|cannot be reached"),
        (forbid, "lets one in, but svitkit cannot work there"),
        (hang_up, "cannot be reached: .*Check that the board is on"),
        (end_without_status, "cannot be reached|cannot work there"),
        (babble, "cannot work there"),
    ],
)
def test_a_server_that_does_not_do_as_it_is_asked_is_an_error(tmp_path: Path, handler: Handler, message: str) -> None:
    with serving(tmp_path, handler) as host, pytest.raises(RunError, match=message), open_ssh(host):
        pass


@pytest.mark.slow
def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path, stay_silent) as host:
        impatient = dataclasses.replace(host, connect_timeout_s=1.0)
        with pytest.raises(RunError, match="did not answer within 1 s"), open_ssh(impatient):
            pass
        with pytest.raises(RunError, match="did not answer within 1 s"):
            look_at_board(impatient)


@pytest.mark.parametrize("verb", ["place", "put", "run"])
def test_a_connection_that_ends_in_the_middle_leaves_a_clean_board(tmp_path: Path, verb: str) -> None:
    (tmp_path / "data").write_bytes(bytes(1000))
    with (
        serving(tmp_path, as_a_board(tmp_path, hangs_up_at=verb)) as host,
        pytest.raises(RunError, match=f"the connection to .* was lost during '{verb}'"),
        open_ssh(host) as board,
    ):
        board.run([board.push(tmp_path / "data")], 30)
    for _ in range(200):
        if not list(tmp_path.glob(".cache/svitkit/runs/*")) and not (tmp_path / "lock" / "held").exists():
            return
        threading.Event().wait(0.05)
    pytest.fail("the board is not clean")
