"""Whether this machine has what the stages need."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from svitkit.boards.board import Board, board_names, load_board
from svitkit.boards.machine import read_machine
from svitkit.boards.transports import open_transport
from svitkit.errors import SvitError

PACKAGES: dict[str, tuple[str, ...]] = {
    "models, compress": ("torch", "spikingjelly", "safetensors", "scikit-learn", "pillow"),
    "export": ("onnx", "onnx-ir", "onnxscript", "onnxruntime"),
    "build": ("apache-tvm", "ziglang", "cmake", "ninja", "pyelftools"),
}
LEAST_PYTHON = (3, 11)
VERSION_TIMEOUT_S = 60


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


def examine() -> list[Check]:
    """Looks at Python, packages, compilers, the machine and every board.

    Returns:
        The checks, in the order in which the stages need them.
    """
    packages = [_package(name, stage) for stage, names in PACKAGES.items() for name in names]
    programs = [_program(name, command) for name, command in _build_programs().items()]
    return [_python(), *packages, *programs, *_machine(), *(_board(name) for name in board_names())]


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


def _board(name: str) -> Check:
    is_here = name == "host"
    try:
        board = load_board(name)
        if board.transport == "ssh":
            return Check(
                name=f"board {name}", stage="bench", found="built for here, run there", ok=False, required=False
            )
        with open_transport(board):
            found = _way(board)
    except SvitError as error:
        return Check(name=f"board {name}", stage="bench", found=str(error), ok=False, required=is_here)
    return Check(name=f"board {name}", stage="bench", found=found, ok=True, required=is_here)


def _way(board: Board) -> str:
    return f"emulated here, {board.mcpu}" if board.emulated else f"this machine, as {board.mcpu}"
