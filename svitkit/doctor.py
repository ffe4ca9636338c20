"""Whether this machine, and a board, have what the stages need."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from svitkit.boards.board import Board, board_names, load_board
from svitkit.boards.device_facts import MUSL, DeviceFacts
from svitkit.boards.gpu_devices import CUDA_LIBRARIES, OPENCL_LIBRARIES, Found, find_devices
from svitkit.boards.hosts import host_of, read_hosts
from svitkit.boards.jetpack import release_of
from svitkit.boards.machine import read_machine
from svitkit.boards.preflight import mismatches
from svitkit.boards.transports import open_transport
from svitkit.boards.upkeep import look_at_board
from svitkit.errors import ConfigError, SvitError

PACKAGES: dict[str, tuple[str, ...]] = {
    "models, compress": ("torch", "spikingjelly", "safetensors", "scikit-learn", "pillow"),
    "export": ("onnx", "onnx-ir", "onnxscript", "onnxruntime"),
    "build": ("apache-tvm", "ziglang", "cmake", "ninja", "pyelftools"),
    "report": ("jinja2",),
}
LEAST_PYTHON = (3, 11)
VERSION_TIMEOUT_S = 60
INSTALL_POCL = "on Debian or Ubuntu: apt-get install pocl-opencl-icd"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        stage: who needs it.
        found: the version or value, or why it is missing.
        ok: whether it is there.
        required: whether a stage cannot run without it; a board that cannot be reached is none of these.
    """

    name: str
    stage: str
    found: str
    ok: bool
    required: bool = True


def examine(board: str | None = None, host: str | None = None) -> list[Check]:
    """Looks at Python, packages, compilers, the machine and the boards.

    Args:
        board: the one to look at; all that can be reached without a network if None.
        host: where that board is, if boards.toml does not say it.

    Returns:
        The checks, in the order in which the stages need them.

    Raises:
        ConfigError: there is no such board, or nothing says where it is.
    """
    gpus = find_devices()
    if board is None:
        named = [_board(name, gpus) for name in board_names()]
    else:
        named = _examine_board(load_board(board), host, gpus)
    packages = [_package(name, stage) for stage, names in PACKAGES.items() for name in names]
    programs = [_program(name, command) for name, command in _build_programs().items()]
    return [_python(), *packages, *programs, *_machine(), *_gpu_drivers(gpus), *named]


def is_ready(checks: list[Check]) -> bool:
    """Says whether everything that a stage cannot do without is there."""
    return all(check.ok for check in checks if check.required)


def _python() -> Check:
    return Check(name="python", stage="all", found=platform.python_version(), ok=sys.version_info[:2] >= LEAST_PYTHON)


def _package(name: str, stage: str) -> Check:
    try:
        return Check(name=name, stage=stage, found=metadata.version(name), ok=True)
    except metadata.PackageNotFoundError:
        return Check(name=name, stage=stage, found=f"missing: pip install {name}", ok=False)


def _build_programs() -> dict[str, list[str]]:
    beside_python = Path(sys.executable).parent
    cmake = shutil.which("cmake", path=str(beside_python)) or shutil.which("cmake") or "cmake"
    ninja = shutil.which("ninja", path=str(beside_python)) or shutil.which("ninja") or "ninja"
    return {
        "zig (C++ compiler)": [sys.executable, "-m", "ziglang", "version"],
        "cmake (program)": [cmake, "--version"],
        "ninja (program)": [ninja, "--version"],
    }


def _program(name: str, command: list[str]) -> Check:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name=name, stage="build", found=f"does not start: {error}", ok=False)
    printed = (done.stdout or done.stderr).strip().splitlines()
    return Check(name=name, stage="build", found=printed[0] if printed else "says nothing", ok=done.returncode == 0)


def _machine() -> list[Check]:
    machine = read_machine()
    return [
        Check(name="processor", stage="bench", found=machine.triple, ok=True),
        Check(name="cores for this process", stage="bench", found=str(machine.cores), ok=True),
        Check(name="memory", stage="bench", found=f"{machine.memory_bytes / 1e9:.1f} GB", ok=True),
        Check(name="C library", stage="bench", found=f"glibc {machine.glibc}", ok=machine.glibc is not None),
    ]


def _gpu_drivers(found: Found) -> list[Check]:
    """Says what the drivers of GPUs offer on this machine; most machines have none, and need none."""
    checks = []
    for api, (library, *_) in (("cuda", CUDA_LIBRARIES), ("opencl", OPENCL_LIBRARIES)):
        devices = [device for device in found.devices if device.api == api]
        told = [f"{each.name} ({each.architecture or each.type.upper()}, driver {each.driver})" for each in devices]
        text = ", ".join(told) or found.missing.get(api, "no device")
        checks.append(Check(name=f"GPU driver {library}", stage="bench", found=text, ok=bool(told), required=False))
    return checks


def _board(name: str, gpus: Found) -> Check:
    is_here = name == "host"
    try:
        board = load_board(name)
        if board.stands_in_for_gpu:
            return _stand_in(board, gpus)
        if board.transport == "ssh":
            return _on_network(board)
        with open_transport(board):
            found = _way(board)
    except SvitError as error:
        return Check(name=f"board {name}", stage="bench", found=str(error), ok=False, required=is_here)
    return Check(name=f"board {name}", stage="bench", found=found, ok=True, required=is_here)


def _stand_in(board: Board, gpus: Found) -> Check:
    names = [device.name for device in gpus.devices if device.api == "opencl"]
    found = f"in place of a GPU: {', '.join(names)}" if names else f"{gpus.missing.get('opencl')}; {INSTALL_POCL}"
    return Check(name=f"board {board.name}", stage="bench", found=found, ok=bool(names), required=False)


def _on_network(board: Board) -> Check:
    entry = read_hosts().get(board.name)
    asks = f"look at it with svitkit doctor --board {board.name}"
    found = f"built for here, run over SSH (--host), {asks}" if entry is None else f"at {entry.host}, {asks}"
    return Check(name=f"board {board.name}", stage="bench", found=found, ok=False, required=False)


def _examine_board(board: Board, host: str | None, gpus: Found) -> list[Check]:
    """Looks at one board, over the network if it is there: what it says of itself, and what speaks against it."""
    if board.transport != "ssh":
        if host is not None:
            raise ConfigError(f"{board.name} runs on this machine; leave --host {host} out, or name another --board.")
        return [replace(_board(board.name, gpus), required=True)]
    where = host_of(board.table, host)
    stage = f"board {board.table}"
    try:
        facts = look_at_board(where)
    except SvitError as error:
        return [Check(name=where.name, stage=stage, found=str(error), ok=False)]
    told = [Check(name=name, stage=stage, found=found, ok=True) for name, found in _told(facts).items() if found]
    wrong = [Check(name="cannot be used", stage=stage, found=why, ok=False) for why in mismatches(facts, board)]
    return [*told, *wrong]


def _told(facts: DeviceFacts) -> dict[str, str]:
    sizes = {"memory": facts.memory_bytes, "free memory": facts.available_bytes, "free disk": facts.free_bytes}
    return {
        "device": facts.name,
        "architecture": facts.architecture or "",
        "kernel": facts.kernel or "",
        "kinds of cores": ", ".join(facts.parts),
        "cores switched on": str(facts.cores or ""),
        "CPU features": " ".join(facts.cpu_features),
        "C library": (facts.libc or "") if facts.libc in (None, MUSL) else f"glibc {facts.libc}",
        "page size": f"{facts.page_size} bytes" if facts.page_size else "",
        "device tree": ", ".join(facts.compatible),
        "L4T": _l4t(facts),
        "GPU drivers": ", ".join(facts.drivers or ()),
        "CUDA toolkit (not the driver)": facts.cuda_toolkit or "",
        **{name: f"{size / 1e9:.1f} GB" for name, size in sizes.items() if size is not None},
    }


def _l4t(facts: DeviceFacts) -> str:
    """The release of Linux for Tegra, with what follows from it."""
    release = release_of(facts.l4t) if facts.l4t is not None else None
    known = "" if release is None else f", JetPack {release.jetpack}, CUDA driver {release.cuda}"
    return f"{facts.l4t or ''}{known}"


def _way(board: Board) -> str:
    return f"emulated here, {board.mcpu}" if board.emulated else f"this machine, as {board.mcpu}"
