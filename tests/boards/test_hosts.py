from dataclasses import replace
from pathlib import Path

import pytest

from svitkit.boards.board import load_board
from svitkit.boards.hosts import Host, config_path, find_host, host_of
from svitkit.errors import ConfigError

PI = """
[raspberry-pi-4]
host = "pi@192.168.1.20:2222"
identity = "{key}"
known_hosts = "{key}"
prefix = ["taskset", "-c", "2-3"]
directory = "/data/svitkit"
connect_timeout_s = 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("")
    path = tmp_path / "boards.toml"
    path.write_text(PI.format(key=tmp_path / "key"))
    return path


def test_a_board_of_the_users_file_is_known_with_all_that_it_takes_to_reach_it(config: Path) -> None:
    key = str(config.with_name("key"))
    assert host_of("raspberry-pi-4", None, config) == Host(
        host="pi@192.168.1.20",
        port=2222,
        identity=key,
        known_hosts=key,
        prefix=("taskset", "-c", "2-3"),
        directory="/data/svitkit",
        connect_timeout_s=3.0,
    )


def test_a_host_that_is_given_takes_the_place_of_the_files_and_the_rest_holds(config: Path) -> None:
    given = host_of("raspberry-pi-4", "root@10.0.0.7", config)
    assert (given.destination, given.port, given.prefix) == ("root@10.0.0.7", None, ("taskset", "-c", "2-3"))


def test_the_users_file_lies_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_path() == tmp_path / "svitkit" / "boards.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_path() == Path.home() / ".config" / "svitkit" / "boards.toml"


@pytest.mark.parametrize(
    ("given", "destination", "port"),
    [
        ("pi@board", "pi@board", None),
        ("board", "board", None),
        ("pi@board.local:2200", "pi@board.local", 2200),
        ("root@127.0.0.1:22", "root@127.0.0.1", 22),
        ("pi@[fe80::1%eth0]:22", "pi@fe80::1%eth0", 22),
        ("pi@fe80::1", "pi@fe80::1", None),
        ("::1", "::1", None),
    ],
)
def test_hosts_are_written_as_for_ssh(given: str, destination: str, port: int | None, tmp_path: Path) -> None:
    host = host_of("raspberry-pi-4", given, tmp_path / "none.toml")
    assert (host.destination, host.port) == (destination, port)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "-oProxyCommand=touch${IFS}x",
        "pi@-oProxyCommand=x",
        "-l@board",
        "pi@",
        "@board",
        "pi@board;reboot",
        "pi@board -p 22",
        "pi@board\n",
        "pi@$(id)",
        "a@b@c",
        "pi@[::1",
        "pi@board:ssh",
    ],
)
def test_what_ssh_or_a_shell_could_misread_is_no_host(given: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no host\. Wanted user@address or user@address:port"):
        host_of("raspberry-pi-4", given, tmp_path / "none.toml")


def test_a_port_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no port 70000"):
        host_of("raspberry-pi-4", "pi@board:70000", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (("prefix =", "prefxi ="), r"raspberry-pi-4\.prefxi: .*nexpected"),
        (("connect_timeout_s = 3", "connect_timeout_s = 0"), "connect_timeout_s: Input should be greater than 0"),
        (("connect_timeout_s = 3", "port = 0"), "port: Input should be greater than or equal to 1"),
        (("connect_timeout_s = 3", 'port = "22"'), "port: Input should be a valid integer"),
        (('"/data/svitkit"', '"$(reboot)"'), r"'\$\(reboot\)' is no directory for the board"),
        (('"/data/svitkit"', '"data"'), "'data' is no directory for the board"),
        (('["taskset", "-c", "2-3"]', '["taskset", ""]'), "an argument of prefix is empty"),
        (('identity = "', 'identity = "/nowhere'), "identity is '/nowhere.*there is no such file"),
        (("[raspberry-pi-4]", "[raspberry-pi-4"), "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key_at_fault(config: Path, mend: tuple[str, str], message: str) -> None:
    config.write_text(config.read_text().replace(*mend, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        host_of("raspberry-pi-4", None, config)
    assert str(config) in str(caught.value)


def test_a_board_that_nobody_says_the_place_of_is_an_error_that_shows_both_ways(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing says where jetson-nano is.*--host user@address.*\[jetson-nano\]"):
        host_of("jetson-nano", None, config)


def test_a_host_is_found_by_its_board_and_by_its_address(config: Path) -> None:
    by_name = find_host("raspberry-pi-4", config)
    assert find_host("pi@192.168.1.20:2222", config) == by_name
    assert find_host("pi@elsewhere", config) == Host(host="pi@elsewhere")


PLACES = """
[pi4-left]
board = "raspberry-pi-4"
host = "pi@10.0.0.1"

[pi4-right]
board = "raspberry-pi-4"
host = "pi@10.0.0.2:2222"
prefix = ["taskset", "-c", "3"]
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = config_path()
    path.parent.mkdir()
    path.write_text(PLACES)
    return path


def test_one_board_stands_in_two_places(places: Path) -> None:
    left, right = load_board("pi4-left"), load_board("pi4-right")
    assert (left.name, left.place, right.name, right.place) == (
        "raspberry-pi-4",
        "pi4-left",
        "raspberry-pi-4",
        "pi4-right",
    )
    assert replace(left, place=None) == load_board("raspberry-pi-4")
    assert host_of(left.table, None).destination == "pi@10.0.0.1"
    assert (host_of(right.table, None).port, host_of(right.table, None).prefix) == (2222, ("taskset", "-c", "3"))
    assert find_host("pi4-right") == host_of("pi4-right", None)
    assert load_board("raspberry-pi-4").table == "raspberry-pi-4"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[x]\nhost = "pi@10.0.0.3"', r"\[x\]: it does not say which board stands there\. Add .* board = "),
        ('[x]\nboard = "raspbery-pi-4"', r"\[x\]: unknown board 'raspbery-pi-4'\. Did you mean 'raspberry-pi-4'"),
        ('[x]\nboard = "qemu-cortex-a72"', r"\[x\]: qemu-cortex-a72 runs on this machine and stands in no other place"),
        ("", r"unknown board 'x'.*Known: .*pi4-left, pi4-right"),
    ],
)
def test_a_place_that_is_no_boards_is_refused(places: Path, table: str, message: str) -> None:
    places.write_text(PLACES + table)
    with pytest.raises(ConfigError, match=message):
        load_board("x")


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (("connect_timeout_s = 3", f"connect_timeout_s = {'9' * 5000}"), "cannot be read as TOML"),
        (("connect_timeout_s = 3", f"port = {'[' * 10_000}"), "cannot be read as TOML"),
        (("connect_timeout_s = 3", "port = 2026-01-01"), "cannot be read as TOML"),
        (('identity = "', f'identity = "{"a" * 5000}'), "identity is .*there is no such file"),
        (('identity = "', 'identity = "~nobody-of-that-name/'), "identity is .*there is no such file"),
        (('"2-3"', '"2\\u0000"'), "an argument of prefix is empty, has two lines or a zero byte"),
    ],
)
def test_a_file_that_breaks_parsers_is_refused(config: Path, mend: tuple[str, str], message: str) -> None:
    text = config.read_text()
    assert mend[0] in text
    config.write_text(text.replace(*mend))
    with pytest.raises(ConfigError, match=message):
        host_of("raspberry-pi-4", None, config)
