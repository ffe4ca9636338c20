"""Builds a bundle: one directory that runs on a board with nothing installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.boards.gpu import Device
from svitkit.files import sha256, staged_directory, write_bytes, write_text
from svitkit.manifest import FileEntry, GpuPlan, KernelChoice, Manifest, SparseWeights, write_manifest
from svitkit.runtime.glibc import check_glibc
from svitkit.runtime.golden import check_golden_inputs, golden_outputs
from svitkit.runtime.gpu_build import compile_for_gpu
from svitkit.runtime.pipeline import Compiled, compile_network
from svitkit.runtime.program import Chosen, Expansion, to_text, weight_bytes
from svitkit.runtime.program_facts import fact_lines
from svitkit.runtime.toolchain import build_runner

GOLDEN_TOLERANCE = 1e-3
PROGRAMS = ("model.so", "svit-run", "libsvit.so")


def build_bundle(
    onnx_path: Path,
    board: Board,
    out: Path,
    *,
    golden: NDArray[np.float32],
    stores_sparse: bool = True,
    device: Device = "cpu",
    trial: NDArray[np.float32] | None = None,
) -> Manifest:
    """Compiles an exported network for a board and gathers all that runs it.

    Args:
        onnx_path: a file that ``svitkit export`` wrote.
        board: the board to build for.
        out: the bundle directory; an existing one is replaced once the new one is whole.
        golden: (N, *input shape) float32, inputs of the check on the board; see :mod:`svitkit.runtime.golden`.
        stores_sparse: whether weights of which most are 0 are stored without zeros (:mod:`svitkit.runtime.sparse`).
        device: what it runs on, the CPU or the GPU of the board.
        trial: inputs like ``golden``, on which the precision of weights on a GPU is chosen; the golden ones if None.

    Raises:
        ConfigError: the file is damaged, or the golden inputs have the wrong shape.
        UnsupportedError: the network holds an operator that has no kernel.
        VerificationError: a program needs a newer glibc than the board's floor.
    """
    with staged_directory(out) as bundle, TemporaryDirectory(prefix="svit-") as scratch:
        if device == "gpu":
            inputs = golden if trial is None else trial
            gpu = compile_for_gpu(
                onnx_path, board, bundle, inputs=inputs, scratch=Path(scratch), stores_sparse=stores_sparse
            )
            compiled, reference, plan = gpu.compiled, gpu.reference, gpu.plan
        else:
            compiled = compile_network(onnx_path, board, bundle / "model.so", stores_sparse=stores_sparse)
            reference, plan = onnx_path, None
        check_golden_inputs(compiled.graph.metadata, golden)
        runner = build_runner(board.triple)
        shutil.copy2(runner.svit_run, bundle / "svit-run")
        shutil.copy2(runner.libsvit, bundle / "libsvit.so")
        check_glibc([path for name in PROGRAMS if (path := bundle / name).exists()], board.glibc)
        write_parts(compiled, reference, board, bundle, golden)
        manifest = make_manifest(compiled, board, bundle, golden_count=len(golden), glibc_floor=board.glibc, gpu=plan)
        write_manifest(bundle, manifest)
    return manifest


def write_parts(compiled: Compiled, onnx_path: Path, board: Board, folder: Path, golden: NDArray[np.float32]) -> None:
    """Writes what is not machine code: the program, the weights, and the golden inputs with their outputs."""
    write_text(folder / "program.txt", _program_text(compiled, board, len(golden)))
    write_bytes(folder / "weights.bin", weight_bytes(compiled.program, compiled.plan))
    write_bytes(folder / "golden_input.bin", np.ascontiguousarray(golden, np.float32).tobytes())
    expected = golden_outputs(onnx_path, compiled.graph.metadata, golden)
    write_bytes(folder / "golden_output.bin", expected.tobytes())


def _program_text(compiled: Compiled, board: Board, golden_count: int) -> str:
    facts = fact_lines(
        compiled.graph.metadata,
        features=_required_features(compiled, board),
        golden_count=golden_count,
        golden_tolerance=GOLDEN_TOLERANCE,
    )
    return to_text(compiled.program, compiled.plan, facts)


def _required_features(compiled: Compiled, board: Board) -> tuple[str, ...]:
    """CPU features that the network's machine code may use; kernels for a GPU use none."""
    return board.required_features if compiled.program.gpu is None else ()


def _kernel_choice(chosen: Chosen) -> KernelChoice:
    return KernelChoice(
        layer=chosen.layer,
        kernel=chosen.kernel,
        reason=chosen.reason,
        macs=chosen.macs,
        input_density=chosen.input_density,
        predicted_ns=chosen.predicted_ns,
    )


def _sparse_weights(expansion: Expansion) -> SparseWeights:
    return SparseWeights(
        layer=expansion.layer,
        stored_bytes=expansion.stored_bytes,
        expanded_bytes=expansion.out.size_bytes,
    )


def make_manifest(
    compiled: Compiled,
    board: Board,
    folder: Path,
    *,
    golden_count: int,
    glibc_floor: str | None,
    gpu: GpuPlan | None = None,
) -> Manifest:
    """Describes a compiled network and the files in a folder."""
    import tvm

    return Manifest(
        model=compiled.graph.metadata,
        board=board.name,
        triple=board.triple,
        target=board.tvm_target() if compiled.program.gpu is None else compiled.program.gpu.tvm_target(),
        required_features=_required_features(compiled, board),
        glibc_floor=glibc_floor,
        tvm_version=tvm.__version__,
        kernels=tuple(_kernel_choice(chosen) for chosen in compiled.program.kernels),
        floating_point=compiled.program.floating_point(),
        sparse=tuple(_sparse_weights(expansion) for expansion in compiled.program.expansions),
        gpu=gpu,
        weights_bytes=compiled.plan.weights_bytes,
        state_bytes=compiled.plan.states_bytes,
        workspace_bytes=compiled.plan.workspace_bytes,
        golden_count=golden_count,
        golden_tolerance=GOLDEN_TOLERANCE,
        files={
            path.name: FileEntry(sha256=sha256(path), size=path.stat().st_size) for path in sorted(folder.iterdir())
        },
    )
