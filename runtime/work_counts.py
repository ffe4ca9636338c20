"""What a kernel does, counted: the turns, register operations and list visits that its time is made of.

Counts are expected values for one inference. What each of them costs is in :mod:`svitkit.runtime.cost_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, prod

from svitkit.runtime.density import Density
from svitkit.runtime.kernels.dense import DOT_INSTRUCTIONS, QUAD, DenseSpec
from svitkit.runtime.kernels.linear import LinearShape, Window
from svitkit.runtime.kernels.lists import SEARCH, TABLE_BITS, ListSpec
from svitkit.runtime.kernels.panels import panel_runs
from svitkit.runtime.kernels.rows import RowsSpec

Counts = Mapping[str, float]
FLOAT_BYTES = 4


def list_counts(spec: ListSpec) -> Counts:
    """Counts the search for active inputs: it looks at every input, whatever its value."""
    places = prod(spec.extents) * spec.digits
    step = SEARCH if spec.search == "compress" else TABLE_BITS
    return {
        "list.list": spec.lists,
        f"list.{spec.search}": places * sum(count * (length // step) for _, count, length in spec.runs),
        "list.tail": places * sum(count * (length % step) for _, count, length in spec.runs),
    }


def rows_counts(spec: RowsSpec, density: Density, register_bytes: int) -> Counts:
    """Counts a layer that adds one row per active input; its lists are counted by themselves.

    Args:
        spec: how the layer is computed.
        density: how often its inputs have which value.
        register_bytes: size of a vector register.
    """
    shape = spec.shape
    kind = "int4" if spec.narrow else "int8" if shape.integer else "fp32"
    row_bytes = {"int4": 1, "int8": 2, "fp32": 4}[kind]
    panels, registers = _panels(shape.outputs, spec.lanes, row_bytes, register_bytes)
    _, totals = _panels(shape.outputs, spec.lanes, 4 if spec.wide or kind == "fp32" else 2, register_bytes)
    visits = shape.positions * shape.in_times * spec.count
    listed = shape.inputs * mean_taps(shape.window, shape.out_extents) / spec.count
    groups = sum(expected_groups(listed * digit, spec.group) for digit in density.digits) * visits
    digits = len(density.digits)
    passes = (digits if digits > 1 or spec.wide else 0) + (2 if spec.count > 1 else 0)
    counts = {
        f"rows_{kind}.turn": groups * panels,
        f"rows_{kind}.row": groups * spec.group * registers,
        "rows.list": visits * digits * panels,
        "rows.total": visits * passes * totals,
        **_epilogue(shape, spec.lanes, register_bytes),
    }
    if spec.joins:
        counts["rows.join"] = shape.positions * shape.in_times * shape.window.taps * spec.lists.chunks * digits
    return counts


def dense_counts(spec: DenseSpec, register_bytes: int) -> Counts:
    """Counts a layer that visits every input, whatever its value.

    Args:
        spec: how the layer is computed.
        register_bytes: size of a vector register.
    """
    shape = spec.shape
    taps = mean_taps(shape.window, shape.out_extents)
    counts: dict[str, float] = dict(_epilogue(shape, spec.lanes, register_bytes))
    tile = min(spec.times, shape.in_times) * spec.block
    for run in panel_runs(shape.outputs, spec.lanes):
        is_dot = spec.dot is not None and run.width >= DOT_INSTRUCTIONS[spec.dot][1]
        kind = _dense_kind(spec, is_dot=is_dot)
        registers = -(-run.width * FLOAT_BYTES // register_bytes)
        visits = shape.positions * shape.in_times * taps * (shape.inputs // QUAD if is_dot else shape.inputs)
        for name, count in (("product", registers), ("load", registers / tile), ("input", 1.0)):
            key = f"dense_{kind}.{name}"
            counts[key] = counts.get(key, 0.0) + run.count * visits * count
        tiles = shape.positions * shape.in_times / tile * shape.window.taps * run.count
        counts["dense.tile"] = counts.get("dense.tile", 0.0) + tiles
    return counts


def _dense_kind(spec: DenseSpec, *, is_dot: bool) -> str:
    if is_dot:
        return str(spec.dot)
    return "int8" if spec.shape.integer else "fp32" if spec.shape.in_dtype == "float32" else "fp32_bytes"


def _epilogue(shape: LinearShape, lanes: int, register_bytes: int) -> dict[str, float]:
    """Counts what follows the sums."""
    panels, registers = _panels(shape.outputs, lanes, FLOAT_BYTES, register_bytes)
    steps = shape.timesteps if shape.lif else shape.in_times
    name = "neuron" if shape.lif else "current"
    return {"position": shape.positions * panels, name: shape.positions * steps * registers}


def _panels(channels: int, lanes: int, item_bytes: int, register_bytes: int) -> tuple[int, int]:
    """Number of panels, and of registers that hold all channels; a narrow panel takes a whole register."""
    runs = panel_runs(channels, lanes)
    registers = sum(run.count * -(-run.width * item_bytes // register_bytes) for run in runs)
    return sum(run.count for run in runs), registers


def expected_groups(entries: float, group: int) -> float:
    """Groups that a list with so many entries on average is filled up to: half a group more, unless it is empty."""
    return entries / group + (1.0 - exp(-entries)) * (group - 1) / (2 * group)


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
