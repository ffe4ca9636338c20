"""The SSH transport against a real sshd on loopback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from svitkit.boards import ssh_session
from svitkit.boards.answers import Answer, write_tree
from svitkit.boards.hosts import Host
from svitkit.boards.ssh import open_ssh
from svitkit.errors import ConfigError, RunError
from svitkit.runtime.bench.clusters import CLUSTER_FILES, read_clusters
from svitkit.runtime.bench.device_state import STATE_FILES, read_device_state
from svitkit.runtime.bench.power_meter import METER_FILES, find_meter
from tests.boards.ssh_server import Server, wait_until
from tests.runtime.sysfs_trees import BOARDS, plant


def test_a_program_runs_in_the_scratch_directory_and_its_output_comes_back(host: Host) -> None:
    with open_ssh(host) as board:
        done = board.run(["sh", "-c", "pwd; echo oops >&2; exit 3"], 30)
    assert done.stdout.endswith("/work\n")
    assert (done.stderr.strip(), done.returncode) == ("oops", 3)


def test_what_is_pushed_has_its_places_and_what_is_written_is_pulled(host: Host, bundle: Path, tmp_path: Path) -> None:
    with open_ssh(host) as board:
        remote = board.push(bundle)
        given = board.push(bundle / "weights.bin")
        done = board.run([f"{remote}/program", f"{remote}/sub/a file", f"{remote}/empty"], 30)
        assert (done.stdout, done.stderr.strip()) == ("content\n", "said")
        board.run(["sh", "-c", 'tr a b <"$1" >out.bin', "sh", given], 30)
        board.pull("out.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == (bundle / "weights.bin").read_bytes().replace(b"a", b"b")


def test_arguments_reach_the_program_as_they_are(host: Host) -> None:
    odd = ["a b", "$HOME", "`id`", "it's", '"', "*", "\\", "-n", "ä", "two\nlines", ""]
    with open_ssh(host) as board:
        done = board.run(["printf", "%s|", *odd], 30)
    assert done.stdout == "|".join([*odd, ""])


def test_a_program_gets_no_input(host: Host) -> None:
    with open_ssh(host) as board:
        assert board.run(["sh", "-c", "cat; echo end"], 30).stdout == "end\n"


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGKILL])
def test_a_signal_is_reported_as_on_this_machine(host: Host, number: signal.Signals) -> None:
    with open_ssh(host) as board:
        done = board.run(["sh", "-c", f"echo last words >&2; kill -{int(number)} $$"], 30)
    assert (done.returncode, done.stderr.strip()) == (-number, "last words")


def test_unchanged_files_are_not_sent_again_and_a_bundle_costs_one_command(
    host: Host, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ssh(host) as board:
        board.push(bundle)
    verbs: list[str] = []
    call = ssh_session.SshSession.call

    def note(session: ssh_session.SshSession, verb: str, *arguments: str, **options: object) -> Answer:
        verbs.append(verb)
        return call(session, verb, *arguments, **options)

    monkeypatch.setattr(ssh_session.SshSession, "call", note)
    with open_ssh(host) as board:
        board.push(bundle)
        (bundle / "empty").write_text("changed")
        assert verbs == ["place"]
        board.push(bundle)
    assert verbs == ["place", "place", "put", "place"]


def test_a_file_that_was_damaged_on_the_board_is_sent_again(host: Host, server: Server, bundle: Path) -> None:
    with open_ssh(host) as board:
        board.push(bundle)
    for path in (server.cache / "files").iterdir():
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:100])
    with open_ssh(host) as board:
        remote = board.push(bundle)
        assert board.run(["cmp", f"{remote}/weights.bin", str(bundle / "weights.bin")], 30).returncode == 0


@pytest.mark.slow
def test_rubbish_in_a_part_is_noticed_and_the_file_sent_whole(host: Host, server: Server, bundle: Path) -> None:
    with open_ssh(host) as board:
        sent = board.push(bundle / "weights.bin")
    (kept,) = (server.cache / "files").iterdir()
    kept.rename(kept.with_suffix(".part"))
    kept.with_suffix(".part").chmod(0o600)
    kept.with_suffix(".part").write_bytes(b"rubbish")
    with open_ssh(host) as board:
        sent = board.push(bundle / "weights.bin")
        assert board.run(["cmp", sent, str(bundle / "weights.bin")], 30).returncode == 0


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_board_is_clean_after_success_failure_and_interrupt(
    host: Host, server: Server, bundle: Path, error: type[BaseException] | None
) -> None:
    try:
        with open_ssh(host) as board:
            board.push(bundle)
            assert len(server.runs()) == 1
            assert (server.lock / "held").is_dir()
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    server.wait_until_clean()
    assert {path.suffix for path in (server.cache / "files").iterdir()} == {""}


def test_a_program_that_hangs_is_stopped_on_the_board(host: Host, server: Server) -> None:
    with open_ssh(host) as board:
        with pytest.raises(RunError, match=r"sleep did not end within 0\.5 s on .* and was stopped"):
            board.run(["sleep", "1000.25"], 0.5)
        wait_until(lambda: not sleepers())
        assert board.run(["echo", "still here"], 30).stdout == "still here\n"


def test_a_missing_program_and_a_missing_file_are_errors(host: Host, tmp_path: Path) -> None:
    with open_ssh(host) as board:
        with pytest.raises(RunError, match=r"\./svit-run cannot be started on .*not found"):
            board.run(["./svit-run"], 5)
        with pytest.raises(RunError, match=r"the board has no file .*/work/out\.bin"):
            board.pull("out.bin", tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


def test_a_prefix_stands_before_every_program_and_is_told(server: Server) -> None:
    with open_ssh(server.host(prefix=("env", "PINNED=yes"))) as board:
        assert board.prefix == ("env", "PINNED=yes")
        assert board.run(["sh", "-c", "echo $PINNED"], 5).stdout == "yes\n"


def test_files_lie_in_the_directory_that_the_user_names(server: Server, bundle: Path, tmp_path: Path) -> None:
    with open_ssh(server.host(directory=str(tmp_path / "elsewhere"))) as board:
        assert board.push(bundle).startswith(str(tmp_path / "elsewhere"))
    assert not server.cache.exists()


def test_the_device_says_what_it_is_in_the_first_answer(host: Host) -> None:
    with open_ssh(host) as board:
        facts = board.facts
    assert (facts.architecture, facts.kernel, facts.page_size) == (os.uname().machine, os.uname().release, 4096)
    assert facts.libc is not None
    assert facts.cores == os.cpu_count()
    assert facts.cpu_features
    assert facts.hashes
    assert facts.free_bytes


def test_clocks_and_temperatures_are_those_of_the_board(host: Host, server: Server) -> None:
    governor = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    (server.root / governor).parent.mkdir(parents=True)
    (server.root / governor).write_text("boards-own\n")
    with open_ssh(host) as board, board.look([governor.replace("cpu0", "cpu[0-9]*"), "sys/nothing*"]) as root:
        assert (root / governor).read_text() == "boards-own\n"
        assert len([path for path in root.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("name", ["raspberry-pi-5", "jetson-nano", "jetson-orin-nano", "rock-5b"])
def test_every_sensor_of_a_board_is_found_over_the_connection(
    host: Host, server: Server, tmp_path: Path, name: str
) -> None:
    here = plant(tmp_path / "here", BOARDS[name])
    plant(server.root, BOARDS[name])
    with open_ssh(host) as board:
        with board.look(STATE_FILES) as there:
            assert read_device_state(there) == read_device_state(here)
        with board.look(CLUSTER_FILES) as there:
            assert read_clusters(there) == read_clusters(here)
        with board.look(METER_FILES) as there:
            found, wanted = find_meter(there), find_meter(here)
    assert (found is None) == (wanted is None) == (name == "rock-5b")
    if found is not None and wanted is not None:
        assert (found.files, found.commands, found.scope) == (wanted.files, wanted.commands, wanted.scope)


def test_a_board_cannot_write_outside_of_the_copy_of_its_tree(tmp_path: Path) -> None:
    write_tree(tmp_path / "copy", "sys/../../out\tx\n/etc/x\tx\nhome/x\tx\nsys/a\tb c\nnoise\n\tx")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == ["copy/sys/a"]


def test_what_a_login_prints_by_itself_disturbs_nothing(server: Server, bundle: Path, tmp_path: Path) -> None:
    server.forced('echo "Welcome to the lab"; echo hush >&2; exec sh -c "$SSH_ORIGINAL_COMMAND"')
    with open_ssh(server.host()) as board:
        remote = board.push(bundle)
        assert board.run(["echo", "1"], 30).stdout == "1\n"
        board.run(["cp", f"{remote}/weights.bin", "out.bin"], 30)
        board.pull("out.bin", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == (bundle / "weights.bin").read_bytes()


def test_nothing_of_the_key_is_in_the_arguments_of_ssh(server: Server, tmp_path: Path) -> None:
    from svitkit.boards.ssh_client import ssh_command

    words = " ".join(ssh_command(server.host(), socket=tmp_path / "s"))
    assert "BatchMode=yes" in words
    assert "StrictHostKeyChecking=yes" in words
    assert "PasswordAuthentication=no" in words
    secret = (server.folder / "user_key").read_text().splitlines()[1]
    assert secret not in words


def test_the_socket_of_a_connection_lies_in_a_directory_of_ours_alone(host: Host) -> None:
    with open_ssh(host) as board:
        socket = board._session._socket
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert not socket.parent.exists()


@pytest.mark.slow
def test_the_files_used_longest_ago_make_room_for_new_ones(
    host: Host, server: Server, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ssh(host) as board:
        board.push(bundle / "weights.bin")
    (old,) = (server.cache / "files").iterdir()
    os.utime(old, (1, 1))
    with open_ssh(host) as board:
        board.push(bundle / "program")
    assert old.exists()
    monkeypatch.setattr(ssh_session, "CACHE_BYTES", 100 << 10)
    with open_ssh(host):
        pass
    assert len(list((server.cache / "files").iterdir())) == 1
    assert not old.exists()


def test_a_file_with_a_name_of_two_lines_is_not_sent(host: Host, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a\nb").write_text("")
    with open_ssh(host) as board, pytest.raises(ConfigError, match="plain files with plain names"):
        board.push(tmp_path / "odd")


@pytest.mark.slow
def test_a_dropbear_image_without_sftp_works_too(dropbear: Host, bundle: Path, tmp_path: Path) -> None:
    with open_ssh(dropbear) as board:
        remote = board.push(bundle)
        done = board.run([f"{remote}/program", f"{remote}/sub/a file"], 30)
        assert (done.stdout, done.returncode) == ("content\n", 0)
        assert board.run(["sh", "-c", "kill -4 $$"], 30).returncode == -4
        with pytest.raises(RunError, match="did not end within"):
            board.run(["sleep", "1000.25"], 0.5)
        board.run(["cp", f"{remote}/weights.bin", "out.bin"], 30)
        board.pull("out.bin", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == (bundle / "weights.bin").read_bytes()


def sleepers() -> list[Path]:
    """Processes that sleep for the odd time that only these tests sleep for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"sleep") and b"1000.25" in words:
            found.append(path)
    return found
