"""What shapes the kernels on a CPU: width of its vectors, its caches, and the instructions that some CPUs have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from svitkit.boards.board import Board
from svitkit.runtime.kernels.dense import Dot
from svitkit.runtime.kernels.lists import Search


@dataclass(frozen=True)
class VectorUnit:
    """The vector unit of a CPU, as far as kernels differ by it.

    Attributes:
        float_lanes, integer_lanes: channels of a panel of float32 and of int8 weights that are added row by row; its
            sums and potentials together fill half the registers.
        dense_lanes: channels of a panel whose sums of ``dense_rows`` inputs fill half the registers.
        dense_rows: inputs whose sums are in registers at once in a dense layer.
        chunk: channels of one vector statement.
        word_chunk: the same where two channels share a 16-bit word; 0 where the processor widens bytes as it adds them.
        group, narrow_group: rows of integers that are added at once, widened and in bytes.
        near_bytes: weights of a layer beyond which they come from a far cache or memory each time.
        segment_bytes: weights that stay in the cache while a block of positions passes by.
        search: how active inputs are found.
        dot: the instruction for dense integer layers, or None.
    """

    float_lanes: int
    integer_lanes: int
    dense_lanes: int
    dense_rows: int
    chunk: int
    word_chunk: int
    group: int
    narrow_group: int
    near_bytes: int
    segment_bytes: int
    search: Search
    dot: Dot | None


# Private level 2 caches of at least 1 MiB; a smaller one still holds half of such a segment's rows.
_AVX512 = VectorUnit(
    float_lanes=64,
    integer_lanes=128,
    dense_lanes=64,
    dense_rows=4,
    chunk=64,
    word_chunk=32,
    group=2,
    narrow_group=8,
    near_bytes=256 * 1024,
    segment_bytes=256 * 1024,
    search="table",
    dot=None,
)
_AVX2 = VectorUnit(
    float_lanes=32,
    integer_lanes=64,
    dense_lanes=16,
    dense_rows=4,
    chunk=32,
    word_chunk=16,
    group=2,
    narrow_group=16,
    near_bytes=128 * 1024,
    segment_bytes=96 * 1024,
    search="table",
    dot=None,
)
# Level 1 caches of 32 KiB; level 2 is shared by the cores.
_NEON = VectorUnit(
    float_lanes=32,
    integer_lanes=64,
    dense_lanes=16,
    dense_rows=4,
    chunk=64,
    word_chunk=0,
    group=2,
    narrow_group=8,
    near_bytes=256 * 1024,
    segment_bytes=24 * 1024,
    search="table",
    dot=None,
)


def vector_unit(board: Board) -> VectorUnit:
    """Returns what shapes the kernels on a board's CPU."""
    features = set(board.required_features)
    if board.triple.startswith("aarch64"):
        return replace(_NEON, dot="sdot") if "asimddp" in features else _NEON
    if "avx512bw" not in features:
        return _AVX2
    search: Search = "compress" if "avx512_vbmi2" in features else "table"
    return replace(_AVX512, search=search, dot="vnni" if "avx512_vnni" in features else None)
