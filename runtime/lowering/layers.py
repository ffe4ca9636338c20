"""Layers with constant weights as kernel calls: the method is chosen, the weights are packed, the input is prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import UnsupportedError
from svitkit.runtime.density import Density, unknown
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.dense import DenseSpec, build_dense, can_dot, pack_dense
from svitkit.runtime.kernels.emit import Neuron
from svitkit.runtime.kernels.linear import LinearShape, Window
from svitkit.runtime.kernels.lists import SEARCH, ListSpec, build_lists, byte_table
from svitkit.runtime.kernels.row_layout import Addition, RowsSpec, pack_rows
from svitkit.runtime.kernels.rows import build_rows
from svitkit.runtime.kernels.unpack import BYTE_BITS, build_unpack, pack_planes, unpack_spec, width_of
from svitkit.runtime.lowering.choice import choose, record, record_lists
from svitkit.runtime.lowering.translation import Lowering, time_extent
from svitkit.runtime.sparse import is_sparse
from svitkit.runtime.vector_unit import VectorUnit
from svitkit.runtime.view import Atom, Axis, Buffer, View, merge, store

INT16_MAX = 32767
MAX_BLOCK = 32
LARGE_BLOCK = 64
NARROW_MAX = 127


@dataclass
class Linear:
    """A convolution or matrix product that waits for its consumer.

    Attributes:
        node: where it comes from.
        x: the input.
        weight: (taps * inputs, outputs) float32 or int8.
        bias: (outputs,) float32, or None.
        window: geometry over the input's spatial axes.
        space: atoms of the input's spatial axes, each axis of the window being one.
        time: atoms of the batch axis.
        channels: atoms of the input's channel axis.
        axes: sizes and roles of the output, strides unassigned (0 marks broadcast atoms).
        output: name of the value that it computes, once scale and bias were absorbed.
        scale: (outputs,) float32 or int32 that the sums of int8 weights are multiplied by, or None.
        zero_point: input value that means 0.
        drop, lift: by how many bits currents in steps are shifted, and what is subtracted then; 0 for neither.
    """

    node: Node
    output: str
    x: View
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    window: Window
    space: Axis
    time: Axis
    channels: Axis
    out_extents: tuple[int, ...]
    axes: tuple[Axis, ...]
    scale: NDArray[Any] | None = None
    zero_point: int = 0
    drop: int = 0
    lift: int = 0

    @property
    def integer(self) -> bool:
        """Whether the weights are int8 and the sums integers."""
        return self.weight.dtype == np.int8

    @property
    def fixed(self) -> bool:
        """Whether the currents are integers in steps."""
        return self.scale is not None and self.scale.dtype == np.int32

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Computes the currents by themselves."""
        state.emit_layer(state, self, out, None)


@dataclass(frozen=True)
class Fused:
    """A LIF layer that a linear kernel ends with."""

    name: str
    params: Neuron
    out: View
    state: Buffer | None


def emit_linear(state: Lowering, linear: Linear, out: Buffer, fused: Fused | None) -> None:
    """Chooses a method, and appends the calls."""
    shape, target = shape_of(linear, out, fused)
    layer = fused.name if fused else linear.node.name
    rows = _rows_spec(state, linear, shape) if _can_list(linear, shape) else None
    dense = _dense_spec(state.unit, shape)
    density = density_of(shape, linear.x.buffer)
    choice = choose(state, linear.x.buffer, rows, dense, density)
    if rows is not None and choice.method == "rows":
        kernel = _emit_rows(state, linear, rows, layer, fused, target)
    else:
        kernel = _emit_dense(state, linear, dense, layer, fused, target)
    record(state, choice, (layer, linear.node.name, kernel), density)


def _can_list(linear: Linear, shape: LinearShape) -> bool:
    """Whether active inputs can be listed: silence is 0, and channels lie side by side."""
    side_by_side = len(linear.channels) <= 1 and all(atom.stride == 1 for atom in linear.channels)
    return shape.limit is not None and not shape.zero_point and side_by_side


def density_of(shape: LinearShape, buffer: Buffer) -> Density | None:
    """How often the inputs have which value; None for real ones."""
    return None if shape.limit is None else buffer.density or unknown(shape.limit)


def shape_of(linear: Linear, out: Buffer, fused: Fused | None) -> tuple[LinearShape, Buffer]:
    """What the layer computes, and the buffer that it writes."""
    x, time = linear.x, merge(linear.time)
    if len(time) > 1:
        raise UnsupportedError("time and batch do not lie behind one another.")
    target = fused.out if fused else store(out.name, linear.axes, out.dtype)
    out_space = sorted((atom for atom in target.atoms if atom.role == "space"), key=lambda atom: -atom.stride)
    out_time = next((atom for atom in target.atoms if atom.role == "time" and atom.size > 1), None)
    space, window, extents = _blockable(linear, out_space)
    out_space = list(merge(out_space)) if len(extents) < len(linear.out_extents) else out_space
    shape = LinearShape(
        timesteps=time_extent(target),
        out_extents=extents,
        window=window,
        in_strides=tuple(atom.stride for atom in space),
        time_strides=(time[0].stride if time else 0, out_time.stride if out_time else 0),
        channels=tuple((atom.size, atom.stride) for atom in linear.channels) or ((1, 1),),
        in_offset=x.offset,
        in_elements=x.buffer.elements,
        in_dtype=x.buffer.dtype,
        limit=x.buffer.limit,
        out_strides=loop_strides(out_space, extents),
        out_elements=target.buffer.elements,
        out_dtype=target.buffer.dtype,
        outputs=linear.weight.shape[1],
        integer=linear.integer,
        zero_point=linear.zero_point,
        has_scale=linear.scale is not None,
        has_bias=linear.bias is not None,
        lif=fused.params if fused else None,
        keeps_state=fused is not None and fused.state is not None,
        fixed=linear.fixed,
        drop=linear.drop,
        lift=linear.lift,
    )
    return shape, target.buffer if fused else out


def kernel_name(kind: str, shape: LinearShape) -> str:
    """Returns what a kernel is called: its kind, and what it computes."""
    words = [kind, *["int8"] * shape.integer, "matmul" if shape.window.taps == 1 else "conv"]
    return "_".join([*words, *["lif"] * (shape.lif is not None)])


def finish(state: Lowering, linear: Linear, fused: Fused | None, out: Buffer) -> list[Buffer]:
    """The buffers that every method ends with: [scale], [bias], [v_state], out."""
    buffers = []
    for name, vector in (("scale", linear.scale), ("bias", linear.bias)):
        if vector is not None:
            kept = np.asarray(vector, np.int32 if linear.fixed else np.float32)
            buffers.append(state.weights(f"{linear.node.outputs[0]}.{name}", kept))
    return [*buffers, *([fused.state] if fused and fused.state else []), out]


def _dense_spec(unit: VectorUnit, shape: LinearShape) -> DenseSpec:
    instruction = unit.dot if unit.dot and can_dot(shape, unit.dot) else None
    times = min(shape.in_times, unit.dense_rows)
    block = 1
    if shape.window.is_pointwise and shape.in_times < unit.dense_rows:
        block = largest_divisor(shape.out_extents[-1] if shape.out_extents else 1, unit.dense_rows // shape.in_times)
    return DenseSpec(shape, unit.dense_lanes, unit.chunk, times, block, instruction)


def _emit_dense(state: Lowering, linear: Linear, spec: DenseSpec, layer: str, fused: Fused | None, out: Buffer) -> str:
    shape = spec.shape
    panels = stored(state, linear, f"{linear.node.inputs[1]}.panels", pack_dense(spec, weight_of(linear)))
    kernel = kernel_name("dot" if spec.dot else "dense", shape)
    buffers = [linear.x.buffer, panels, *finish(state, linear, fused, out)]
    work = shape.positions * shape.in_times * shape.window.taps * shape.inputs * shape.outputs
    state.call(layer, kernel, spec, build_dense, buffers, work=work)
    return kernel


def _emit_rows(state: Lowering, linear: Linear, spec: RowsSpec, layer: str, fused: Fused | None, out: Buffer) -> str:
    shape = spec.shape
    index, count = _lists(state, linear.x, spec.lists)
    buffers = [index, count, stored(state, linear, f"{linear.node.inputs[1]}.rows", pack_rows(spec, weight_of(linear)))]
    name = linear.node.outputs[0]
    if spec.joins:
        buffers.append(Buffer(f"{name}.joined", "uint16", (spec.parts * spec.joined_lists * spec.joined_capacity,)))
        buffers.append(Buffer(f"{name}.joined_count", "int32", (spec.parts * spec.joined_lists,)))
    if spec.scratch:
        buffers.append(Buffer(f"{name}.scratch", spec.total_dtype, (spec.parts * spec.scratch,)))
    buffers += finish(state, linear, fused, out)
    kernel = kernel_name("event", shape)
    work = shape.positions * shape.in_times * shape.window.taps * shape.inputs * shape.outputs // 8
    state.call(layer, kernel, spec, build_rows, buffers, work=work)
    return kernel


def weight_of(linear: Linear) -> NDArray[Any]:
    """The weight, with zeros of one sign: a batch norm that was folded may have made some of them negative."""
    return linear.weight if linear.integer else np.asarray(linear.weight, np.float32) + np.float32(0)


def stored(state: Lowering, linear: Linear, name: str, array: NDArray[Any]) -> Buffer:
    """Puts weights in a kernel's layout into the weights file; integers of few bits are unpacked before the layer."""
    bits = width_of(linear.weight) if linear.integer else BYTE_BITS
    sparse_of = linear.node.name if is_sparse(linear.weight) else None
    if bits == BYTE_BITS:
        return state.weights(name, array, sparse_of=sparse_of)
    spec = unpack_spec(array, bits)
    packed = state.weights(f"{name}.packed", pack_planes(array, bits), sparse_of=sparse_of)
    unpacked = Buffer(f"{name}.unpacked", str(array.dtype), (spec.elements,))
    buffers = [packed, unpacked]
    state.call(linear.node.name, "unpack", spec, build_unpack, buffers, work=spec.elements, prepares=True)
    return unpacked


def _lists(state: Lowering, x: View, spec: ListSpec) -> tuple[Buffer, Buffer]:
    """The lists of a value; several layers that read it in the same way share them."""
    key = (x.buffer, spec)
    if key not in state.lists:
        name = f"{x.buffer.name}.{x.offset}.{spec.chunk}"
        index = Buffer(f"{name}.index", "uint16", (spec.lists * spec.capacity,))
        count = Buffer(f"{name}.count", "int32", (spec.lists,))
        tables = [state.weights("byte_table", byte_table())] if spec.search == "table" else []
        work = spec.lists * spec.chunk
        state.call(x.buffer.name, "list", spec, build_lists, [x.buffer, *tables, index, count], work=work)
        record_lists(state, x.buffer, spec)
        state.lists[key] = index, count
    return state.lists[key]


def _rows_spec(state: Lowering, linear: Linear, shape: LinearShape) -> RowsSpec:
    unit = state.unit
    limit = shape.limit or 1
    addition, group = _addition(unit, linear)
    lanes = unit.integer_lanes if linear.integer else unit.float_lanes
    taps, chunk = _segment(linear, shape, unit.segment_bytes // (lanes * linear.weight.itemsize))
    joins = not shape.window.is_pointwise
    lists = ListSpec(
        extents=(*shape.window.in_extents, shape.in_times),
        strides=(*shape.in_strides, shape.time_strides[0]),
        offset=shape.in_offset,
        elements=shape.in_elements,
        inputs=shape.inputs,
        chunk=chunk,
        digits=limit.bit_length(),
        group=1 if joins else group,
        search=unit.search,
    )
    scratch = taps < shape.window.taps or chunk < shape.inputs
    large = linear.weight.nbytes > unit.near_bytes
    return RowsSpec(
        shape=shape,
        lists=lists,
        lanes=lanes,
        chunk=unit.word_chunk if addition == "words" else unit.chunk,
        group=group,
        addition=addition,
        taps=taps,
        block=_block(shape, state.parts, large=large) if joins or scratch else 1,
        wide=linear.integer and limit * _reach(linear.weight) > INT16_MAX,
        parts=state.parts,
        ahead=large and not joins,
    )


def _block(shape: LinearShape, parts: int, *, large: bool) -> int:
    """Positions that are worked on together: more where weights have to come from far, if enough blocks are left."""
    longest = min(LARGE_BLOCK if large else MAX_BLOCK, max(shape.positions // parts, 1))
    return largest_divisor(shape.positions, longest)


def _addition(unit: VectorUnit, linear: Linear) -> tuple[Addition, int]:
    """How rows are added, and how many at once."""
    if not linear.integer:
        return "float", 1
    if int(np.abs(linear.weight.astype(np.int16)).max()) * unit.narrow_group <= NARROW_MAX:
        return "narrow", unit.narrow_group
    return ("words" if unit.word_chunk else "wide"), unit.group


def _segment(linear: Linear, shape: LinearShape, rows: int) -> tuple[int, int]:
    """Taps and channels of one segment: at most ``rows`` rows; sums of integers for inputs 0 and 1 fit 16 bits."""
    taps, inputs = shape.window.taps, shape.inputs

    def fits(group: int, chunk: int) -> bool:
        if group * chunk > rows and group * chunk > 1:
            return False
        if not linear.integer:
            return True
        weight = linear.weight.reshape(taps, inputs, -1)
        pieces = [
            weight[tap : tap + group, at : at + chunk].reshape(-1, weight.shape[-1])
            for tap in range(0, taps, group)
            for at in range(0, inputs, chunk)
        ]
        return all(_reach(piece) <= INT16_MAX for piece in pieces)

    for parts in range(1, taps + 1):
        group = -(-taps // parts)
        if fits(group, inputs):
            return group, inputs
    for parts in range(2, inputs + 1):
        chunk = -(-inputs // parts)
        chunk = min(inputs, -(-chunk // SEARCH) * SEARCH) if chunk > SEARCH else chunk
        if fits(1, chunk):
            return 1, chunk
    return 1, 1


def sum_dtype(linear: Linear) -> str:
    """The smallest type that holds every sum of an integer layer."""
    limit = linear.x.buffer.limit
    fits = limit is not None and not linear.zero_point and limit * _reach(linear.weight) <= INT16_MAX
    return "int16" if fits else "int32"


def _reach(weight: NDArray[Any]) -> int:
    """Largest magnitude that a sum of some of the rows can have, over all channels."""
    whole = weight.astype(np.int64)
    return int(max(np.maximum(whole, 0).sum(axis=-2).max(), -np.minimum(whole, 0).sum(axis=-2).min()))


def largest_divisor(extent: int, limit: int) -> int:
    """The largest divisor of ``extent`` up to ``limit``."""
    return max(size for size in range(1, min(extent, max(limit, 1)) + 1) if extent % size == 0)


def _blockable(linear: Linear, out_space: Sequence[Atom]) -> tuple[Axis, Window, tuple[int, ...]]:
    """Joins the positions of a pointwise layer into one axis where they lie behind one another on both sides."""
    space, joined = linear.space, merge(linear.space)
    if not linear.window.is_pointwise or len(joined) != 1 or len(merge(out_space)) != 1:
        return space, linear.window, linear.out_extents
    extents = (joined[0].size,)
    return joined, Window(extents, (1,), (1,), (0,)), extents


def loop_strides(atoms: Sequence[Atom], extents: Sequence[int]) -> tuple[int, ...]:
    """Strides of the output loops; loops of extent 1 have no atom."""
    rest = iter([atom for atom in atoms if atom.size > 1])
    return tuple(next(rest).stride if extent > 1 else 0 for extent in extents)
