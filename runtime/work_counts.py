"""What a linear kernel does, counted: the turns, register operations and list visits that its time is made of.

The other kernels are counted by :mod:`svitkit.runtime.call_counts`. Counts are expected values for one inference; what
each of them costs is in :mod:`svitkit.runtime.cost_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, pi, prod, sqrt

from svitkit.runtime.density import Density
from svitkit.runtime.kernels.dense import QUAD, DenseSpec
from svitkit.runtime.kernels.linear import LinearShape, Window
from svitkit.runtime.kernels.lists import SEARCHES, TABLE_BITS, ListSpec
from svitkit.runtime.kernels.panels import panel_runs
from svitkit.runtime.kernels.row_layout import RowsSpec

Counts = Mapping[str, float]
FLOAT_BYTES = 4
LINE_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Sizes on a CPU that decide what a kernel does how often.

    Attributes:
        register_bytes: a vector register.
        l1_bytes, l2_bytes: the caches that one core finds first.
    """

    register_bytes: int
    l1_bytes: int
    l2_bytes: int


def list_counts(spec: ListSpec) -> Counts:
    """Counts the search for active inputs: it looks at every input, whatever its value."""
    places = prod(spec.extents) * spec.digits
    sizes = SEARCHES if spec.search == "compress" else (TABLE_BITS,)
    searches = tail = 0
    for _, count, length in spec.runs:
        for size in sizes:
            searches += count * (length // size)
            length %= size
        tail += count * length
    return {
        "call": 1,
        "list.list": spec.lists,
        f"list.{spec.search}": places * searches,
        "list.tail": places * tail,
    }


def rows_counts(spec: RowsSpec, density: Density, memory: Memory) -> Counts:
    """Counts a layer that adds one row per active input; its lists are counted by themselves.

    Args:
        spec: how the layer is computed.
        density: how often its inputs have which value.
        memory: sizes on the CPU.
    """
    shape = spec.shape
    kind = "int4" if spec.addition == "narrow" else "int8" if shape.integer else "fp32"
    row_bytes = {"int4": 1, "int8": 2, "fp32": 4}[kind]
    item_bytes = 1 if shape.integer else FLOAT_BYTES
    panels, registers = _panels(shape.outputs, spec.lanes, row_bytes, memory.register_bytes)
    _, totals = _panels(shape.outputs, spec.lanes, 4 if spec.wide or kind == "fp32" else 2, memory.register_bytes)
    visits = shape.positions * shape.in_times * spec.count
    entries = [shape.inputs * mean_taps(shape.window, shape.out_extents) / spec.count * d for d in density.digits]
    groups = sum(expected_groups(each, spec.group) for each in entries) * visits
    digits = len(density.digits)
    passes = (digits if digits > 1 or spec.wide else 0) + (2 if spec.count > 1 else 0)
    lines = groups * spec.group * shape.outputs * item_bytes / LINE_BYTES
    weights = spec.rows * shape.outputs * item_bytes
    segment = weights / spec.count / max(panels, 1)
    counts = {
        f"rows_{kind}.turn": groups * panels,
        f"rows_{kind}.row": groups * spec.group * registers,
        "rows.list": visits * digits * panels,
        "rows.total": visits * passes * totals,
        "rows.l2_line": lines * _beyond(segment, memory.l1_bytes),
        "weights.line": weights / LINE_BYTES,
        "branch.miss": visits * panels * sum(missed_ends(each, spec.group) for each in entries),
        **_epilogue(shape, spec.lanes, memory.register_bytes),
    }
    if spec.joins:
        walks = shape.positions / spec.block
        counts["rows.l3_line"] = min(lines, walks * weights / LINE_BYTES) * _beyond(weights, memory.l2_bytes)
        joined = shape.positions * shape.in_times * shape.window.taps * spec.lists.chunks
        empty = [exp(-spec.lists.chunk * digit) for digit in density.digits]
        counts["rows.join"] = joined * digits
        counts["branch.miss"] += joined * sum(2 * share * (1 - share) for share in empty)
    return counts


def dense_counts(spec: DenseSpec, memory: Memory) -> Counts:
    """Counts a layer that visits every input, whatever its value.

    Args:
        spec: how the layer is computed.
        memory: sizes on the CPU.
    """
    shape = spec.shape
    taps = mean_taps(shape.window, shape.out_extents)
    counts: dict[str, float] = dict(_epilogue(shape, spec.lanes, memory.register_bytes))
    tile = min(spec.times, shape.in_times) * spec.block
    kind = spec.dot or ("int8" if shape.integer else "fp32")
    visits = shape.positions * shape.in_times * taps * (shape.inputs // QUAD if spec.dot else shape.inputs)
    for run in spec.runs:
        registers = -(-run.width * FLOAT_BYTES // memory.register_bytes)
        for name, count in (("product", registers), ("load", registers / tile), ("input", 1.0)):
            key = f"dense_{kind}.{name}"
            counts[key] = counts.get(key, 0.0) + run.count * visits * count
        tiles = shape.positions * shape.in_times / tile * shape.window.taps * run.count
        counts["dense.tile"] = counts.get("dense.tile", 0.0) + tiles
    item_bytes = 1 if shape.integer else FLOAT_BYTES
    weights = shape.window.taps * shape.inputs * shape.outputs * item_bytes
    walks = shape.positions * shape.in_times * taps / shape.window.taps / tile
    panel = weights * min(spec.lanes, shape.outputs) / shape.outputs
    counts["dense.l2_line"] = walks * weights / LINE_BYTES * _beyond(panel, memory.l1_bytes)
    counts["weights.line"] = weights / LINE_BYTES
    return counts


def _beyond(size: float, cache_bytes: int) -> float:
    """Share of the loads from a piece of memory that miss a cache, if the piece is walked over and over."""
    return max(1.0 - cache_bytes / size, 0.0) if size else 0.0


def _epilogue(shape: LinearShape, lanes: int, register_bytes: int) -> dict[str, float]:
    """Counts what follows the sums."""
    panels, registers = _panels(shape.outputs, lanes, FLOAT_BYTES, register_bytes)
    steps = shape.timesteps if shape.lif else shape.in_times
    name = "neuron" if shape.lif else "current"
    return {"call": 1, "position": shape.positions * panels, name: shape.positions * steps * registers}


def _panels(channels: int, lanes: int, item_bytes: int, register_bytes: int) -> tuple[int, int]:
    """Number of panels, and of registers that hold all channels; a narrow panel takes a whole register."""
    runs = panel_runs(channels, lanes)
    registers = sum(run.count * -(-run.width * item_bytes // register_bytes) for run in runs)
    return sum(run.count for run in runs), registers


def expected_groups(entries: float, group: int) -> float:
    """Groups that a list with so many entries on average is filled up to: half a group more, unless it is empty."""
    return entries / group + (1.0 - exp(-entries)) * (group - 1) / (2 * group)


def missed_ends(entries: float, group: int) -> float:
    """Share of lists with so many entries on average whose end a branch predictor misses.

    At best it expects the most frequent number of groups. With the entries distributed as Poisson says, that number
    has a probability of about 1 / sqrt(1 + 2 pi variance), and not less than that of an empty list.
    """
    return 1.0 - max(exp(-entries), 1.0 / sqrt(1.0 + 2.0 * pi * entries / group**2))


def mean_taps(window: Window, out_extents: tuple[int, ...]) -> float:
    """Positions under the kernel that lie inside the image, on average over the output."""
    if window.is_pointwise:
        return 1.0
    taps = 1.0
    geometry = zip(window.in_extents, window.kernel, window.stride, window.padding, out_extents, strict=True)
    for extent, kernel, stride, pad, outputs in geometry:
        starts = [index * stride - pad for index in range(outputs)]
        inside = sum(0 <= start + offset < extent for start in starts for offset in range(kernel))
        taps *= inside / max(outputs, 1)
    return taps
