"""fp16 weights for GPUs: rounded in the exported file, so that ONNX Runtime says what the rounding changes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from svitkit.manifest import PrecisionTrial
from svitkit.onnx_check import load_checked
from svitkit.onnx_reference import ReferenceRun, ReferenceSession
from svitkit.runtime.golden import reference_frames
from svitkit.runtime.program import Precision, Program

Floats = NDArray[np.float32]


def choose_precision(trial: PrecisionTrial) -> Precision:
    """Returns fp16 where it changes the class of no input that was tried, else fp32."""
    return "fp32" if trial.class_changes else "fp16"


def half_layers(program: Program) -> set[str]:
    """Names of the nodes whose weights a program stores in fp16."""
    half = {buffer for buffer in program.weights if buffer.dtype == "float16"}
    half |= {each.out for each in program.expansions if each.out.dtype == "float16"}
    calls = [chosen for chosen in program.kernels if half & set(program.calls[chosen.call].buffers)]
    return {chosen.weights for chosen in calls if chosen.weights is not None}


def write_rounded(onnx_path: Path, layers: Collection[str], out: Path) -> None:
    """Writes an exported file with the weights of some nodes rounded to fp16, as float32."""
    model = load_checked(onnx_path)
    names = {node.input[1] for node in model.graph.node if node.name in layers}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            rounded = onnx.numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    onnx.save(model, out)


def try_rounded(onnx_path: Path, rounded: Path, inputs: Floats) -> PrecisionTrial:
    """Compares two files in ONNX Runtime.

    Args:
        onnx_path: as it was exported.
        rounded: with rounded weights.
        inputs: as :func:`svitkit.runtime.golden.golden_outputs` takes them.
    """
    sessions = [ReferenceSession(path, spikes=True) for path in (onnx_path, rounded)]
    same, spikes, changes = 0, 0, 0
    for x in reference_frames(sessions[0].metadata, inputs):
        exact, half = (session.run(x) for session in sessions)
        same += sum(_same_spikes(exact, half))
        spikes += sum(layer.size for layer in exact.spikes.values())
        changes += int(exact.logits.argmax() != half.logits.argmax())
    return PrecisionTrial(inputs=len(inputs), class_changes=changes, spike_agreement=same / spikes)


def _same_spikes(a: ReferenceRun, b: ReferenceRun) -> list[int]:
    return [int((a.spikes[name] == b.spikes[name]).sum()) for name in a.spikes]
