"""Where boards stand: ``--host`` on the command line, and the tables of ``~/.config/svitkit/boards.toml``.

    [raspberry-pi-4]
    host = "pi@192.168.1.20"
    identity = "~/.ssh/boards"

    [pi4-left]
    board = "raspberry-pi-4"
    host = "pi@192.168.1.21"

A table has the name of its board, or names the board: then its own name is that of a place, and a board may stand in
several. Names and paths become arguments of ssh, so whatever ssh could take for an option or a shell for syntax is
refused.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, PositiveFloat
from pydantic.dataclasses import dataclass

from svitkit.errors import ConfigError
from svitkit.manifest import from_json

CONFIG_NAME = "boards.toml"
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
HOST = re.compile(r"(?:(?P<user>[^@]*)@)?(?:\[(?P<six>[^\]]*)\]|(?P<plain>[^\[\]:@]*))(?::(?P<port>\d{1,5}))?")
DIRECTORY = re.compile(r"/[A-Za-z0-9_./+-]*")
STRICT = ConfigDict(extra="forbid", strict=True)
Port = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Host:
    """A table of boards.toml: how one board is reached.

    Attributes:
        board: what stands there; the board of the table's own name if None.
        host: ``[user@]address[:port]``; an address is a name, a number, or an alias of ~/.ssh/config.
        port: of its SSH server; ssh's own choice if None.
        identity: file of the private key; what ssh and its agent offer if None.
        known_hosts: file with the host keys that are trusted; ssh's own if None.
        directory: absolute directory on the board for svitkit's files; ~/.cache/svitkit there if None.
        prefix: arguments that stand before every program, such as ``["taskset", "-c", "4-7"]``.
        connect_timeout_s: longest time until the board answers.
        transfer_timeout_s: longest time for one file; what has arrived by then is not sent again.
    """

    board: str | None = None
    host: str | None = None
    port: Port | None = None
    identity: str | None = None
    known_hosts: str | None = None
    directory: str | None = None
    prefix: tuple[str, ...] = ()
    connect_timeout_s: PositiveFloat = 15.0
    transfer_timeout_s: PositiveFloat = 600.0

    @property
    def destination(self) -> str:
        """``user@address`` or ``address``, as ssh takes it."""
        return self.host or ""

    @property
    def name(self) -> str:
        """The address for people, with the port where there is one."""
        return self.destination if self.port is None else f"{self.destination}, port {self.port}"


def config_path() -> Path:
    """Returns where boards.toml lies: under ``$XDG_CONFIG_HOME``, or under ~/.config."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "svitkit" / CONFIG_NAME


def read_hosts(path: Path | None = None) -> dict[str, Host]:
    """Reads boards.toml; there are no hosts where there is no file.

    Raises:
        ConfigError: the file is no TOML, or a key is unknown or wrong.
    """
    path = path or config_path()
    try:
        text = json.dumps(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}. Mend the file.") from None
    return from_json(text, dict[str, Host], source=str(path))


def host_of(place: str, given: str | None, path: Path | None = None) -> Host:
    """Returns how a board is reached.

    Args:
        place: the name of its table in boards.toml: the board's own, or that of a place.
        given: ``--host``; takes the place of the table's host and port.
        path: another boards.toml.

    Raises:
        ConfigError: nothing says where the board is, or what says so cannot be used.
    """
    path = path or config_path()
    table = read_hosts(path).get(place, Host())
    if given is None and table.host is None:
        raise ConfigError(
            f"nothing says where {place} is. Say it with --host user@address, or write it into {path}: "
            f'[{place}] and, in the next line, host = "user@address".'
        )
    if given is not None:
        return checked(replace(table, host=given, port=None), "--host")
    return checked(table, f"{path}, [{place}]")


def find_host(text: str, path: Path | None = None) -> Host:
    """Returns the host that is named by a board of boards.toml, or by ``[user@]address[:port]``.

    Raises:
        ConfigError: it is neither.
    """
    table = read_hosts(path)
    if text in table:
        return host_of(text, None, path)
    same = next((entry for entry in table.values() if entry.host == text), Host(host=text))
    return checked(same, f"'{text}'")


def checked(host: Host, source: str) -> Host:
    """Takes the port out of a host's address, and refuses what ssh or a shell could misread.

    Raises:
        ConfigError: user, address, port or a path is not what its name says.
    """
    text = host.host or ""
    found = HOST.fullmatch(text)
    address = "" if found is None else found["six"] or found["plain"] or ""
    port = None
    if found is None or not ADDRESS.fullmatch(address):  # an IPv6 address without brackets has no port
        user, _, address = text.rpartition("@")
    else:
        user, port = found["user"] or "", found["port"]
    named = "@" in text
    if not ADDRESS.fullmatch(address) or (named and not USER.fullmatch(user)):
        raise ConfigError(
            f"{source}: '{text}' is no host. Wanted user@address or user@address:port, of letters, digits, '.', '-' "
            "and '_'; an IPv6 address with a port stands in brackets."
        )
    if port is not None and not 1 <= int(port) <= 65535:
        raise ConfigError(f"{source}: there is no port {port}. Wanted 1 to 65535; SSH's usual one is 22.")
    if host.directory is not None and not DIRECTORY.fullmatch(host.directory):
        raise ConfigError(f"{source}: '{host.directory}' is no directory for the board. Wanted /plain/path.")
    if any("\n" in part or "\0" in part or not part for part in host.prefix):
        raise ConfigError(
            f"{source}: an argument of prefix is empty, has two lines or a zero byte. Wanted a program, its arguments."
        )
    return replace(
        host,
        host=f"{user}@{address}" if named else address,
        port=int(port) if port is not None else host.port,
        identity=_local_file(host.identity, source, "identity"),
        known_hosts=_local_file(host.known_hosts, source, "known_hosts"),
    )


def _local_file(text: str | None, source: str, key: str) -> str | None:
    if text is None:
        return None
    try:
        path = Path(text).expanduser()
        usable = path.is_file() and not any(letter in str(path) for letter in '"\n%')
    except (OSError, RuntimeError):  # the name is too long, or of a user that is not there
        usable = False
    if not usable:
        raise ConfigError(f"{source}: {key} is '{text}', and there is no such file. Name one of this machine.")
    return str(path)
