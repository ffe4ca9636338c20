"""What a bundle for a GPU has in the place of machine code, and how it is described."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.files import write_text
from svitkit.manifest import GpuPlan, PrecisionTrial
from svitkit.runtime.golden import check_golden_inputs
from svitkit.runtime.gpu_code import compile_gpu
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.pipeline import Compiled, lower_network
from svitkit.runtime.precision import choose_precision, half_layers, try_rounded, write_rounded
from svitkit.runtime.program import GpuTarget, Precision, Program


@dataclass(frozen=True, kw_only=True)
class GpuBuild:
    """A network compiled for a GPU.

    Attributes:
        compiled: the network, its plan and its memory.
        reference: an exported file that computes what the kernels compute: with fp16 weights where they have them.
        plan: the description.
    """

    compiled: Compiled
    reference: Path
    plan: GpuPlan


def compile_for_gpu(
    onnx_path: Path,
    board: Board,
    folder: Path,
    *,
    inputs: NDArray[np.float32],
    scratch: Path,
    stores_sparse: bool = True,
) -> GpuBuild:
    """Compiles an exported network for a board's GPU, and chooses the precision of its weights.

    Args:
        onnx_path: a file that ``svitkit export`` wrote.
        board: the board; it must have a GPU.
        folder: where the kernels are written.
        inputs: (N, *input shape) float32, on which fp16 weights are compared with fp32 ones.
        scratch: a folder for files that are not kept.
        stores_sparse: whether weights of which most are 0 are stored without zeros.
    """
    graph = import_onnx(onnx_path)
    check_golden_inputs(graph.metadata, inputs)
    program = lower_network(graph, board, stores_sparse=stores_sparse, gpu=_target(board, "fp16"))
    reference, trial = onnx_path, None
    layers = half_layers(program)
    if layers:
        reference = scratch / "rounded.onnx"
        write_rounded(onnx_path, layers, reference)
        trial = try_rounded(onnx_path, reference, inputs)
    if trial is None or choose_precision(trial) == "fp32":
        reference = onnx_path
        program = lower_network(graph, board, stores_sparse=stores_sparse, gpu=_target(board, "fp32"))
    target = _gpu_of(program)
    write_text(folder / target.kernels, compile_gpu(program, board.triple))
    compiled = Compiled(graph, program, plan_memory(program))
    return GpuBuild(compiled=compiled, reference=reference, plan=_describe(program, trial))


def _target(board: Board, precision: Precision) -> GpuTarget:
    gpu = board.gpu
    assert gpu is not None
    return GpuTarget(api=gpu.api, architecture=gpu.architecture, allows_cpu=gpu.allows_cpu, precision=precision)


def _gpu_of(program: Program) -> GpuTarget:
    assert program.gpu is not None
    return program.gpu


def _describe(program: Program, trial: PrecisionTrial | None) -> GpuPlan:
    target = _gpu_of(program)
    launches = [call for call in program.calls if not call.prepares]
    return GpuPlan(
        api=target.api,
        architecture=target.architecture,
        allows_cpu=target.allows_cpu,
        precision=target.precision,
        trial=trial,
        launches=len(launches),
        prepared=len(program.calls) - len(launches),
        bytes_moved=sum(buffer.size_bytes for call in launches for buffer in set(call.buffers)),
    )
