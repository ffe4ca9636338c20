"""The transport to a board over SSH: it needs a shell there, nothing else, and leaves a bounded cache alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from subprocess import CompletedProcess

from svitkit.boards.answers import Answer, Places, read_places, write_tree
from svitkit.boards.device_facts import DeviceFacts
from svitkit.boards.governor import no_governor
from svitkit.boards.hosts import Host
from svitkit.boards.ssh_session import SshSession
from svitkit.errors import ConfigError, RunError
from svitkit.files import sha256, write_bytes

FREE_MARGIN_BYTES = 1 << 20
NO_SUCH_FILE, DAMAGED, NOT_ALLOWED, NOT_EXECUTABLE, NOT_FOUND = 66, 76, 77, 126, 127
SIGNALLED = 128


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file on its way: where it lies here, its place on the board, its bytes and their SHA-256."""

    path: Path
    place: str
    size: int
    digest: str


class SshTransport:
    """Runs programs on a board that ``ssh`` reaches.

    Files are kept on the board by their SHA-256, at most 1 GiB of them, and linked into the scratch directory of a run;
    what is there already is not sent again. The board checks every hash before a file is used.

    Args:
        session: an open connection.
    """

    def __init__(self, session: SshSession) -> None:
        self._session = session
        self._host = session.host

    @property
    def facts(self) -> DeviceFacts:
        """What the device says of itself."""
        return self._session.facts

    @property
    def prefix(self) -> tuple[str, ...]:
        """Arguments of boards.toml that stand before every program."""
        return self._host.prefix

    def run(self, argv: Sequence[str], timeout_s: float) -> CompletedProcess[str]:
        """Runs a program, see :meth:`svitkit.boards.transports.Transport.run`."""
        command = [*self.prefix, *argv]
        answer = self._session.call_held("run", self._session.run_directory, *command, timeout_s=timeout_s)
        name = PurePosixPath(argv[0]).name
        if answer is None:
            raise RunError(
                f"{name} did not end within {timeout_s:g} s on {self._host.name} and was stopped. "
                "Give it fewer inputs or repeats, or a longer time-out."
            )
        if answer.status in (NOT_EXECUTABLE, NOT_FOUND):
            raise RunError(
                f"{command[0]} cannot be started on {self._host.name}: {_last_line(answer)}. Build the bundle again "
                "for this board; if its directory lies on a file system without programs (noexec), name another one as "
                "directory in boards.toml."
            )
        status = SIGNALLED - answer.status if answer.status > SIGNALLED else answer.status
        return CompletedProcess(command, status, answer.stdout.decode(errors="replace"), answer.stderr)

    def push(self, local: Path) -> str:
        """Copies a file or directory, see :meth:`svitkit.boards.transports.Transport.push`.

        Raises:
            RunError: the board has too little space, or a file did not arrive whole.
        """
        files = list(_files(local))
        name = local.resolve().name
        names = "".join(f"{file.digest} {file.place}\n" for file in files)
        place = [self._session.run_directory, name]
        found = self._place(place, names)
        if found.placed is None:
            by_digest = {file.digest: file for file in files}
            wanted = [(by_digest[digest], have) for digest, have in found.missing.items() if digest in by_digest]
            self._check_space(sum(file.size - have for file, have in wanted), found.free_bytes)
            for file, have in wanted:
                self._send(file, have)
            found = self._place(place, names)
        if found.placed is None:
            raise RunError(
                f"{self._host.name} does not keep what it is sent: {len(found.missing)} files are gone again."
            )
        return found.placed

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file back, see :meth:`svitkit.boards.transports.Transport.pull`."""
        path = str(PurePosixPath(self._session.run_directory) / "work" / remote)
        answer = self._session.call("pull", path, timeout_s=self._host.transfer_timeout_s)
        if answer.status == NO_SUCH_FILE:
            raise RunError(f"the board has no file {path}: the program that should have written it did not.")
        self._require(answer, f"reading {path}")
        write_bytes(local, answer.stdout)

    @contextmanager
    def look(self, patterns: Sequence[str]) -> Iterator[Path]:
        """Yields a copy of files, see :meth:`svitkit.boards.transports.Transport.look`."""
        answer = self._session.call("look", *patterns)
        self._require(answer, "reading its clocks")
        with tempfile.TemporaryDirectory(prefix="svitkit-") as folder:
            write_tree(Path(folder), answer.stdout.decode(errors="replace"))
            yield Path(folder)

    @contextmanager
    def governor(self, name: str) -> Iterator[None]:
        """Sets the governor, see :meth:`svitkit.boards.transports.Transport.governor`; it goes back by itself."""
        answer = self._session.call("governor", self._session.run_directory, name)
        if answer.status == NOT_ALLOWED:
            raise no_governor(name, self._host.name, _last_line(answer))
        self._require(answer, "setting the governor")
        yield
        self._require(self._session.call("restore", self._session.run_directory), "setting the governor back")

    def _place(self, place: Sequence[str], names: str) -> Places:
        """Returns where the files lie, or which are missing."""
        answer = self._session.call("place", *place, stdin=names.encode(), timeout_s=self._host.transfer_timeout_s)
        self._require(answer, "looking at its files")
        return read_places(answer.stdout.decode(errors="replace"))

    def _check_space(self, needed: int, free: int | None) -> None:
        if free is not None and needed + FREE_MARGIN_BYTES > free:
            raise ConfigError(
                f"{self._host.name} has {free >> 20} MiB free where svitkit keeps its files, and {needed >> 20} MiB "
                "more are to be sent. Make room there, for example with 'svitkit boards clean "
                f"{self._host.destination}', or name a directory on another disk as directory in boards.toml."
            )

    def _send(self, file: LocalFile, have: int) -> None:
        answer = self._put(file, have)
        if answer.status == DAMAGED and have:  # what was there is of no use: all of it again
            answer = self._put(file, 0)
        self._require(answer, f"sending {file.path.name}")

    def _put(self, file: LocalFile, have: int) -> Answer:
        with file.path.open("rb") as opened:
            opened.seek(have)
            rest = opened.read()
        names = ("put", file.digest, str(file.size), str(have))
        return self._session.call(*names, stdin=rest, timeout_s=self._host.transfer_timeout_s)

    def _require(self, answer: Answer, what: str) -> None:
        if answer.status:
            raise RunError(
                f"{what}: {self._host.name} says '{_last_line(answer)}' (status {answer.status}). "
                "Check its free space and the rights of its directory, and run again."
            )


@contextmanager
def open_ssh(host: Host, *, wait_s: int = 0) -> Iterator[SshTransport]:
    """Opens a board; see :class:`svitkit.boards.ssh_session.SshSession` for the errors.

    Args:
        host: where it is.
        wait_s: how long to wait while somebody else uses it.
    """
    with SshSession(host, wait_s=wait_s) as session:
        yield SshTransport(session)


def _files(local: Path) -> Iterator[LocalFile]:
    for path in sorted(local.rglob("*")) if local.is_dir() else [local]:
        if path.is_dir():
            continue
        place = "." if path == local else path.relative_to(local).as_posix()
        if not place.isprintable() or place != place.strip() or not path.is_file():
            raise ConfigError(f"{path} cannot be sent to a board: wanted plain files with plain names. Rename it.")
        yield LocalFile(path=path, place=place, size=path.stat().st_size, digest=sha256(path))


def _last_line(answer: Answer) -> str:
    return next((line.strip() for line in reversed(answer.stderr.splitlines()) if line.strip()), "nothing")
