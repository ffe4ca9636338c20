"""Executes kernels in PTX, instruction by instruction for all threads of a launch at once.

Registers are arrays over threads. Of the blocks that threads wait at, the first one in the text is executed next, by
all threads that wait there: threads that a branch has parted meet again as soon as they can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.ptx.instructions import State, Step, as_step
from tests.runtime.ptx.memory import Argument
from tests.runtime.ptx.parser import Block, Kernel, PtxError, parse

Array = NDArray[Any]
_STALE = 0xA5A5A5A5A5A5A5A5  # what is in a register of threads that have not written it


class Module:
    """Kernels that can be launched.

    Args:
        text: PTX.
    """

    def __init__(self, text: str) -> None:
        self.kernels = parse(text)
        self._ready: dict[str, _Ready] = {}

    def launch(self, symbol: str, blocks: int, threads: int, arguments: Sequence[Argument]) -> None:
        """Executes a kernel.

        Args:
            symbol: its name.
            blocks: how many.
            threads: of each block.
            arguments: what its parameters point to.

        Raises:
            PtxError: it does what it must not; the kernel and the instruction are named.
        """
        if symbol not in self._ready:
            self._ready[symbol] = _Ready(self.kernels[symbol])
        with np.errstate(all="ignore"):
            self._ready[symbol].run(blocks, threads, arguments)


class _Ready:
    """A kernel whose instructions are Python functions."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.steps: list[list[tuple[str, Step]]] = [
            [(each.text, as_step(kernel, each)) for each in block.instructions] for block in kernel.blocks
        ]
        self.reads = [block.read_first() for block in kernel.blocks]
        shared = set().union(*self.reads)
        self.writes = [
            shared & {name for each in block.instructions for name in each.written()} for block in kernel.blocks
        ]
        votes = {number for number, block in enumerate(kernel.blocks) if _votes(block)}
        self.keeps_warps = {
            number
            for number, block in enumerate(kernel.blocks)
            if block.falls is not None and votes & kernel.divergent(number)
        }

    def run(self, blocks: int, threads: int, arguments: Sequence[Argument]) -> None:
        """Executes all threads to their end."""
        if len(arguments) != len(self.kernel.parameters):
            raise PtxError(f"{self.kernel.name} has {len(self.kernel.parameters)} parameters, given {len(arguments)}")
        everyone = State(arguments, np.arange(blocks * threads, dtype=np.int32), threads, {})
        end = len(self.kernel.blocks)
        at = np.zeros(blocks * threads, np.int32)
        while (current := int(at.min())) < end:
            active = np.flatnonzero(at == current)
            if len(active) == len(at):
                self._execute(current, everyone)
                at = self._next(current, everyone)
            else:
                state = everyone.some(active, self.reads[current])
                self._execute(current, state)
                _take_over(everyone, state, active, self.writes[current])
                at[active] = self._next(current, state)
        for argument in arguments:
            argument.finish()

    def _execute(self, number: int, state: State) -> None:
        for text, step in self.steps[number]:
            try:
                step(state)
            except PtxError as error:
                raise PtxError(f"{self.kernel.name}, '{text}': {error}") from None
            except KeyError as error:
                raise PtxError(f"{self.kernel.name}, '{text}': nothing was written to {error} before") from None

    def _next(self, number: int, state: State) -> Array:
        """The blocks that threads go to behind a block."""
        block = self.kernel.blocks[number]
        target = len(self.kernel.blocks) if block.target is None else block.target
        if block.guard is None:
            return np.full(len(state.threads), target, np.int32)
        predicate, negated = block.guard
        jumps = state.values[predicate] != negated
        if number in self.keeps_warps:
            self._check_warps(number, state, jumps)
        return np.where(jumps, np.int32(target), np.int32(block.falls))

    def _check_warps(self, number: int, state: State, jumps: Array) -> None:
        """Devices before Volta bring the threads of a warp together behind all that a branch has parted, not before."""
        warps = state.warps
        jumping = np.bincount(warps, weights=jumps)
        if ((jumping > 0) & (jumping < np.bincount(warps))).any():
            raise PtxError(f"{self.kernel.name}: a vote stands where the branch behind block {number} parts a warp")


def _take_over(everyone: State, some: State, active: Array, names: set[str]) -> None:
    """Keeps what some threads have written to registers that other blocks read."""
    for name in names:
        written = some.values[name]
        if name not in everyone.values:
            stale = _STALE & ((1 << 8 * written.itemsize) - 1)
            everyone.values[name] = np.full(len(everyone.threads), stale, written.dtype)
        everyone.values[name][active] = written


def _votes(block: Block) -> bool:
    return any(each.opcode[0] == "vote" for each in block.instructions)
