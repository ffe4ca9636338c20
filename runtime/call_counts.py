"""What the kernels that are no linear layers do, counted: neurons, pooling, attention, arithmetic, sums and copies.

Their work does not depend on what fires, so the shape of a call says all. Linear layers and their lists of events are
counted by :mod:`svitkit.runtime.work_counts`.
"""

from __future__ import annotations

from functools import singledispatch
from math import gcd, prod

import numpy as np

from svitkit.errors import UnsupportedError
from svitkit.runtime.kernels import grouped, neurons, pointwise, pool
from svitkit.runtime.kernels.attention import BITS, LANES, SUMS, AttentionSpec
from svitkit.runtime.kernels.contract import ContractSpec
from svitkit.runtime.kernels.grouped import GroupedSpec
from svitkit.runtime.kernels.neurons import NeuronSpec
from svitkit.runtime.kernels.panels import panel_runs
from svitkit.runtime.kernels.pointwise import ElementwiseSpec, Operand, QuantizeSpec, ReduceSpec
from svitkit.runtime.kernels.pool import PoolNeuronSpec, PoolSpec
from svitkit.runtime.kernels.unpack import UnpackSpec
from svitkit.runtime.work_counts import FLOAT_BYTES, LINE_BYTES, Counts, Memory, mean_taps

# Bytes of the vectors that LLVM cuts a plain loop into: not wider on any x86-64, and two registers of Arm.
STREAM_BYTES = 32


@singledispatch
def call_counts(spec: object, memory: Memory) -> Counts:
    """Counts the work of a call.

    Args:
        spec: what shapes the kernel.
        memory: sizes on the CPU.

    Raises:
        UnsupportedError: the kernel is none of those that this module counts.
    """
    raise UnsupportedError(
        f"nothing is known about the work of a kernel shaped by {type(spec).__name__}. Count it in "
        "runtime/call_counts.py, then fit its costs with benchmarks/fit_costs.py."
    )


@call_counts.register
def _(spec: NeuronSpec, memory: Memory) -> Counts:
    vectors = prod(spec.extents[:-1]) * sum(run.count for run in panel_runs(spec.extents[-1], neurons.LANES))
    registers = _registers(spec.extents, neurons.LANES, (spec.x, spec.out), memory)
    return {"call": 1, "lif.vector": vectors, "lif.step": registers * spec.timesteps}


@call_counts.register
def _(spec: PoolSpec, memory: Memory) -> Counts:
    return {"call": 1, "pool.tap": _pool_taps(spec, pool.LANES, memory)}


@call_counts.register
def _(spec: PoolNeuronSpec, memory: Memory) -> Counts:
    steps = prod(spec.pool.out_extents) * prod(spec.pool.outer)
    floats = _panel_registers(spec.pool.channels, pool.NEURON_LANES, FLOAT_BYTES, memory)
    return {"call": 1, "pool.tap": _pool_taps(spec.pool, pool.NEURON_LANES, memory), "pool.step": steps * floats}


@call_counts.register
def _(spec: AttentionSpec, memory: Memory) -> Counts:
    keys, depths = -(-spec.keys // BITS), -(-spec.depth // BITS)
    tables = SUMS * (keys + depths)
    rows = spec.heads * spec.timesteps * (tables + keys * spec.depth + depths * spec.queries)
    chunk = gcd(spec.width, LANES)
    item_bytes = np.dtype(spec.sum_dtype).itemsize
    vectors = spec.width // chunk * -(-chunk * item_bytes // memory.register_bytes)
    if chunk == 1:  # channels that no vector takes are worked on one by one, or as LLVM may join them
        return {"call": 1, "attention.row": rows, "attention.apart": rows}
    return {"call": 1, "attention.row": rows, "attention.vector": rows * (vectors - 1)}


@call_counts.register
def _(spec: ElementwiseSpec, memory: Memory) -> Counts:
    return _stream(spec.extents, (*spec.operands, spec.out))


@call_counts.register
def _(spec: QuantizeSpec, memory: Memory) -> Counts:
    return _stream(spec.extents, (spec.x, spec.out))


@call_counts.register
def _(spec: ReduceSpec, memory: Memory) -> Counts:
    registers = _registers(spec.extents, pointwise.LANES, (spec.x, spec.out), memory)
    return {"call": 1, "reduce.sum": registers * prod(spec.reduced)}


@call_counts.register
def _(spec: ContractSpec, memory: Memory) -> Counts:
    registers = _registers(spec.extents, pointwise.LANES, (spec.a, spec.b, spec.out), memory)
    return {"call": 1, "contract.product": registers * prod(spec.reduced)}


@call_counts.register
def _(spec: GroupedSpec, memory: Memory) -> Counts:
    outside = 1 if spec.depthwise else spec.groups
    registers = outside * _panel_registers(spec.channels // outside, grouped.LANES, FLOAT_BYTES, memory)
    rows = prod(spec.out_extents) * prod(spec.outer) * mean_taps(spec.window, spec.out_extents) * spec.inputs
    return {"call": 1, "contract.product": rows * registers}


@call_counts.register
def _(spec: UnpackSpec, memory: Memory) -> Counts:
    lines = spec.packed_bytes / LINE_BYTES
    return {"call": 1, "stream.vector": spec.elements / STREAM_BYTES, "weights.line": lines}


def _stream(extents: tuple[int, ...], operands: tuple[Operand, ...]) -> Counts:
    """Counts a plain loop along the last axis, which the compiler cuts into vectors and what is left of one."""
    rows, length = prod(extents[:-1]), extents[-1]
    lanes = STREAM_BYTES // max(np.dtype(operand.dtype).itemsize for operand in operands)
    vectors = length // lanes if _lies_dense(operands) else 0
    return {"call": 1, "stream.vector": rows * vectors, "stream.tail": rows * (length - vectors * lanes)}


def _pool_taps(spec: PoolSpec, lanes: int, memory: Memory) -> float:
    """Registers that are compared, over all positions under the kernel that lie inside the image."""
    rows = prod(spec.out_extents) * prod(spec.outer) * mean_taps(spec.window, spec.out_extents)
    if spec.in_channel != 1:
        return rows * spec.channels
    return rows * _panel_registers(spec.channels, lanes, np.dtype(spec.dtype).itemsize, memory)


def _registers(extents: tuple[int, ...], lanes: int, operands: tuple[Operand, ...], memory: Memory) -> int:
    """Registers of float32 that an output fills; elements that lie apart take one each."""
    if not _lies_dense(operands):
        return prod(extents)
    return prod(extents[:-1]) * _panel_registers(extents[-1], lanes, FLOAT_BYTES, memory)


def _lies_dense(operands: tuple[Operand, ...]) -> bool:
    """Whether neighbours along the last axis are neighbours in memory, or one element."""
    return all(operand.strides[-1] in (0, 1) for operand in operands)


def _panel_registers(channels: int, lanes: int, item_bytes: int, memory: Memory) -> int:
    """Registers that hold all channels, panel by panel; a narrow panel takes a whole one."""
    return sum(run.count * -(-run.width * item_bytes // memory.register_bytes) for run in panel_runs(channels, lanes))
