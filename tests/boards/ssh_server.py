"""A real sshd on loopback with throw-away keys, and a wire in front of it that can be cut or made slow."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from svitkit.boards.hosts import Host

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = "openssh-server is not installed (apt-get install openssh-server)"
START_S = 20


@dataclass
class Server:
    """A running sshd.

    Attributes:
        folder: keys, the login's home, its programs that come before the system's, and the lock.
        port: on 127.0.0.1.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "svitkit"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def root(self) -> Path:
        """Where the login reads proc and sys; everything that is not put there is this machine's."""
        return self.folder / "root"

    def host(self, port: int | None = None, **changes: object) -> Host:
        """How svitkit is told to reach this server."""
        keys = {"identity": str(self.folder / "user_key"), "known_hosts": str(self.folder / "known_hosts")}
        destination = f"{getpass.getuser()}@127.0.0.1"
        return Host(**{"host": destination, "port": port or self.port, **keys, **changes})

    def trust(self, port: int) -> None:
        """Lets the client know the host key of this server under another port."""
        key = (self.folder / "host_key.pub").read_text().split()
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")

    def program(self, name: str, script: str) -> None:
        """Puts a program into the login's PATH, before the system's."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def runs(self) -> list[Path]:
        """The directories of connections that are on the board now."""
        return sorted((self.cache / "runs").glob("*"))

    def is_clean(self) -> bool:
        """Neither a directory of a run, nor a lock, nor a process of ours is left."""
        return not self.runs() and not (self.lock / "held").exists() and not self.processes()

    def processes(self) -> list[str]:
        """Command lines of the processes on the board that svitkit started."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.cache) in words and not words.startswith("ssh "):
                    found.append(words)
        return found

    def forced(self, script: str) -> None:
        """Makes every login of the user's key run a script, which finds the command in SSH_ORIGINAL_COMMAND."""
        self.program("forced", script)
        self.allow(f'command="{self.bin}/forced" ')

    def allow(self, options: str = "") -> None:
        """Lets the user's key in."""
        key = (self.folder / "user_key.pub").read_text()
        (self.folder / "authorized_keys").write_text(options + key)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def reset(self) -> None:
        """Makes the board forget what was done there."""
        for name in ("home", "bin", "root", "lock"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.furnish()

    def furnish(self) -> None:
        self.allow()
        for path in (self.home, self.bin, self.root):
            path.mkdir()
        (self.root / "proc").symlink_to("/proc")

    def wait_for_port(self) -> None:
        """Waits until it takes connections."""

        def answers() -> bool:
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_until(answers, START_S)

    def wait_until_clean(self, seconds: float = 20) -> None:
        wait_until(self.is_clean, seconds, lambda: f"{self.runs()} {list(self.lock.glob('*'))} {self.processes()}")


def wait_until(fact, seconds: float = 20, seen=lambda: "") -> None:
    """Waits until a fact holds; fails with what is seen then if it does not."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"still not so after {seconds} s: {seen()}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_server(folder: Path, shell: str = "/bin/sh") -> Server:
    """Starts sshd; its logins have a home, a lock and a PATH of their own."""
    if SSHD is None:
        pytest.skip(MISSING)
    for name in ("host_key", "user_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    environment = {
        "HOME": folder / "home",
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SVITKIT_LOCK": folder / "lock",
        "SVITKIT_ROOT": folder / "root",
    }
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nPidFile none\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"SetEnv {' '.join(f'{key}={value}' for key, value in environment.items())}\n"
    )
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    server = Server(folder=folder, port=port, process=process)
    server.trust(port)
    server.furnish()

    server.wait_for_port()
    return server


class Wire:
    """Passes bytes on between a client and a server until it is cut; can be slow, or cut after some bytes."""

    def __init__(self, port: int) -> None:
        self.server = port
        self.cut_after: int | None = None
        self.bytes_per_s: float | None = None
        self.sent = 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection at once, as when the cable is drawn and the kernel has noticed."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        for end in (*self._sockets, self._listener):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server))
                self._sockets += [client, server]
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while got := source.recv(4096):
                if counts:
                    self.sent += len(got)
                    if self.bytes_per_s is not None:
                        time.sleep(len(got) / self.bytes_per_s)
                    if self.cut_after is not None and self.sent > self.cut_after:
                        self.cut()
                sink.sendall(got)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def start_dropbear(folder: Path) -> Iterator[Host]:
    """Starts dropbear, which knows no home but that of /etc/passwd: it gets one in a mount namespace of its own."""
    if shutil.which("dropbear") is None or os.getuid() != 0:
        pytest.skip("dropbear is not installed (apt-get install dropbear-bin), or this user may not mount")
    port, home, key = free_port(), folder / "home", folder / "key"
    (home / ".ssh").mkdir(parents=True)
    home.chmod(0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (home / ".ssh" / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", folder / "host"], check=True, capture_output=True)
    shown = subprocess.run(["dropbearkey", "-y", "-f", folder / "host"], check=True, capture_output=True, text=True)
    public = next(line for line in shown.stdout.splitlines() if line.startswith("ssh-ed25519"))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(public.split()[:2])}\n")
    script = 'mount --bind "$1" ~ && exec dropbear -F -E -r "$2" -p "127.0.0.1:$3" -P "$4"'
    words = ["sh", "-c", script, "sh", home, folder / "host", port, folder / "pid"]
    process = subprocess.Popen(["unshare", "-m", *map(str, words)], stderr=subprocess.DEVNULL)
    keys = {"identity": str(key), "known_hosts": str(folder / "known_hosts")}

    def answers() -> bool:
        if process.poll() is not None:
            pytest.skip("this container mounts nothing")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_until(answers, START_S)
    yield Host(host="root@127.0.0.1", port=port, **keys)
    process.terminate()
    process.wait(10)
