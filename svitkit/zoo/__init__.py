"""Small trained networks that come with the package, each a checkpoint directory; ``scripts/pack_zoo.py`` adds one."""

from pathlib import Path

ZOO: dict[str, Path] = {path.parent.name: path.parent for path in sorted(Path(__file__).parent.glob("*/svit.json"))}

__all__ = ["ZOO"]
