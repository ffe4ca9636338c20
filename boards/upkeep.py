"""What a board needs between runs: its lock given back, svitkit's files removed, a look at what it is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from svitkit.boards.device_facts import DeviceFacts, read_facts
from svitkit.boards.hosts import Host
from svitkit.boards.ssh_client import ask
from svitkit.boards.ssh_errors import in_use
from svitkit.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Unlocked:
    """What became of a lock.

    Attributes:
        owner: who had it; None if nobody.
        since: when it was taken, by the board's clock.
        was_in_use: whether its owner was still at work, and was ended.
    """

    owner: str | None = None
    since: str | None = None
    was_in_use: bool = False


def unlock(host: Host, *, force: bool = False) -> Unlocked:
    """Gives back a board's lock that its owner has left.

    Args:
        host: the board.
        force: whether a lock goes that is in use; its program is ended, and its run fails.

    Raises:
        RunError: the board does not answer, or the lock is in use and ``force`` is not set.
    """
    lines = [line.split("\t") for line in ask(host, "unlock", "yes" if force else "no").splitlines()]
    outcome = next((words[0] for words in lines if words[0] in ("free", "stale", "forced")), None)
    busy = next((words for words in lines if words[0] == "busy"), None)
    if busy is None:
        return Unlocked()
    _, owner, since, left = busy
    if outcome is None:
        raise RunError(
            f"{in_use(host, owner, since, left)}. Wait for it, or take it with --force, which ends what runs there."
        )
    start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(since))) if since.isdecimal() else None
    return Unlocked(owner=owner, since=start, was_in_use=outcome == "forced")


def clean(host: Host) -> int:
    """Removes what svitkit keeps on a board, and returns how many bytes that were.

    Raises:
        RunError: the board does not answer.
    """
    told = ask(host, "clean").partition("kept_kib\t")[2].split()
    return int(told[0]) * 1024 if told else 0


def look_at_board(host: Host) -> DeviceFacts:
    """Reads what a device says of itself, whether it is in use or not.

    Raises:
        ConfigError: the board does not let one in, or its host key is not trusted.
        RunError: the board does not answer.
    """
    return read_facts(ask(host, "facts"))
