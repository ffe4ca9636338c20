"""Turns what OpenSSH says when it cannot reach a board into errors that say what to do."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence

from svitkit.boards.answers import Busy
from svitkit.boards.hosts import Host
from svitkit.errors import ConfigError, RunError, SvitError

LOOK_TIMEOUT_S = 20


def explain_connection(host: Host, said: str, target: Sequence[str]) -> SvitError:
    """Builds the error for a connection that did not come about.

    Args:
        host: whom svitkit wanted to reach.
        said: what ssh printed.
        target: arguments of ssh that name the board, for asking for its key.
    """
    words = " ".join(said.split())
    if "IDENTIFICATION HAS CHANGED" in said:
        return ConfigError(_changed_key(host, said))
    if "Host key verification failed" in said or "host key is known for" in said:
        return ConfigError(_unknown_key(host, target))
    port = "" if host.port is None else f"-p {host.port} "
    if "Permission denied" in said or "Too many authentication failures" in said:
        return ConfigError(
            f"{host.name} does not let you in: svitkit logs in with a key only. Load yours with ssh-add, or name it as "
            f"identity in boards.toml, and copy it to the board: ssh-copy-id {port}{host.destination}. ssh: {words}"
        )
    if "Could not resolve hostname" in said:
        return ConfigError(f"there is no machine called {host.name}. Check the name, or give its number. ssh: {words}")
    return RunError(
        f"{host.name} cannot be reached: {words or 'ssh gave no reason'}. Check that the board is on and in the "
        f"network, and that this works: ssh {shlex.join(target)} true"
    )


def no_answer(host: Host) -> RunError:
    """Builds the error for a board that says nothing."""
    return RunError(
        f"{host.name} did not answer within {host.connect_timeout_s:g} s. Check that the board is on and in the "
        "network; connect_timeout_s in boards.toml is how long svitkit waits."
    )


def cannot_work(host: Host, said: str) -> RunError:
    """Builds the error for a board that lets one in and then lacks what svitkit needs."""
    return RunError(
        f"{host.name} lets one in, but svitkit cannot work there: {' '.join(said.split()) or 'no reason given'}. It "
        "needs a POSIX shell, /proc, /tmp and a directory that it may write (directory in boards.toml names another)."
    )


def in_use(host: Host, busy: Busy) -> str:
    """Says who uses a board."""
    owner, left = ("".join(c for c in text if c.isprintable()) for text in (busy.owner, busy.left))  # another wrote it
    start = busy.start or "unknown"
    return f"{host.name} is in use by {owner} since {start} by the board's clock, for {left} s more unless renewed"


def taken_away(host: Host, lock_s: int) -> RunError:
    """Builds the error for a lock that somebody else has removed."""
    return RunError(
        f"{host.name} was taken away while svitkit used it: somebody ran 'svitkit boards unlock', or it did not hear "
        f"from here for {lock_s} s. Nothing of this run stays on the board; run again."
    )


def connection_lost(host: Host, verb: str) -> RunError:
    """Builds the error for a connection that ended in the middle."""
    return RunError(
        f"the connection to {host.name} was lost during '{verb}'. The board stops the program and removes its files by "
        "itself; run again, and what had arrived is not sent again."
    )


def _check(kind: str) -> str:
    """Returns the command that shows the fingerprint of a host key on the board itself."""
    name = kind.removeprefix("ssh-").partition("-")[0].lower()  # ssh-ed25519, ssh-rsa, ecdsa-sha2-nistp256
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{name}_key.pub"


def _changed_key(host: Host, said: str) -> str:
    seen = re.search(r"SHA256:[A-Za-z0-9+/]+", said)
    kind = re.search(r"fingerprint for the (\S+) key", said)
    check = _check(kind[1] if kind else "ed25519")
    where = re.search(r"Offending \S+ key in (\S+):(\d+)", said)
    remove = f"sed -i {where[2]}d {where[1]}" if where else f"ssh-keygen -R {host.destination.rpartition('@')[2]}"
    return (
        f"the host key of {host.name} has changed: it now is {seen[0] if seen else 'another one'}. Somebody may stand "
        f"between you and the board, so nothing was sent. If the board was set up anew, compare with what '{check}' "
        f"prints on it; only if that is the same, forget the old key: {remove}"
    )


def _unknown_key(host: Host, target: Sequence[str]) -> str:
    start = f"the host key of {host.name} is unknown, so nothing was sent."
    settings = _settings(target)
    address, port = settings.get("hostname", ""), settings.get("port", "22")
    line = "" if "proxyjump" in settings or "proxycommand" in settings else _scan(address, port)
    if not line:
        return f"{start} Log in once by hand, compare the fingerprint it shows, and accept it: ssh {shlex.join(target)}"
    name = settings.get("hostkeyalias") or line.split()[0]
    known = host.known_hosts or settings.get("userknownhostsfile", "~/.ssh/known_hosts").split()[0]
    kept = " ".join([name, *line.split()[1:]])
    check = _check(line.split()[1])
    return (
        f"{start} It shows {_fingerprint(line)}. Compare that with what '{check}' prints on the board; only if it is "
        f"the same, accept it: echo '{kept}' >> {shlex.quote(known)}"
    )


def _settings(target: Sequence[str]) -> dict[str, str]:
    """Returns what ssh would do for a target, by the keys of ``ssh -G``."""
    lines = _output(["ssh", "-G", *target]).splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _scan(address: str, port: str) -> str:
    """Returns a host's key as a line of known_hosts: the Ed25519 one if it has one; empty if it does not answer."""
    printed = _output(["ssh-keyscan", "-T", "5", "-p", port, "--", address])
    keys = [line for line in printed.splitlines() if line.count(" ") == 2 and not line.startswith("#")]
    return next((line for line in keys if " ssh-ed25519 " in line), keys[0] if keys else "")


def _fingerprint(line: str) -> str:
    words = _output(["ssh-keygen", "-lf", "-"], line).split()
    return f"{words[1]} ({line.split()[1]})" if len(words) > 1 else "a key that ssh-keygen cannot read"


def _output(command: list[str], stdin: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=LOOK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
