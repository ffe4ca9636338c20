"""What a name or path on the command line stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from svitkit.errors import ConfigError
from svitkit.manifest import MANIFEST_NAME
from svitkit.parts import is_single_file

Kind = Literal["model", "onnx", "bundle", "record"]


def kind_of(text: str) -> Kind:
    """Tells the artefacts of the stages apart by their form; what is none of them is a model's name.

    Raises:
        ConfigError: it is a path of an artefact that does not exist, or of a file that no stage makes.
    """
    path = Path(text)
    if path.suffix == ".onnx":
        return _existing("onnx", path, "svitkit export")
    if path.suffix == ".json":
        return _existing("record", path, "svitkit bench")
    if (path / MANIFEST_NAME).is_file() or is_single_file(path):
        return "bundle"
    if path.is_file():
        raise ConfigError(
            f"'{text}' is a file that svitkit does not know. It reads *.onnx, records (*.json), bundles, single files "
            "and checkpoint directories; a weight file is named with its class or family: "
            "module:callable --weights FILE."
        )
    return "model"


def _existing(kind: Kind, path: Path, maker: str) -> Kind:
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'. Make one with '{maker}'.")
    return kind
