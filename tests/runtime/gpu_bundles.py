"""The tiny network of :mod:`tests.runtime.bundles` for a GPU, by hand, with everything that such a program can say.

Its weights are stored without their zero and, once expanded, turned around when the bundle is loaded; the layer
``fire`` shows its spikes as bytes, ``rows`` packed with a word for each neuron, ``bits`` packed into one word.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from svitkit.lif import LIFParams
from svitkit.manifest import LIFLayer, Mode, ModelMetadata
from svitkit.runtime.program_facts import fact_lines
from svitkit.runtime.toolchain import build_runner
from tests.runtime import bundles

KERNELS = """\
__kernel void turn(__global const float* w, __global float* turned) {
  turned[7 - get_global_id(0)] = w[get_global_id(0)];
}

__kernel void scale(__global const float* x, __global const float* turned, __global float* y) {
  y[get_global_id(0)] = x[get_global_id(0)] * turned[7 - get_global_id(0)];
}

__kernel void fire(__global const float* x, __global float* v, __global uchar* spikes, __global uint* rows,
                   __global uint* bits) {
  bits[0] = 0;
  for (int i = 0; i < 8; ++i) {
    v[i] += x[i];
    const uint spike = v[i] >= 1;
    spikes[i] = spike;
    rows[i] = spike | 0xfffffffe; /* what follows a row means nothing */
    bits[0] |= spike << i;
    if (spike) v[i] = 0;
  }
}

__kernel void count(__global const uint* rows, __global float* logits) {
  const int part = get_group_id(1);
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += rows[part * 4 + i] & 1;
  logits[part] = sum;
}
"""
WEIGHTS = bytes([0x7F]).ljust(256, b"\0") + bundles.WEIGHTS[:7].tobytes()
PROGRAM = """\
svit-program 2
sizes weights 284 states 32 workspace 2048
threads 1
device opencl any kernels.cl
tensor 0 input float32 workspace 0 2 1 8
tensor 1 stored float32 weights 256 1 7
tensor 2 bitmap uint8 weights 0 1 1
tensor 3 w float32 workspace 256 1 8
tensor 4 turned float32 workspace 512 1 8
tensor 5 current float32 workspace 768 1 8
tensor 6 fire.v float32 states 0 1 8
tensor 7 spikes uint8 workspace 1024 2 8 1
tensor 8 rows uint1 workspace 1280 2 8 1
tensor 9 bits uint1 workspace 1536 2 1 8
tensor 10 logits float32 workspace 1792 2 1 2
state 6 0.0
input 0
output 10
expand 3 2 1 0
prepare turn stem 1 1 1 8 1 1 2 3 4
launch scale stem 2 1 1 4 1 1 3 0 4 5
launch fire fire 1 1 1 1 1 1 5 5 6 7 8 9
launch count head 1 2 1 1 1 1 2 8 10
tap fire 7 1
taporder fire 2 1 0
tap rows 8 1
taporder rows 2 1 0
tap bits 9 1
taporder bits 2 0 1
end
"""
LAYERS = ("fire", "rows", "bits")


def metadata(mode: Mode = "step") -> ModelMetadata:
    """The tiny network; in sequence mode it has one time step."""
    layers = tuple(LIFLayer(name=name, params=LIFParams(), state_shape=(1, 8)) for name in LAYERS)
    return dataclasses.replace(bundles.metadata(4 if mode == "step" else 1), mode=mode, lif_layers=layers)


def make_bundle(path: Path, *, device: str = "opencl any kernels.cl", mode: Mode = "step") -> Path:
    """Writes the bundle directory; both kinds of device have their kernels in OpenCL C (see ``cuda_double.cc``)."""
    path.mkdir(parents=True)
    runner = build_runner(bundles.HOST)
    shutil.copy(runner.svit_run, path / "svit-run")
    shutil.copy(runner.libsvit, path / "libsvit.so")
    (path / "weights.bin").write_bytes(WEIGHTS)
    (path / device.split()[-1]).write_text(KERNELS)
    facts = fact_lines(metadata(mode), features=(), golden_count=0, golden_tolerance=0.0)
    program = PROGRAM.replace("opencl any kernels.cl", device).replace("end\n", "\n".join([*facts, "end\n"]))
    (path / "program.txt").write_text(program)
    bundles.seal(path, bundles.HOST, metadata(mode))
    return path


def reseal(bundle: Path, name: str, old: str, new: str, *, mode: Mode = "step") -> None:
    """Changes a file of the bundle and makes the manifest fit again."""
    text = (bundle / name).read_text()
    assert old in text
    (bundle / name).write_text(text.replace(old, new, 1))
    bundles.seal(bundle, bundles.HOST, metadata(mode))


def wanted(frames: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The network in numpy: (T, 8) float32 -> the mean of the logits (2,) float32, (T, 8) uint8 by layer."""
    logits, spikes = bundles.expected(frames)
    return logits.mean(axis=0), dict.fromkeys(LAYERS, spikes)
