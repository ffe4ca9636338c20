"""How often every block of a network's machine code runs, counted by running it: the real code, on real inputs.

The assembly that TVM emits gets a counter for every block and is linked into a bundle, which ``svit-run`` plays, under
qemu where the code is for another processor. So the counts hold for whatever the kernels look like, for the true number
of events, and for every branch.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.assembly import ISAS, Assembly, read_assembly
from benchmarks.program_files import write_program
from svitkit.boards.board import Board, load_board, read_cpus
from svitkit.boards.transports import qemu_command
from svitkit.runtime.bench.runner_process import check_end
from svitkit.runtime.pipeline import Compiled, compile_functions, compile_network
from svitkit.runtime.program import Program
from svitkit.runtime.toolchain import link_shared

TIMEOUT_S = 1800.0
# Assembling is told nothing of the CPU model, so what it may use is said in the file.
_ARCH = {"aarch64-linux-gnu": "\t.arch armv8.2-a+crypto+crc+fp16+dotprod+rcpc+rdm\n", "x86_64-linux-gnu": ""}
_WRITER = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
extern __attribute__((visibility("hidden"))) struct { const uint64_t* counts; uint64_t number; } svit_table;
__attribute__((destructor)) static void write_counts(void) {
  const char* path = getenv("SVIT_COUNTS");
  FILE* file = path ? fopen(path, "wb") : NULL;
  if (!file) return;
  fwrite(svit_table.counts, sizeof(uint64_t), svit_table.number, file);
  fclose(file);
}
"""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A network's code and how it ran.

    Attributes:
        compiled: the network; every call has a function of its own, named ``<kernel>_call<number>``.
        assembly: the code without counters.
        counts: how often each counter's place was reached, an inference on average.
        varying: counters that differ between inputs, so that what they count depends on spikes.
    """

    compiled: Compiled
    assembly: Assembly
    counts: Mapping[int, float]
    varying: frozenset[int]


def board_for(core: str) -> Board:
    """Returns an emulated board with the core, or this machine for ``host``."""
    if core == "host":
        return load_board("host")
    cpu = read_cpus()[core]
    return replace(
        load_board("qemu-cortex-a72"),
        name=f"qemu-{core}",
        mcpu=core,
        triple=cpu.triple,
        llvm_features=cpu.llvm_features,
        required_features=cpu.features,
        cpu_features=cpu.features,
        qemu_cpu=core,
    )


def count_blocks(onnx: Path, board: Board, inputs: NDArray[np.float32], work: Path) -> Counted:
    """Compiles a network for a board and runs it.

    Args:
        onnx: a file that ``svitkit export`` wrote, in sequence mode.
        board: the board; it must be reachable from here.
        inputs: (N, *input shape) float32.
        work: an empty directory.
    """
    return count_compiled(compile_network(onnx, board, work / "as-shipped.so"), board, inputs, work)


def count_compiled(compiled: Compiled, board: Board, inputs: NDArray[np.float32], work: Path) -> Counted:
    """Runs a network that was lowered for a board; see :func:`count_blocks`."""
    compiled = replace(compiled, program=separate_calls(compiled.program))
    assembly = read_assembly(emit_assembly(compiled.program, board), ISAS[board.triple])
    bundle = _bundle(compiled, assembly, board, work)
    first = f"__tvm_ffi_{compiled.program.calls[0].symbol}"
    entry = next(function.blocks[0].counter for function in assembly.functions if function.name == first)
    each = np.stack([_run(bundle, board, x, work) for x in inputs]).astype(np.float64)
    each /= each[:, entry, None]  # a process may run its input more than once
    varying = frozenset(int(number) for number in np.flatnonzero(np.ptp(each, axis=0) > 0))
    counts = dict(enumerate(each.mean(axis=0).tolist()))
    return Counted(compiled=compiled, assembly=assembly, counts=counts, varying=varying)


def separate_calls(program: Program) -> Program:
    """Gives every call a function of its own, so that counters tell layers of one shape apart."""
    names = [f"{call.symbol}_call{index}" for index, call in enumerate(program.calls)]
    functions = {name: program.functions[call.symbol] for name, call in zip(names, program.calls, strict=True)}
    calls = [replace(call, symbol=name) for name, call in zip(names, program.calls, strict=True)]
    return replace(program, functions=functions, calls=calls)


def emit_assembly(program: Program, board: Board) -> str:
    """Returns the assembly of the program's functions, as :mod:`svitkit.runtime.pipeline` makes it."""
    return str(compile_functions(program, board).mod.inspect_source("asm"))


def _bundle(compiled: Compiled, assembly: Assembly, board: Board, work: Path) -> Path:
    bundle = work / "bundle"
    bundle.mkdir()
    (work / "counting.s").write_text(_ARCH[board.triple] + assembly.counting)
    (work / "writer.c").write_text(_WRITER)
    link_shared([work / "counting.s", work / "writer.c"], bundle / "model.so", board.triple)
    write_program(compiled, board, bundle)
    return bundle


def _run(bundle: Path, board: Board, x: NDArray[np.float32], work: Path) -> NDArray[np.uint64]:
    (work / "input.bin").write_bytes(np.ascontiguousarray(x, "<f4").tobytes())
    command = [*(qemu_command(board.qemu_cpu) if board.qemu_cpu else ()), str(bundle / "svit-run"), str(bundle)]
    command += ["--input", str(work / "input.bin"), "--count", "1", "--warmup", "0", "--repeat", "0"]
    env = {**os.environ, "LC_ALL": "C", "SVIT_COUNTS": str(work / "counts.bin")}
    check_end(subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S))
    return np.fromfile(work / "counts.bin", "<u8")
