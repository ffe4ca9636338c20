"""Golden outputs: what ONNX Runtime says an exported file computes, kept in the bundle for the check on the board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError
from svitkit.manifest import ModelMetadata

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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    run = _run_sequence if metadata.mode == "sequence" else _run_steps
    return np.stack([run(session, metadata, x) for x in inputs])


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


def _run_sequence(session: Any, metadata: ModelMetadata, x: Float) -> Float:
    (logits,) = session.run([metadata.output.name], {metadata.input.name: x})
    return np.asarray(logits[0], np.float32)


def _run_steps(session: Any, metadata: ModelMetadata, x: Float) -> Float:
    states = {
        f"{layer.name}.v_in": np.full(layer.state_shape, layer.params.v_initial, np.float32)
        for layer in metadata.lif_layers
    }
    names = [metadata.output.name, *[f"{layer.name}.v_out" for layer in metadata.lif_layers]]
    total = np.zeros(metadata.output.shape[1:], np.float32)
    for t in range(metadata.timesteps):
        frame = x[None] if metadata.static_input else x[t][None]
        logits, *potentials = session.run(names, {metadata.input.name: frame, **states})
        states = dict(zip(states, potentials, strict=True))
        total += logits[0]
    return total / np.float32(metadata.timesteps)
