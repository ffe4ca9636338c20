"""A network whose logits are its input, so that they show what becomes of bytes: (3, 16, 16) in, 768 numbers out."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svitkit.data.dataset import Dataset, Split, normalize
from svitkit.manifest import Mode, ModelMetadata, Normalization, TensorSpec
from svitkit.runtime.program_facts import fact_lines
from svitkit.runtime.toolchain import build_runner, shared_linker
from tests.runtime import bundles

SHAPE = (3, 16, 16)  # every one of the 256 bytes in each channel
SIZE = 768
NORMALIZATION = Normalization(mean=(0.4914, 0.4822, 0.1), std=(0.2023, 0.1994, 1.7))


def echo() -> object:
    """Returns a kernel that copies the input to the output."""
    import tvm
    from tvm.script import tirx as T

    @T.prim_func
    def copy(x: T.Buffer((768,), "float32"), y: T.Buffer((768,), "float32"), part: T.int32, parts: T.int32):
        T.func_attr({"global_symbol": "copy", "tir.noalias": True})
        for i in range(768):
            y[i] = x[i]

    return tvm.IRModule({"copy": copy})


def metadata(mode: Mode = "sequence", *, static: bool = True) -> ModelMetadata:
    shape = (1, *SHAPE) if mode == "sequence" else (1, 1, *SHAPE)
    if not static:
        shape = (2, 1, 3, 8, 16)  # as many numbers, in two frames
    return dataclasses.replace(
        bundles.metadata(1 if mode == "sequence" and static else 2),
        mode=mode,
        static_input=static,
        input=TensorSpec(name="input", shape=shape),
        output=TensorSpec(name="logits", shape=(1, SIZE)),
        lif_layers=(),
        normalization=NORMALIZATION if static else Normalization(mean=(0.0,) * 3, std=(1.0,) * 3),
        class_names=tuple(f"number {index}" for index in range(SIZE)),
    )


def write_program(bundle: Path, triple: str, model: ModelMetadata, *, with_facts: bool = True) -> Path:
    lines = ["svit-program 2", "sizes weights 0 states 0 workspace 6144", "threads 1"]
    lines += [f"tensor {i} {name} float32 workspace {3072 * i} 1 768" for i, name in enumerate(("input", "logits"))]
    lines += ["input 0", "output 1", "call copy echo whole 2 0 1"]
    if with_facts:
        lines += fact_lines(model, features=(), golden_count=0, golden_tolerance=0.0)
    (bundle / "program.txt").write_text("\n".join([*lines, "end\n"]))
    bundles.seal(bundle, triple, model)
    return bundle


def make_bundle(path: Path, triple: str) -> Path:
    path.mkdir()
    bundles.compile_code(path / "model.so", triple, shared_linker(triple), echo())
    runner = build_runner(triple)
    shutil.copy(runner.svit_run, path / "svit-run")
    shutil.copy(runner.libsvit, path / "libsvit.so")
    (path / "weights.bin").write_bytes(b"")
    return write_program(path, triple, metadata())


def trained(frame: NDArray[np.uint8], model: ModelMetadata) -> NDArray[np.float32]:
    """What training makes of a frame, in a row."""
    nothing = Split(x=frame[None], y=np.zeros(1, np.int64))
    dataset = Dataset(
        name="bytes",
        train=nothing,
        validation=nothing,
        test=nothing,
        normalization=model.normalization,
        class_names=("a", "b"),
        shape=SHAPE,
        static=model.static_input,
    )
    return normalize(frame, dataset).reshape(1, SIZE)
