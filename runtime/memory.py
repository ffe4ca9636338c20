"""Where every tensor lies: weights and states behind one another, activations sharing one workspace."""

from __future__ import annotations

from svitkit.runtime.program import MemoryPlan, Program, last_uses
from svitkit.runtime.view import Buffer

ALIGNMENT = 64
GPU_ALIGNMENT = 256
"""Of a tensor that an OpenCL device reads by itself (CL_DEVICE_MEM_BASE_ADDR_ALIGN is 1024 or 2048 bits on GPUs)."""


def align_up(size: int, alignment: int = ALIGNMENT) -> int:
    """Rounds a size in bytes up; on a CPU to a cache line, which is also the widest vector."""
    return -(-size // alignment) * alignment


def plan_memory(program: Program) -> MemoryPlan:
    """Assigns an offset to every buffer of a program.

    Workspace buffers whose lives do not overlap share bytes: largest first, each at the lowest offset that is
    free during its whole life (greedy by size: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    Inference", 2020).
    """
    offsets: dict[Buffer, int] = {}
    totals = {}
    alignment = ALIGNMENT if program.gpu is None else GPU_ALIGNMENT
    for space in ("weights", "states"):
        end = 0
        for buffer in program.buffers():
            if buffer.space == space:
                offsets[buffer] = end
                end += align_up(buffer.size_bytes, alignment)
        totals[space] = end
    workspace = _plan_workspace(last_uses(program), offsets, alignment)
    return MemoryPlan(offsets, totals["weights"], totals["states"], workspace)


def _plan_workspace(lives: dict[Buffer, tuple[int, int]], offsets: dict[Buffer, int], alignment: int) -> int:
    """Fills in workspace offsets and returns the size of the workspace in bytes."""
    placed: list[tuple[int, int, tuple[int, int]]] = []
    for buffer in sorted(lives, key=lambda buffer: -buffer.size_bytes):
        first, last = lives[buffer]
        busy = sorted((start, end) for start, end, life in placed if life[0] <= last and first <= life[1])
        offset = 0
        for start, end in busy:
            if offset + buffer.size_bytes <= start:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
        placed.append((offset, offset + align_up(buffer.size_bytes, alignment), (first, last)))
    return max((end for _, end, _ in placed), default=0)
