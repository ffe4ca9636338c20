"""Golden outputs: what ONNX Runtime says an exported file computes, kept in the bundle for the check on the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError
from svitkit.manifest import ModelMetadata
from svitkit.onnx_reference import ReferenceSession

Float = NDArray[np.float32]


def golden_outputs(onnx_path: Path, metadata: ModelMetadata, inputs: Float) -> Float:
    """Runs an exported file in ONNX Runtime, input by input.

    Args:
        onnx_path: the exported file; it runs as it is, with the LIF function inlined by ONNX Runtime.
        metadata: the file's own metadata.
        inputs: (N, *input shape) float32 in sequence mode. In step mode (N, 1, C, H, W) for static images, each shown
            at every step, and (N, T, 1, C, H, W) for event frames.

    Returns:
        (N, classes) float32, logits; in step mode their mean over the T steps.
    """
    session = ReferenceSession(onnx_path)
    return np.stack([session.run(x).logits for x in reference_frames(metadata, inputs)])


def reference_frames(metadata: ModelMetadata, inputs: Float) -> Float:
    """Golden inputs as :meth:`svitkit.onnx_reference.ReferenceSession.run` takes them, one by one."""
    return inputs[:, 0] if metadata.static_input else inputs[:, :, 0]


def golden_shape(metadata: ModelMetadata) -> tuple[int, ...]:
    """Shape of one golden input."""
    if metadata.mode == "sequence":
        return metadata.input.shape
    frame = metadata.input.shape[1:]
    return frame if metadata.static_input else (metadata.timesteps, *frame)


def check_golden_inputs(metadata: ModelMetadata, inputs: Float) -> None:
    """Raises ConfigError unless there is at least one input and all have the model's shape."""
    wanted = golden_shape(metadata)
    if inputs.ndim == 0 or len(inputs) == 0 or inputs.shape[1:] != wanted:
        raise ConfigError(
            f"golden inputs have shape {inputs.shape}; wanted (N, {', '.join(map(str, wanted))}) with N >= 1. "
            f"Pass normalized inputs as the model takes them."
        )
