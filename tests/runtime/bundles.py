"""A tiny network, written by hand in TIR and bundled: y = x * w, neurons that count up, logits = their spikes' sum.

v = v + x * w;  s = v >= 1;  v = 0 where s;  y = s        (1, 8) float32 each
logits = (sum of y's first half, sum of y's second half)
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.files import sha256
from svitkit.lif import LIFParams
from svitkit.manifest import FileEntry, LIFLayer, Manifest, ModelMetadata, Normalization, TensorSpec, write_manifest
from svitkit.runtime.program_facts import fact_lines
from svitkit.runtime.single_file import link_single_file
from svitkit.runtime.toolchain import Linker, archive_objects, build_runner, shared_linker

WEIGHTS = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 0.125, 0.0], np.float32)
HOST = f"{platform.machine()}-linux-gnu"
ARM = "aarch64-linux-gnu"
TARGETS = {
    ARM: {"kind": "llvm", "mtriple": ARM, "mcpu": "cortex-a72"},
    "x86_64-linux-gnu": {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v2"},
}
# The spikes are stored (neuron, time) so that the tap needs its order; 'counts' is the same layer's float copy.
PROGRAM = """\
svit-program 2
sizes weights 32 states 32 workspace 320
threads 3
tensor 0 input float32 workspace 0 2 1 8
tensor 1 w float32 weights 0 1 8
tensor 2 fire.v float32 states 0 1 8
tensor 3 current float32 workspace 64 2 1 8
tensor 4 spikes uint8 workspace 128 2 8 1
tensor 5 logits float32 workspace 192 2 1 2
tensor 6 counts float32 workspace 256 2 1 8
state 2 0.0
input 0
output 5
call scale stem split 3 0 1 3
call fire fire whole 4 3 2 4 6
call count head whole 2 4 5
tap fire 4 1
taporder fire 2 1 0
tap counts 6 1
taporder counts 2 0 1
end
"""


def kernels() -> object:
    """Returns the network's three kernels as a TVM module."""
    import tvm
    from tvm.script import tirx as T

    @T.prim_func
    def scale(
        x: T.Buffer((1, 8), "float32"),
        w: T.Buffer((8,), "float32"),
        y: T.Buffer((1, 8), "float32"),
        part: T.int32,
        parts: T.int32,
    ):
        T.func_attr({"global_symbol": "scale", "tir.noalias": True})
        for i in range(T.truncdiv(part * 8, parts), T.truncdiv((part + 1) * 8, parts)):
            y[0, i] = x[0, i] * w[i]

    @T.prim_func
    def fire(
        x: T.Buffer((1, 8), "float32"),
        v: T.Buffer((8,), "float32"),
        s: T.Buffer((8, 1), "uint8"),
        counts: T.Buffer((1, 8), "float32"),
        part: T.int32,
        parts: T.int32,
    ):
        T.func_attr({"global_symbol": "fire", "tir.noalias": True})
        for i in range(8):
            v[i] = v[i] + x[0, i]
            s[i, 0] = T.if_then_else(v[i] >= T.float32(1), T.uint8(1), T.uint8(0))
            counts[0, i] = T.if_then_else(v[i] >= T.float32(1), T.float32(1), T.float32(0))
            v[i] = T.if_then_else(v[i] >= T.float32(1), T.float32(0), v[i])

    @T.prim_func
    def count(s: T.Buffer((8, 1), "uint8"), logits: T.Buffer((1, 2), "float32"), part: T.int32, parts: T.int32):
        T.func_attr({"global_symbol": "count", "tir.noalias": True})
        for half in range(2):
            logits[0, half] = T.float32(0)
            for i in range(4):
                logits[0, half] = logits[0, half] + T.cast(s[half * 4 + i, 0], "float32")

    return tvm.IRModule({"scale": scale, "fire": fire, "count": count})


def expected(frames: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The network in numpy: (T, 8) float32 -> logits of each step (T, 2) float32, spikes (T, 8) uint8."""
    v = np.zeros(8, np.float32)
    logits, spikes = [], []
    for x in frames:
        v = v + x * WEIGHTS
        fired = v >= 1
        v = np.where(fired, np.float32(0), v)
        spikes.append(fired.astype(np.uint8))
        logits.append(fired.reshape(2, 4).sum(axis=1).astype(np.float32))
    return np.stack(logits), np.stack(spikes)


def metadata(timesteps: int) -> ModelMetadata:
    """The tiny network as a step-mode model with a static input."""
    return ModelMetadata(
        family="tiny",
        mode="step",
        timesteps=timesteps,
        static_input=True,
        input=TensorSpec(name="input", shape=(1, 8)),
        output=TensorSpec(name="logits", shape=(1, 2)),
        lif_layers=tuple(LIFLayer(name=name, params=LIFParams(), state_shape=(1, 8)) for name in ("fire", "counts")),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=("first", "second"),
        parameter_bytes=32,
        original_parameter_bytes=32,
        checkpoint_sha256="0" * 64,
        plan_sha256=None,
        producer="test",
    )


def compile_code(output: Path, triple: str, linker: Linker, module: object | None = None) -> None:
    """Compiles kernels, those of the tiny network unless others are given, and links them."""
    import tvm

    executable = tvm.compile(module or kernels(), target=tvm.target.Target(TARGETS[triple]))
    executable.export_library(str(output), fcompile=linker)


def make_bundle(path: Path, triple: str, timesteps: int = 4) -> Path:
    """Compiles the tiny network for a triple and writes its bundle directory."""
    path.mkdir(parents=True)
    compile_code(path / "model.so", triple, shared_linker(triple))
    runner = build_runner(triple)
    shutil.copy(runner.svit_run, path / "svit-run")
    shutil.copy(runner.libsvit, path / "libsvit.so")
    (path / "program.txt").write_text(PROGRAM)
    (path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    seal(path, triple, metadata(timesteps))
    return path


GOLDEN = np.random.default_rng(2).uniform(0, 1.5, (3, 4, 8)).astype(np.float32)  # (N, T, features)


def write_parts(parts: Path, triple: str, *, features: tuple[str, ...] = (), shift: float = 0) -> None:
    """Writes what a single file of the tiny network holds; golden logits are ``shift`` away from the right ones."""
    parts.mkdir(parents=True)
    model = metadata(4)
    facts = fact_lines(model, features=features, golden_count=len(GOLDEN), golden_tolerance=0.0)
    (parts / "program.txt").write_text(PROGRAM.replace("end\n", "\n".join([*facts, "end\n"])))
    (parts / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (parts / "golden_input.bin").write_bytes(GOLDEN.tobytes())
    logits = np.stack([expected(x)[0].mean(axis=0) for x in GOLDEN]) + np.float32(shift)
    (parts / "golden_output.bin").write_bytes(logits.tobytes())
    seal(parts, triple, model, glibc_floor=None, golden_count=len(GOLDEN))


def make_single_file(path: Path, triple: str, **changes: Any) -> Path:
    """Compiles the tiny network for a triple into one program; changes are those of :func:`write_parts`."""
    work = path.with_suffix(".work")
    write_parts(work / "parts", triple, **changes)
    compile_code(work / "kernels.a", triple, archive_objects)
    link_single_file(work / "parts", work / "kernels.a", ("scale", "fire", "count"), path, triple)
    return path


def seal(
    path: Path, triple: str, model: ModelMetadata, *, glibc_floor: str | None = "2.27", golden_count: int = 0
) -> None:
    """Writes the manifest that fits the files as they are."""
    files = {
        f.name: FileEntry(sha256=sha256(f), size=f.stat().st_size) for f in path.iterdir() if f.name != "manifest.json"
    }
    manifest = Manifest(
        model=model,
        board="qemu-cortex-a72" if triple == ARM else "host",
        triple=triple,
        target={"kind": "llvm"},
        required_features=(),
        glibc_floor=glibc_floor,
        tvm_version="0",
        kernels=(),
        weights_bytes=32,
        state_bytes=32,
        workspace_bytes=320,
        golden_count=golden_count,
        golden_tolerance=0.0,
        files=files,
    )
    write_manifest(path, manifest)
