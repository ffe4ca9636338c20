"""Max pooling over space, on spikes, counts or real values."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import Expr, all_of, assign, dot, function, nest, shared_nest, when
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.panels import panel_runs

LANES = 32


@dataclass(frozen=True)
class PoolSpec:
    """Shapes of a pooling; ``outer`` are the batch axes (time), ``channels`` the innermost axis."""

    window: Window
    out_extents: tuple[int, ...]
    outer: tuple[int, ...]
    channels: int
    in_strides: tuple[int, ...]
    in_outer: tuple[int, ...]
    in_channel: int
    in_offset: int
    in_elements: int
    out_strides: tuple[int, ...]
    out_outer: tuple[int, ...]
    out_elements: int
    dtype: str


def build_pool(spec: PoolSpec) -> Expr:
    """Returns the TIR function; arguments: x, out."""
    lowest = T.float32(float("-inf")) if spec.dtype == "float32" else T.cast(T.int32(0), spec.dtype)

    def body(x: Expr, out: Expr) -> None:
        for run in panel_runs(spec.channels, LANES):
            with shared_nest((*spec.out_extents, *spec.outer, run.count)) as loops:
                _window(spec, x, out, lowest, run.width, loops, T.int32(run.start) + loops[-1] * run.width)

    return function([("x", spec.in_elements, spec.dtype), ("out", spec.out_elements, spec.dtype)], body)


def _window(spec: PoolSpec, x: Expr, out: Expr, lowest: Expr, width: int, loops: list[Expr], first: Expr) -> None:
    """One output position, one vector of channels."""
    rank = len(spec.out_extents)
    position, outer = loops[:rank], loops[rank:-1]
    best = T.alloc_buffer((width,), spec.dtype)
    assign(best, 0, width, lambda _: lowest)
    with nest(spec.window.kernel) as offsets:
        geometry = zip(position, offsets, spec.window.stride, spec.window.padding, strict=True)
        source = [index * stride + offset - pad for index, offset, stride, pad in geometry]
        inside = [T.And(i >= 0, i < extent) for i, extent in zip(source, spec.window.in_extents, strict=True)]
        base = T.int32(spec.in_offset) + dot(source, spec.in_strides) + dot(outer, spec.in_outer)
        base = base + first * spec.in_channel
        with when(all_of(inside)):
            assign(best, 0, width, lambda j: T.max(best[j], x[base + j * spec.in_channel]))
    target = dot(position, spec.out_strides) + dot(outer, spec.out_outer) + first
    assign(out, target, width, lambda j: best[j])
