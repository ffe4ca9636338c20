"""What convolutions and matrix products with constant weights have in common: geometry, and what follows the sums.

    out[p, t, n] = bias[n] + sum over taps and k of x[p + tap, t, k] * w[tap, k, n]                           float32
    out[p, t, n] = bias[n] + scale[n] * (sum over taps and k of (x[p + tap, t, k] - zero_point) * w[tap, k, n])  int8
    out[p, t, n] = (bias[n] + scale[n] * (the same sum) >> drop) - lift              int8, currents in steps (int32)

Integer sums are exact; real scales and biases are rounded one after the other, so that every processor and ONNX Runtime
agree.
With ``lif`` the neurons are updated over all time steps before anything is stored, so only spikes leave the kernel.

:mod:`svitkit.runtime.kernels.rows` adds one weight row per active input, :mod:`svitkit.runtime.kernels.dense` visits
every input. Both work on panels: a few output channels whose sums fit the vector registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    Neuron,
    all_of,
    as_current,
    charge,
    dot,
    fire,
    from_state,
    nest,
    potential_dtype,
    rescaled,
    resting,
    row_major,
    state_dtype,
    to_state,
)
from svitkit.runtime.kernels.registers import Layout, Value, read, vectors, write, write_memory


@dataclass(frozen=True)
class Window:
    """How an output position sees the input: extents of the spatial axes, innermost last, and the kernel's geometry."""

    in_extents: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def is_pointwise(self) -> bool:
        """Whether every output position sees just the input at the same position."""
        return self.taps == 1 and set(self.stride) <= {1} and set(self.padding) <= {0}

    @property
    def taps(self) -> int:
        """Number of positions under the kernel."""
        return prod(self.kernel)

    def source(self, position: Sequence[Expr], tap: Sequence[Expr]) -> tuple[list[Expr], Expr]:
        """The input position under a tap, and whether it lies inside the image."""
        geometry = zip(position, tap, self.stride, self.padding, strict=True)
        source = [index * stride + offset - pad for index, offset, stride, pad in geometry]
        bounds = zip(source, self.in_extents, self.padding, self.kernel, strict=True)
        inside = [T.And(index >= 0, index < extent) for index, extent, pad, kernel in bounds if pad or kernel > 1]
        return source, all_of(inside)


@dataclass(frozen=True)
class LinearShape:
    """What a layer computes, whichever way.

    Attributes:
        timesteps: T; the time stride of the input is 0 where one image is shown at every step.
        out_extents: spatial extents of the output.
        window: geometry; pointwise layers have a kernel of ones.
        in_strides: strides of the input's spatial axes, in elements.
        time_strides: strides of the time axis in input and output.
        channels: extent and stride of the input's channel atoms.
        in_offset: first element of the input in its buffer.
        limit: largest input value of integer inputs, None for real ones.
        out_strides: strides of the output's spatial axes.
        out_dtype: uint8 for spikes, float32 or int32 for currents, int32 or int16 for bare sums.
        outputs: number of output channels, innermost and dense.
        integer: whether weights are int8; then inputs are integers, less ``zero_point``.
        lif: neurons fused into the layer, or None.
        keeps_state: whether the membrane potential is loaded and stored (step mode).
        fixed: whether scale and bias are int32, and currents are integers in steps.
        drop, lift: by how many bits these are shifted, and what is subtracted then.
    """

    timesteps: int
    out_extents: tuple[int, ...]
    window: Window
    in_strides: tuple[int, ...]
    time_strides: tuple[int, int]
    channels: tuple[tuple[int, int], ...]
    in_offset: int
    in_elements: int
    in_dtype: str
    limit: int | None
    out_strides: tuple[int, ...]
    out_elements: int
    out_dtype: str
    outputs: int
    integer: bool
    zero_point: int
    has_scale: bool
    has_bias: bool
    lif: Neuron | None
    keeps_state: bool
    fixed: bool = False
    drop: int = 0
    lift: int = 0

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return prod(extent for extent, _ in self.channels)

    @property
    def in_times(self) -> int:
        """Time steps that the input stores."""
        return self.timesteps if self.time_strides[0] else 1

    @property
    def positions(self) -> int:
        """Number of output positions."""
        return prod(self.out_extents)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a dense computation, padding included."""
        return self.positions * self.in_times * self.window.taps * self.inputs * self.outputs

    @property
    def weight_dtype(self) -> str:
        """Type of the weights."""
        return "int8" if self.integer else "float32"

    @property
    def current_dtype(self) -> str:
        """Type of scale, bias and finished currents."""
        return "int32" if self.fixed else "float32"

    def arguments(self) -> list[tuple[str, int, str]]:
        """The buffers behind a method's own: [scale], [bias], [v_state], out."""
        arguments = [("scale", self.outputs, self.current_dtype)] if self.has_scale else []
        arguments += [("bias", self.outputs, self.current_dtype)] if self.has_bias else []
        if self.keeps_state and self.lif is not None:
            arguments.append(("v_state", self.positions * self.outputs, state_dtype(self.lif)))
        return [*arguments, ("out", self.out_elements, self.out_dtype)]


@dataclass(frozen=True)
class Epilogue:
    """What one panel makes of its sums: currents, or spikes.

    Attributes:
        shape: the layer.
        b: its buffers by name.
        channels: the panel's channels, in vectors.
        first: number of the first one.
    """

    shape: LinearShape
    b: dict[str, Expr]
    channels: Layout
    first: Expr

    @contextmanager
    def position(self, where: Sequence[Expr]) -> Iterator[Callable[[Expr, Value], None]]:
        """Opens one output position and yields ``step(t, total)``, to be called for every stored time step in order.

        ``total`` gives the sums of the panel's channels. Potentials stay in registers from step to step.
        """
        shape = self.shape
        base = dot(where, shape.out_strides) + self.first
        if shape.lif is None:
            yield lambda t, total: self._store(base + t * shape.time_strides[1], total)
            return
        lif = shape.lif
        number = row_major(where, shape.out_extents) * shape.outputs + self.first
        potentials = vectors(self.channels, potential_dtype(lif))
        state = self.b.get("v_state")
        write(potentials, lambda at, j: resting(lif) if state is None else from_state(state[number + at + j], lif))

        def step(t: Expr, total: Value) -> None:
            before = read(potentials)

            def current(at: int, j: Expr) -> Expr:
                return as_current(self._current(total, at, j), shape.current_dtype, lif)

            write(potentials, lambda at, j: charge(current(at, j), before(at, j), lif))
            for v in potentials:
                fire(v.buffer, self.b["out"], base + t * shape.time_strides[1] + v.at, v.width, lif)

        yield step
        if state is not None:
            after = read(potentials)
            write_memory(state, number, self.channels, lambda at, j: to_state(after(at, j), lif))

    def _store(self, base: Expr, total: Value) -> None:
        dtype = self.shape.out_dtype

        def value(at: int, j: Expr) -> Expr:
            finished = dtype == self.shape.current_dtype
            return self._current(total, at, j) if finished else T.cast(total(at, j), dtype)

        write_memory(self.b["out"], base, self.channels, value)

    def _current(self, total: Value, at: int, j: Expr) -> Expr:
        """The finished sum of a channel, real or in steps."""
        shape, channel = self.shape, self.first + at + j
        value = T.cast(total(at, j), shape.current_dtype) if shape.integer else total(at, j)
        scale = self.b["scale"][channel] if shape.has_scale else None
        bias = self.b["bias"][channel] if shape.has_bias else None
        return rescaled(value, scale, bias, drop=shape.drop if shape.fixed else None, lift=shape.lift)


@contextmanager
def stored_steps(shape: LinearShape, t: Expr) -> Iterator[Expr]:
    """Loops over the output's time steps that belong to one stored time step of the input."""
    if shape.in_times > 1 or shape.timesteps == 1:
        yield t
        return
    with nest((shape.timesteps if shape.time_strides[1] else 1,)) as (repeated,):
        yield repeated
