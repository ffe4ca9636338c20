"""How the weights of a layer lie in memory for a kernel that adds one row per active input.

Rows are cut into panels of output channels, and a panel's rows into segments that fit the near cache. Integers are
added in one of three ways. 4-bit weights stay in bytes until a group of rows is complete. Others are widened to 16 bits
one by one, or two channels share a 16-bit word ``high * 256 + low + 128``: with S the sum of the words of n rows and H
that of the words shifted right by 8, H is the sum of the high channel and S - 256 H - 128 n that of the low one, exact
modulo 2**16, and nothing needs widening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from svitkit.runtime.kernels.linear import LinearShape
from svitkit.runtime.kernels.lists import SEARCH, ListSpec
from svitkit.runtime.kernels.panels import panel_runs, panels
from svitkit.runtime.kernels.registers import Layout, layout

Addition = Literal["float", "wide", "narrow", "words"]
LOW = 128  # the low channel of a word is stored as an unsigned byte, this much above its value


@dataclass(frozen=True)
class RowsSpec:
    """How a layer is computed by rows.

    Attributes:
        shape: the layer.
        lists: its input's lists; they are cut as the segments are.
        lanes: channels of a full panel.
        chunk: channels of one vector statement.
        group: rows that are added at once.
        addition: how integers are added: ``narrow`` if a group's sum fits 8 bits, ``wide`` one by one in 16 bits, or
            two channels in ``words``; ``float`` for float32.
        taps: taps of one segment; 1 where a tap has several chunks.
        block: neighbouring positions that share the lists joined or the scratch.
        wide: whether sums over all digits and segments need 32 bits; one digit of one segment never does.
        parts: most parts that run at once.
        ahead: whether the next panel is fetched while one is worked on, of weights that no near cache holds.
    """

    shape: LinearShape
    lists: ListSpec
    lanes: int
    chunk: int
    group: int
    addition: Addition
    taps: int
    block: int
    wide: bool
    parts: int
    ahead: bool

    @property
    def joins(self) -> bool:
        """Whether lists of several taps are joined."""
        return not self.shape.window.is_pointwise

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """Runs of equal segments: how many, and the rows of each."""
        if self.lists.chunks > 1:
            return tuple((count * self.shape.window.taps, length) for _, count, length in self.lists.runs)
        full, rest = divmod(self.shape.window.taps, self.taps)
        inputs = self.shape.inputs
        return ((full, self.taps * inputs),) + (((1, rest * inputs),) if rest else ())

    @property
    def count(self) -> int:
        """Number of segments."""
        return sum(count for count, _ in self.segments)

    @property
    def rows(self) -> int:
        """Rows of a panel: every segment ends with a zero row."""
        return sum(count * (rows + 1) for count, rows in self.segments)

    def row(self, width: int) -> int:
        """Stored elements of a row of a panel."""
        return -(-width // 2) if self.addition == "words" else width

    def channels(self, width: int) -> Layout:
        """The vectors of a panel; no vector has channels of both halves of words."""
        row = layout(self.row(width), self.chunk)
        if self.addition != "words" or width == 1:
            return row
        return row + tuple((self.row(width) + at, part) for at, part in row)

    @property
    def weights(self) -> int:
        """Stored elements of all weights."""
        return self.rows * sum(run.count * self.row(run.width) for run in panel_runs(self.shape.outputs, self.lanes))

    @property
    def weight_dtype(self) -> str:
        """Type of the stored elements."""
        return "int16" if self.addition == "words" else self.shape.weight_dtype

    @property
    def sum_dtype(self) -> str:
        """Type of the sums of one digit of one segment."""
        return "int16" if self.shape.integer else "float32"

    @property
    def total_dtype(self) -> str:
        """Type of the sums over all digits and segments."""
        return "int32" if self.wide else self.sum_dtype

    @property
    def joined_capacity(self) -> int:
        """Room for one joined list."""
        return -(-(max(rows for _, rows in self.segments) + self.group) // SEARCH) * SEARCH + SEARCH

    @property
    def joined_lists(self) -> int:
        """Joined lists of one block."""
        return self.block * self.shape.in_times * self.count * self.lists.digits

    @property
    def scratch(self) -> int:
        """Sums of one block that wait between segments; 0 where there is one segment."""
        return self.block * self.shape.in_times * self.lanes if self.count > 1 else 0


def pack_rows(spec: RowsSpec, weight: NDArray[Any]) -> NDArray[Any]:
    """Packs (taps * inputs, outputs) float32 or int8 panel by panel, and each panel segment by segment.

    Returns:
        (spec.rows * outputs,) of the same type; every segment's rows are followed by a row of zeros.
    """
    outputs = weight.shape[1]
    pack = _in_words if spec.addition == "words" else np.ravel
    taps = weight.reshape(spec.shape.window.taps, spec.shape.inputs, outputs)
    if spec.lists.chunks > 1:
        pieces = [
            tap[first * spec.lists.chunk :][c * length : (c + 1) * length]
            for first, count, length in spec.lists.runs
            for tap in taps
            for c in range(count)
        ]
    else:
        pieces = [taps[at : at + spec.taps].reshape(-1, outputs) for at in range(0, len(taps), spec.taps)]
    zero = np.zeros((1, outputs), weight.dtype)
    rows = np.concatenate([part for piece in pieces for part in (piece, zero)])
    return np.concatenate([pack(panel) for panel in panels(rows, panel_runs(rows.shape[1], spec.lanes))])


def _in_words(rows: NDArray[Any]) -> NDArray[Any]:
    """Packs a panel (rows, width) two channels to a word: the first half of the channels low, the second half high."""
    width = rows.shape[1]
    half = -(-width // 2)
    words = rows[:, :half].astype(np.int16) + LOW
    words[:, : width - half] += rows[:, half:].astype(np.int16) * 256
    return words.ravel()
