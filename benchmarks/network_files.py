"""The files of one network that the runtimes read: exported, with unrolled neurons, and with integer weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.networks import BenchNetwork, integer_network
from benchmarks.unroll_lif import unroll_lif
from svitkit.compress.options import INTEGER_METHODS
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import ModelMetadata
from svitkit.runtime.golden import golden_outputs

Frames = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class IntegerFile:
    """A network with integer weights.

    Attributes:
        onnx: the exported file.
        rates: layer -> spikes per neuron and time step on the inputs that are timed.
        logits: (N, classes) float32, what ONNX Runtime computes from this file for those inputs.
    """

    onnx: Path
    rates: dict[str, float]
    logits: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Files:
    """One network as every runtime reads it.

    Attributes:
        network: where it came from.
        work: directory of all files.
        onnx: the exported file; each layer of neurons is a Scan.
        unrolled: the same with elementwise nodes, see :mod:`benchmarks.unroll_lif`.
        integers: method of ``svitkit compress`` -> the network with such weights.
        metadata: what the export says about itself.
        inputs: (N, *input shape) float32, the network's inputs as the files take them.
        threads: threads that every runtime gets.
    """

    network: BenchNetwork
    work: Path
    onnx: Path
    unrolled: Path
    integers: dict[str, IntegerFile]
    metadata: ModelMetadata
    inputs: Frames
    threads: int


def write_files(network: BenchNetwork, work: Path, *, threads: int) -> Files:
    """Exports a network in all forms."""
    exported, unrolled = work / "model.onnx", work / "unrolled.onnx"
    metadata = export_onnx(network.checkpoint, exported, calibration=network.inputs)
    onnx.save(unroll_lif(onnx.load(exported)), unrolled)
    inputs = file_inputs(network, metadata)
    return Files(
        network=network,
        work=work,
        onnx=exported,
        unrolled=unrolled,
        integers={method: _integer_file(network, method, work, inputs) for method in INTEGER_METHODS},
        metadata=metadata,
        inputs=inputs,
        threads=threads,
    )


def file_inputs(network: BenchNetwork, metadata: ModelMetadata) -> Frames:
    """Returns a network's inputs as its file takes them: (N, *input shape) float32."""
    frames = network.inputs.numpy()  # (T, N, C, H, W)
    inputs = frames[:1].swapaxes(0, 1) if metadata.static_input else frames.swapaxes(0, 1)[:, :, None]
    return np.ascontiguousarray(inputs)


def _integer_file(network: BenchNetwork, method: str, work: Path, inputs: Frames) -> IntegerFile:
    small, path = integer_network(network, method), work / f"{method}.onnx"
    metadata = export_onnx(small.checkpoint, path, calibration=small.inputs)
    return IntegerFile(onnx=path, rates=small.rates, logits=golden_outputs(path, metadata, inputs))
