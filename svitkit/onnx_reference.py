"""Runs an exported file in ONNX Runtime as it is: the reference for everything that is compiled from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from svitkit.errors import ConfigError
from svitkit.manifest import LIFLayer, ModelMetadata
from svitkit.onnx_check import load_checked, metadata_of
from svitkit.onnx_lif import LIF_DOMAIN

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ReferenceRun:
    """The result of one inference.

    Attributes:
        logits: (classes,) float32, averaged over time.
        spikes: (T, ...) float32 without batch axis, by layer in the order of execution; empty unless asked for.
    """

    logits: Floats
    spikes: dict[str, Floats]


class ReferenceSession:
    """An exported file in ONNX Runtime with one thread.

    Args:
        path: the file.
        spikes: also returns what every layer of neurons fired; the outputs are added in memory only.

    Raises:
        ConfigError, UnsupportedError: the file fails a check of :func:`svitkit.onnx_check.load_checked`.
    """

    def __init__(self, path: Path, *, spikes: bool = False) -> None:
        import onnxruntime

        model = load_checked(path)
        self.metadata: ModelMetadata = metadata_of(model, source=str(path))
        self.layers = [node.name for node in model.graph.node if node.domain == LIF_DOMAIN] if spikes else []
        if spikes:
            _add_spike_outputs(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, x: Floats) -> ReferenceRun:
        """Runs one inference from rest.

        Args:
            x: (T, C, H, W) float32, normalized frames; a single (C, H, W) image is shown T times.

        Raises:
            ConfigError: the input has another shape, or frames differ where the file takes a single image.
        """
        frames = self._frames(x)
        steps = self._sequence(frames) if self.metadata.mode == "sequence" else self._steps(frames)
        logits: Floats = np.stack([step["logits"][0] for step in steps]).mean(axis=0)
        spikes = {name: np.concatenate([step[f"{name}.s"] for step in steps])[:, 0] for name in self.layers}
        return ReferenceRun(logits=logits, spikes=spikes)

    def _frames(self, x: Floats) -> Floats:
        meta = self.metadata
        frame = meta.input.shape[-3:]
        frames = np.broadcast_to(x, (meta.timesteps, *frame)) if x.shape == frame else x
        if frames.shape != (meta.timesteps, *frame) or frames.dtype != np.float32:
            raise ConfigError(
                f"the input is {x.dtype} {x.shape}, wanted float32 {(meta.timesteps, *frame)} (T, C, H, W) or {frame}."
            )
        return frames

    def _sequence(self, frames: Floats) -> list[dict[str, Any]]:
        if not self.metadata.static_input:
            return [self._call({"input": frames[:, None]})]
        if (frames != frames[0]).any():
            raise ConfigError(
                "the file shows one image at every time step, but the frames differ. Export in step mode."
            )
        return [self._call({"input": frames[:1]})]

    def _steps(self, frames: Floats) -> list[dict[str, Any]]:
        states = {
            f"{layer.name}.v_in": np.full(layer.state_shape, layer.params.v_initial, state_dtype(layer))
            for layer in self.metadata.lif_layers
        }
        steps = []
        for frame in frames:
            result = self._call({"input": frame[None, None], **states})
            states = {name: result[name.removesuffix("_in") + "_out"] for name in states}
            steps.append(result)
        return steps

    def _call(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))


def state_dtype(layer: LIFLayer) -> str:
    """Returns the type of a layer's potentials."""
    return "float32" if layer.integer is None else layer.integer.state_dtype


def _add_spike_outputs(model: onnx.ModelProto) -> None:
    names = {node.output[0] for node in model.graph.node if node.domain == LIF_DOMAIN}
    values = [value for value in model.graph.value_info if value.name in names]
    for value in values:
        model.graph.value_info.remove(value)
    model.graph.output.extend(values)
