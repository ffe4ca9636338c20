"""Times every kernel call of a program on this machine, to compare estimates with."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.runtime.pipeline import compile_functions
from svitkit.runtime.program import Program

ROUNDS = 60
CHAIN = 20_000_000
# A chain of additions takes one cycle each on every core of today; the empty asm keeps the compiler from folding it.
_CLOCK = """\
unsigned long chain(unsigned long n) {
  unsigned long x = 1;
  for (; n; n -= 10) { for (int i = 0; i < 10; ++i) { x += n; __asm__ volatile("" : "+r"(x)); } }
  return x;
}
"""


def clock_hz() -> float:
    """Returns the core's clock while it works, from a chain of additions."""
    with tempfile.TemporaryDirectory() as work:
        source, library = Path(work) / "clock.c", Path(work) / "clock.so"
        source.write_text(_CLOCK)
        command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        chain = ctypes.CDLL(str(library)).chain
        chain.argtypes = [ctypes.c_ulong]
        return max(CHAIN / _seconds(lambda: chain(CHAIN)) for _ in range(5))


def _seconds(run) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e9


def time_calls(program: Program, board: Board, inputs: NDArray[np.float32]) -> dict[str, float]:
    """Plays a program over and over.

    Args:
        program: the network.
        board: this machine.
        inputs: (N, *input shape) float32, taken in turn.

    Returns:
        Median seconds of every layer's calls, less what an empty call takes.
    """
    import tvm

    library = compile_functions(program, board).jit()
    memory = {buffer: tvm.runtime.tensor(np.zeros(buffer.elements, buffer.dtype)) for buffer in program.buffers()}
    for buffer, content in program.weights.items():
        memory[buffer].copyfrom(np.frombuffer(content, buffer.dtype))
    calls = [(library[call.symbol], [memory[buffer] for buffer in call.buffers]) for call in program.calls]
    samples = np.zeros((ROUNDS, len(calls)))
    for turn in range(-3, ROUNDS):
        memory[program.input].copyfrom(inputs[turn % len(inputs)].ravel())
        for index, (function, arguments) in enumerate(calls):
            start = time.perf_counter_ns()
            function(*arguments, 0, 1)
            samples[max(turn, 0), index] = time.perf_counter_ns() - start
    medians = np.median(samples, axis=0)
    overhead = 0.8 * float(medians.min())
    layers: dict[str, float] = defaultdict(float)
    for call, median in zip(program.calls, medians, strict=True):
        layers[call.layer] += max(float(median) - overhead, 0.0) / 1e9
    return dict(layers)
