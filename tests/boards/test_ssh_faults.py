"""What goes wrong between a workstation and a board: each ends in a clear error, and in a clean board."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svitkit.boards import ssh_session
from svitkit.boards.hosts import Host
from svitkit.boards.ssh import open_ssh
from svitkit.boards.upkeep import clean, unlock
from svitkit.errors import ConfigError, RunError
from tests.boards.ssh_server import Server, Wire, wait_until

CLIENT = """
import sys
from svitkit.boards.hosts import Host
from svitkit.boards.ssh import open_ssh
with open_ssh(Host(host=sys.argv[1], port=int(sys.argv[2]), identity=sys.argv[3], known_hosts=sys.argv[4])) as board:
    board.run(["sh", "-c", "echo $$ >pid.part; mv pid.part pid; exec sleep 1000.5"], 600)
"""


@pytest.fixture
def client(host: Host, server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Another svitkit, which runs a program on the board."""
    words = [host.host, host.port, host.identity, host.known_hosts]
    process = subprocess.Popen([sys.executable, "-c", CLIENT, *map(str, words)], stderr=subprocess.PIPE)
    wait_until(lambda: running(server) is not None)
    yield process
    process.kill()
    process.communicate()


def running(server: Server) -> int | None:
    """The process number of the program on the board."""
    written = list(server.cache.glob("runs/*/work/pid"))
    return int(written[0].read_text()) if written else None


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def digest_parts(server: Server) -> list[int]:
    return [path.stat().st_size for path in (server.cache / "files").glob("*.part")]


# --- who is at the other end ------------------------------------------------------------------------------------------


def test_an_unknown_host_key_stops_everything_and_the_command_that_is_shown_accepts_it(server: Server) -> None:
    known = server.folder / "none_known"
    known.write_text("")
    stranger = server.host(known_hosts=str(known))
    with (
        pytest.raises(ConfigError, match=r"host key of .* is unknown, so nothing was sent") as caught,
        open_ssh(stranger),
    ):
        pass
    listed = subprocess.run(
        ["ssh-keygen", "-lf", server.folder / "host_key.pub"], capture_output=True, text=True, check=True
    )
    assert f"It shows {listed.stdout.split()[1]} (ssh-ed25519)" in str(caught.value)
    command = re.search(r"accept it: (echo .*)$", str(caught.value))
    assert command is not None
    subprocess.run(["sh", "-c", command[1]], check=True)
    with open_ssh(stranger) as board:
        assert board.run(["echo", "in"], 30).stdout == "in\n"
    assert not server.cache.joinpath("..", "known_hosts").exists()


def test_a_changed_host_key_stops_everything_and_names_the_line_to_forget(server: Server) -> None:
    known = server.folder / "another_known"
    other = (server.folder / "other_key.pub").read_text().split()
    known.write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with (
        pytest.raises(ConfigError, match=rf"has changed: it now is SHA256:.*forget the old key: sed -i 1d {known}"),
        open_ssh(server.host(known_hosts=str(known))),
    ):
        pass
    assert not server.cache.exists()


def test_a_key_that_the_board_does_not_know_is_named_with_the_remedy(server: Server) -> None:
    with (
        pytest.raises(ConfigError, match=r"does not let you in: svitkit logs in with a key only.*ssh-copy-id"),
        open_ssh(server.host(identity=str(server.folder / "other_key"))),
    ):
        pass


def test_a_board_that_is_off_is_named(server: Server) -> None:
    with pytest.raises(RunError, match=r"cannot be reached: .*Connection refused"), open_ssh(server.host(port=1)):
        pass


def test_a_board_that_says_nothing_is_given_up_after_the_time_out(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        host = server.host(port=silent.getsockname()[1], connect_timeout_s=1.0)
        with pytest.raises(RunError, match=r"cannot be reached: .*timed out|did not answer within 1 s"), open_ssh(host):
            pass
    assert time.monotonic() - start < 10


def test_a_board_without_a_place_to_write_says_so(server: Server) -> None:
    with pytest.raises(
        RunError, match=r"lets one in, but svitkit cannot work there: .*mkdir.*directory in boards\.toml"
    ):
        open_ssh(server.host(directory="/proc/nowhere")).__enter__()


def test_a_workstation_without_ssh_is_told_what_to_install(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="apt-get install openssh-client"), open_ssh(host):
        pass


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_an_upload_that_is_cut_goes_on_where_it_was(server: Server, wire: Wire, bundle: Path) -> None:
    weights = bundle / "weights.bin"
    weights.write_bytes(os.urandom(3 << 20))
    with open_ssh(server.host(wire.port)) as board:
        wire.cut_after = wire.sent + (2 << 20)
        with pytest.raises(RunError, match=r"the connection to .* was lost during 'put'.*is not sent again"):
            board.push(bundle)
    server.wait_until_clean()
    (arrived,) = digest_parts(server)
    assert arrived > 0
    wire.cut_after = None
    before = wire.sent
    with open_ssh(server.host(wire.port)) as board:
        remote = board.push(bundle)
        assert board.run(["cmp", f"{remote}/weights.bin", str(weights)], 30).returncode == 0
    assert wire.sent - before < weights.stat().st_size - arrived + (200 << 10)


def test_a_run_that_is_cut_ends_on_the_board_too(server: Server, wire: Wire) -> None:
    with open_ssh(server.host(wire.port)) as board:
        threading.Timer(1.0, wire.cut).start()
        with pytest.raises(RunError, match=r"the connection to .* was lost during 'run'. The board stops the program"):
            board.run(["sh", "-c", "echo $$ >pid; exec sleep 1000.75"], 60)
        with pytest.raises(RunError, match="was lost during 'run'"):
            board.run(["true"], 60)
    server.wait_until_clean()


@pytest.mark.slow
def test_a_slow_wire_ends_in_a_time_out_and_the_next_try_goes_on(server: Server, wire: Wire, bundle: Path) -> None:
    (bundle / "weights.bin").write_bytes(os.urandom(12 << 20))
    with open_ssh(server.host(wire.port, transfer_timeout_s=1.5)) as board:
        wire.bytes_per_s = 2_000_000
        with pytest.raises(RunError, match=r"took longer than 1\.5 s for 'put'.*transfer_timeout_s in boards\.toml"):
            board.push(bundle / "weights.bin")
    server.wait_until_clean()
    assert digest_parts(server)[0] > 100_000
    wire.bytes_per_s = None
    with open_ssh(server.host(wire.port)) as board:
        sent = board.push(bundle / "weights.bin")
        assert board.run(["cmp", sent, str(bundle / "weights.bin")], 30).returncode == 0


# --- the board's disk -------------------------------------------------------------------------------------------------


def test_a_full_disk_is_noticed_before_anything_is_sent(host: Host, server: Server, bundle: Path) -> None:
    server.program("df", "echo Filesystem 1024-blocks Used Available Capacity Mounted on; echo /dev/x 9 8 1500 99% /")
    with (
        open_ssh(host) as board,
        pytest.raises(ConfigError, match=r"has 1 MiB free .* and 1 MiB more are to be sent.*svitkit boards clean"),
    ):
        board.push(bundle)
    assert not list((server.cache / "files").iterdir())
    server.wait_until_clean()


@pytest.mark.skipif(os.getuid() != 0, reason="a small file system needs root")
def test_a_disk_that_runs_full_meanwhile_is_left_clean(server: Server, bundle: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", small], check=False)
    if mounted.returncode:
        pytest.skip("this container mounts nothing")
    server.program("df", "echo head; echo /dev/x 9 8 99999999 1% /")
    try:
        with (
            open_ssh(server.host(directory=str(small / "svitkit"))) as board,
            pytest.raises(RunError, match=r"sending weights\.bin: .* says '.*No space left on device"),
        ):
            board.push(bundle)
        wait_until(lambda: not list((small / "svitkit" / "runs").iterdir()))
        assert not list((small / "svitkit" / "files").glob("*.part"))
    finally:
        subprocess.run(["umount", "-l", small], check=True)


# --- two clients ------------------------------------------------------------------------------------------------------


def test_a_second_client_learns_who_uses_the_board_and_since_when(host: Host, client: subprocess.Popen[bytes]) -> None:
    with pytest.raises(RunError) as caught, open_ssh(host):
        pass
    said = str(caught.value)
    assert re.search(rf"is in use by \w+@\S+ pid {client.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", said), said
    assert "--wait SECONDS" in said
    assert f"svitkit boards unlock {host.destination}" in said


def test_a_second_client_can_wait_for_its_turn(host: Host, client: subprocess.Popen[bytes]) -> None:
    threading.Timer(1.5, client.terminate).start()
    with open_ssh(host, wait_s=30) as board:
        assert board.run(["echo", "my turn"], 30).stdout == "my turn\n"


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_client_that_is_ended_leaves_no_program_no_lock_and_no_file(
    server: Server, client: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    program = running(server)
    assert program is not None
    assert is_alive(program)
    client.send_signal(number)
    server.wait_until_clean()
    assert not is_alive(program)
    assert client.wait(10) != 0


@pytest.mark.slow
def test_a_client_that_is_no_longer_heard_loses_the_board(
    host: Host, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_session, "LOCK_S", 1)
    monkeypatch.setattr(ssh_session, "BEAT_S", 60)
    with open_ssh(host) as board:
        server.wait_until_clean()
        with pytest.raises(RunError, match=r"was taken away while svitkit used it.*did not hear from here for 1 s"):
            board.run(["true"], 30)


def test_lines_from_the_client_keep_the_lock(host: Host, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_session, "BEAT_S", 0.2)
    with open_ssh(host):
        deadline = server.lock / "held" / "deadline"
        first = int(deadline.read_text())
        wait_until(lambda: int(deadline.read_text()) > first)


def test_a_dead_holder_gives_way_and_its_files_go_with_the_next_connection(
    host: Host, server: Server, client: subprocess.Popen[bytes]
) -> None:
    program = running(server)
    for path in Path("/proc").glob("[0-9]*"):  # as when the board's memory runs out: everything of the connection dies
        words = (path / "cmdline").read_bytes() if (path / "cmdline").exists() else b""
        if str(server.cache).encode() in words and (b"\0hold\0" in words or b"\0run\0" in words):
            os.kill(int(path.name), signal.SIGKILL)
    client.kill()
    assert program is not None
    assert is_alive(program)
    assert server.runs()
    with open_ssh(host) as board:
        assert len(server.runs()) == 1
        assert board.run(["echo", "taken over"], 30).stdout == "taken over\n"
    wait_until(lambda: not is_alive(program))
    server.wait_until_clean()


# --- upkeep -----------------------------------------------------------------------------------------------------------


def test_unlock_leaves_a_board_alone_that_is_in_use(
    host: Host, server: Server, client: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(RunError, match=rf"in use by .* pid {client.pid} since .*--force, which ends what runs there"):
        unlock(host)
    assert client.poll() is None


def test_unlock_by_force_ends_the_other_run_with_an_error(
    host: Host, server: Server, client: subprocess.Popen[bytes]
) -> None:
    done = unlock(host, force=True)
    assert done.was_in_use
    assert f"pid {client.pid}" in (done.owner or "")
    server.wait_until_clean()
    _, said = client.communicate(timeout=20)
    assert "was taken away while svitkit used it: somebody ran 'svitkit boards unlock'" in said.decode()
    assert unlock(host).owner is None


def test_unlock_removes_what_a_dead_holder_has_left(host: Host, server: Server) -> None:
    held = server.lock / "held"
    held.mkdir(parents=True)
    (held / "owner").write_text("t\n1\nanother-boot\n1700000000\nada@lab pid 7\n")
    (held / "deadline").write_text("99999999\n")
    done = unlock(host)
    assert (done.owner, done.was_in_use) == ("ada@lab pid 7", False)
    assert not held.exists()


@pytest.mark.slow
def test_clean_removes_the_files_and_says_how_many_bytes(host: Host, server: Server, bundle: Path) -> None:
    with open_ssh(host) as board:
        board.push(bundle)
    assert clean(host) >= 1 << 20
    assert not (server.cache / "files").exists()
    assert clean(host) == 0
    with open_ssh(host) as board:
        board.push(bundle)
