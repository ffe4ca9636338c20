"""Small trained networks that come with the package."""

from pathlib import Path

ZOO: dict[str, Path] = {"digits-spikformer": Path(__file__).parent / "digits-spikformer"}

__all__ = ["ZOO"]
