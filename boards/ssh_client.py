"""The system's OpenSSH client as svitkit calls it: keys only, host keys strict, and one question at a time."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from pathlib import Path

from svitkit.boards.answers import BEGIN, END
from svitkit.boards.hosts import Host
from svitkit.boards.ssh_errors import cannot_work, explain_connection, no_answer
from svitkit.errors import ConfigError, SvitError
from svitkit.files import sha256

REMOTE = Path(__file__).resolve().with_name("remote.sh")
REMOTE_NAME = f"remote-{sha256(REMOTE)[:12]}.sh"
BASE = "svitkit-base\t"
SSH_FAILED = 255
GRACE_S = 5.0
# Nothing but keys, no questions, no forwarding, whatever ~/.ssh/config says; it still names aliases and jump hosts.
OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",
}
# dd takes from stdin exactly what the script has; what follows belongs to the script.
INSTALL = (
    'umask 077; d=${1:-${HOME:-/tmp}/.cache/svitkit}; mkdir -p "$d" && dd bs=1 count="$2" of="$d/$3.$$" 2>/dev/null && '
    'mv "$d/$3.$$" "$d/$3" && s=$d/$3 && printf "svitkit-base\\t%s\\n" "$d" && shift 3 && exec sh "$s" "$d" "$@"'
)


def ssh_command(host: Host, *, socket: Path | None = None, opens: bool = True) -> list[str]:
    """Returns the program and the arguments that stand before a command for the board.

    Args:
        host: the board.
        socket: of the connection that several commands share.
        opens: whether the command opens that connection; otherwise it fails where there is none.
    """
    own = {"ControlPath": "none" if socket is None else str(socket), "ControlPersist": "no"}
    own["ControlMaster"] = "yes" if opens and socket is not None else "no"
    if not opens:  # without the connection there is nothing to fall back on: fail, do not log in again
        own["ProxyCommand"] = "exit 1"
    settings = {**OPTIONS, "ConnectTimeout": str(max(1, round(host.connect_timeout_s))), **own}
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return ["ssh", "-T", "-e", "none", *options, *ssh_target(host)]


def ssh_target(host: Host) -> list[str]:
    """Returns the arguments of ssh that name a board and what it takes to log in there."""
    words = [] if host.port is None else ["-p", str(host.port)]
    if host.identity is not None:
        words += ["-i", host.identity, "-o", "IdentitiesOnly=yes"]
    if host.known_hosts is not None:
        words += ["-o", f'UserKnownHostsFile="{host.known_hosts}"', "-o", "GlobalKnownHostsFile=/dev/null"]
    return [*words, "--", host.destination]


def first_command(host: Host, verb: str, *arguments: str) -> str:
    """Returns a command that takes ``remote.sh`` from its stdin, keeps it on the board, and runs a verb of it."""
    size = len(REMOTE.read_bytes())
    words = ["sh", "-c", INSTALL, "svitkit", host.directory or "", str(size), REMOTE_NAME, verb, *arguments]
    return "exec " + shlex.join(words)


def require_ssh() -> None:
    """Raises ConfigError where there is no OpenSSH client."""
    if shutil.which("ssh") is None:
        raise ConfigError("boards are reached by OpenSSH, and there is no program ssh. apt-get install openssh-client")


def ask(host: Host, verb: str, *arguments: str) -> str:
    """Runs one verb of ``remote.sh`` over a connection of its own and returns what it printed.

    Raises:
        ConfigError: there is no ssh, the host key is not trusted, or the board does not let one in.
        RunError: the board does not answer, or cannot do it.
    """
    require_ssh()
    command = [*ssh_command(host), first_command(host, verb, *arguments)]
    try:
        done = subprocess.run(command, input=REMOTE.read_bytes(), capture_output=True, timeout=patience_s(host))
    except subprocess.TimeoutExpired:
        raise no_answer(host) from None
    stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode:
        raise refusal(host, done.returncode, stdout, stderr)
    return stdout.partition(BEGIN)[2]


def patience_s(host: Host) -> float:
    """Returns the seconds to wait for a board's first words: ssh's own time-out comes first, and knows more."""
    return host.connect_timeout_s + 1


def refusal(host: Host, status: int, stdout: str, stderr: str) -> SvitError:
    """Builds the error for a first command that failed."""
    if status == SSH_FAILED and BASE not in stdout:
        return explain_connection(host, stderr, ssh_target(host))
    return cannot_work(host, stderr.partition(BEGIN)[2].partition(END)[0] or stderr)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Closes what a process reads, and ends it if it does not end of itself."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
