"""A lowered network as the files that svit-run plays, and what each of its kernel calls takes there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.runtime.bench.runner_process import check_end
from svitkit.runtime.bench.runner_report import RunnerReport, parse_report
from svitkit.runtime.pipeline import Compiled
from svitkit.runtime.program import to_text, weight_bytes
from svitkit.runtime.toolchain import build_runner

INPUTS = "inputs.bin"


def write_program(compiled: Compiled, board: Board, folder: Path) -> None:
    """Writes all that svit-run needs but ``model.so``; the folder may hold that already."""
    runner = build_runner(board.triple)
    shutil.copy2(runner.svit_run, folder / "svit-run")
    shutil.copy2(runner.libsvit, folder / "libsvit.so")
    (folder / "program.txt").write_text(to_text(compiled.program, compiled.plan))
    (folder / "weights.bin").write_bytes(weight_bytes(compiled.program, compiled.plan))


def write_inputs(inputs: NDArray[np.float32], folder: Path) -> None:
    """Writes inputs (N, *input shape) beside a program."""
    (folder / INPUTS).write_bytes(np.ascontiguousarray(inputs, "<f4").tobytes())


def profile_calls(folder: Path, *, count: int, min_time_s: float) -> NDArray[np.float64]:
    """Plays a program on this machine, on one thread, and times its calls.

    Args:
        folder: of :func:`write_program` and :func:`write_inputs`, with ``model.so``.
        count: number of inputs.
        min_time_s: least time that the inferences take.

    Returns:
        (calls,) float64 in ns, medians over the inferences, less what reading the clock takes.
    """
    report = _play(folder, folder / INPUTS, count, min_time_s, "--profile")
    overhead = report.profile_overhead_ns or 0.0
    return np.array([max(call.p50_ns - overhead, 0.0) for call in report.profile or ()])


def time_inferences(folder: Path, inputs: Path, *, count: int, min_time_s: float) -> NDArray[np.float64]:
    """Plays a program or bundle on this machine, on one thread.

    Args:
        folder: of the program.
        inputs: a file of ``count`` inputs.
        count: number of inputs, which are taken in turn.
        min_time_s: least time that the inferences take.

    Returns:
        (rounds, count) float64 in ns; a column has the times of one input.
    """
    samples = np.array(_play(folder, inputs, count, min_time_s).samples_ns, np.float64)
    return samples[: len(samples) // count * count].reshape(-1, count)


def _play(folder: Path, inputs: Path, count: int, min_time_s: float, *options: str) -> RunnerReport:
    command = [str(folder / "svit-run"), str(folder), "--input", str(inputs), "--count", str(count), *options]
    command += ["--warmup", "5", "--repeat", str(max(30, count)), "--min-time-s", str(min_time_s)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    check_end(completed)
    return parse_report(completed.stdout)
