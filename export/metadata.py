"""What an exported file says about itself, under the metadata key ``svitkit``."""

from __future__ import annotations

from pathlib import Path

import onnx

from svitkit.manifest import METADATA_KEY, ModelMetadata, metadata_json
from svitkit.onnx_check import load_checked, metadata_of


def attach_metadata(proto: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Stores metadata in a model that has none yet."""
    proto.metadata_props.add(key=METADATA_KEY, value=metadata_json(metadata))


def read_metadata(path: Path) -> ModelMetadata:
    """Reads the metadata of an exported file, after all checks of :func:`svitkit.onnx_check.load_checked`."""
    return metadata_of(load_checked(path), source=str(path))
