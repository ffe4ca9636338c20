"""Times every kernel call of a program on this machine, to compare estimates with."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.runtime.kernels.emit import function
from svitkit.runtime.pipeline import compile_functions
from svitkit.runtime.program import Program
from svitkit.runtime.view import Buffer

ROUNDS = 60
EMPTY = "empty"
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
    """Plays a program over and over; see :func:`time_each_call`.

    Returns:
        Median seconds of every layer's calls.
    """
    layers: dict[str, float] = defaultdict(float)
    for call, seconds in zip(program.calls, time_each_call(program, board, inputs), strict=True):
        layers[call.layer] += seconds
    return dict(layers)


def time_each_call(
    program: Program, board: Board, inputs: NDArray[np.float32], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """Plays a program over and over.

    Args:
        program: the network.
        board: this machine.
        inputs: (N, *input shape) float32, taken in turn.
        rounds: how often each call is timed.

    Returns:
        (calls,) float64, median seconds of every call, less what an empty call takes.
    """
    player = load_player(program, board)
    return time_in_turn([(player, inputs)], rounds)[0]


@dataclass(frozen=True)
class Player:
    """A compiled program with its memory, ready to be played in this process."""

    program: Program
    memory: dict[Buffer, Any]
    calls: list[Callable[[], Any]]
    nothing: Callable[[], Any]


def load_player(program: Program, board: Board) -> Player:
    """Compiles a program for this machine."""
    import tvm
    from tvm.script.ir_builder import tirx as T

    empty = function([("out", 1, "float32")], lambda out: T.buffer_store(out, T.float32(0), [0]))
    library = compile_functions(replace(program, functions={**program.functions, EMPTY: empty}), board).jit()
    memory = {buffer: tvm.runtime.tensor(np.zeros(buffer.elements, buffer.dtype)) for buffer in program.buffers()}
    for buffer, content in program.weights.items():
        memory[buffer].copyfrom(np.frombuffer(content, buffer.dtype))
    calls = [partial(library[call.symbol], *[memory[b] for b in call.buffers], 0, 1) for call in program.calls]
    return Player(program, memory, calls, partial(library[EMPTY], tvm.runtime.tensor(np.zeros(1, np.float32)), 0, 1))


def time_in_turn(
    players: Sequence[tuple[Player, NDArray[np.float32]]], rounds: int = ROUNDS
) -> list[NDArray[np.float64]]:
    """Times the calls of several programs on their inputs; see :func:`time_each_call`.

    In every round one program is played after the other, so that none finds its weights in the caches that it would
    lose them from in a large network.
    """
    samples = [np.zeros((rounds, len(player.calls) + 1)) for player, _ in players]
    for turn in range(-2, rounds):
        for (player, inputs), sample in zip(players, samples, strict=True):
            player.memory[player.program.input].copyfrom(inputs[turn % len(inputs)].ravel())
            for index, call in enumerate((*player.calls, player.nothing)):
                start = time.perf_counter_ns()
                call()
                sample[max(turn, 0), index] = time.perf_counter_ns() - start
    medians = [np.median(sample, axis=0) for sample in samples]
    return [np.maximum(median[:-1] - median[-1], 0.0) / 1e9 for median in medians]
