"""Whether a bundle can run on a board, decided before anything runs there."""

from __future__ import annotations

from collections.abc import Iterable

from svitkit.boards.board import Board
from svitkit.errors import ConfigError
from svitkit.manifest import Manifest


def check_bundle(manifest: Manifest, board: Board) -> None:
    """Checks architecture, CPU features and C library of a bundle against a board.

    Without this check the program dies on the board: of an illegal instruction, or with ``GLIBC_2.xx not found``.

    Raises:
        ConfigError: the bundle cannot run there; the message says what to build instead.
    """
    rebuild = f"Build it again for this board: svitkit build model.onnx --board {board.name} -o BUNDLE"
    if manifest.triple != board.triple:
        raise ConfigError(
            f"the bundle was built for {manifest.board} ({manifest.triple}), but {board.name} runs {board.triple}. "
            f"{rebuild}"
        )
    missing = missing_features(manifest.required_features, board.cpu_features)
    if missing:
        raise ConfigError(
            f"the bundle was built for {manifest.board} and may use CPU features that {board.name} lacks: "
            f"{', '.join(missing)}. There it would die of an illegal instruction. {rebuild}"
        )
    available = board.system_glibc or board.glibc
    if _version(manifest.glibc_floor) > _version(available):
        raise ConfigError(
            f"the bundle needs glibc {manifest.glibc_floor} or newer, but {board.name} has {available}. {rebuild}"
        )


def missing_features(required: Iterable[str], available: Iterable[str]) -> list[str]:
    """Returns the required CPU features that are not available, sorted."""
    return sorted(set(required) - set(available))


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise ConfigError(
            f"'{text}' is no glibc version. Wanted two numbers, such as 2.27; build the bundle again."
        ) from None
