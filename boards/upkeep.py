"""What a board needs between runs: its lock given back, svitkit's files removed, a look at what it is."""

from __future__ import annotations

from dataclasses import dataclass

from svitkit.boards.answers import KIBIBYTE, read_busy, read_number
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
    printed = ask(host, "unlock", "yes" if force else "no").splitlines()
    words = [line.partition("\t")[0] for line in printed]
    outcome = next((word for word in words if word in ("free", "stale", "forced")), None)
    busy = read_busy(printed)
    if busy is None:
        return Unlocked()
    if outcome is None:
        raise RunError(f"{in_use(host, busy)}. Wait for it, or take it with --force, which ends what runs there.")
    return Unlocked(owner=busy.owner, since=busy.start, was_in_use=outcome == "forced")


def clean(host: Host) -> int:
    """Removes what svitkit keeps on a board, and returns how many bytes that were.

    Raises:
        RunError: the board does not answer.
    """
    told = ask(host, "clean").partition("kept_kib\t")[2].split()
    return (read_number(told[0]) or 0) * KIBIBYTE if told else 0


def look_at_board(host: Host) -> DeviceFacts:
    """Reads what a device says of itself, whether it is in use or not.

    Raises:
        ConfigError: the board does not let one in, or its host key is not trusted.
        RunError: the board does not answer.
    """
    return read_facts(ask(host, "facts"))
