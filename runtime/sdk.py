"""What a program of the user's own needs to run bundles on a board: svit.h, libsvit, and how CMake finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

from svitkit.boards.board import Board
from svitkit.files import staged_directory
from svitkit.runtime.toolchain import CMAKE_FOLDER, build_runner


def write_sdk(board: Board, out: Path) -> None:
    """Writes ``include``, ``lib`` (with a package for ``find_package(svitkit)``), ``toolchains`` and ``examples``.

    Args:
        board: whose kind of machine the libraries are for.
        out: the directory; an existing one is replaced once the new one is whole.

    Raises:
        ConfigError: the libraries cannot be built.
    """
    prefix = build_runner(board.triple).prefix
    with staged_directory(out) as staged:
        for source in (prefix / "include", prefix / "lib", CMAKE_FOLDER / "toolchains", CMAKE_FOLDER / "examples"):
            shutil.copytree(source, staged / source.name)
