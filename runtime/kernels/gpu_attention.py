"""Attention of spikes in integers on a GPU, then scale and LIF neurons: q (k^T v) in two kernels.

    kv[t, h, j, i] = sum over tokens m of k[t, h, m, j] * v[t, h, m, i]             one thread for each sum
    s[t, h, n, i] = sum over j of q[t, h, n, j] * kv[t, h, j, i]                    one thread for each n, h and i

The second goes through all time steps with the potential in a register, and reads packed spikes of q as events.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.attention import AttentionSpec, Rows
from svitkit.runtime.kernels.emit import (
    Expr,
    allocate,
    charge,
    fire,
    from_state,
    function,
    nest,
    potential_dtype,
    put,
    resting,
    row_major,
    scaled_current,
    shared_nest,
    state_dtype,
    to_state,
    when,
)
from svitkit.runtime.kernels.launch import DeviceBuffer, current_gpu
from svitkit.runtime.view import PACKED, WORD


@dataclass(frozen=True)
class GpuAttentionSpec:
    """Shapes of an attention, and the types of what it reads and writes.

    Attributes:
        shape: all shapes; its scratch buffers are those of the CPU's kernel, and not used.
        q, k, v, out: types, ``uint1`` or ``uint8``.
    """

    shape: AttentionSpec
    q: str
    k: str
    v: str
    out: str

    @property
    def products(self) -> int:
        """Elements of k^T v of all time steps and heads."""
        shape = self.shape
        return shape.timesteps * shape.heads * shape.depth * shape.width


@dataclass(frozen=True)
class KeyValueSpec:
    """The first of the two kernels."""

    attention: GpuAttentionSpec


def build_key_values(spec: KeyValueSpec) -> Expr:
    """Returns the TIR function; arguments: k, v, kv."""
    attention, shape = spec.attention, spec.attention.shape

    def body(k: Expr, v: Expr, kv: Expr) -> None:
        extents = (shape.timesteps, shape.heads, shape.depth, shape.width)
        with shared_nest(extents) as (t, head, j, i):
            total = allocate(1, "int32")
            put(total, 0, T.int32(0))
            key, value = _row(shape.k, head, t) + j, _row(shape.v, head, t) + i
            with nest((shape.keys,)) as (m,):
                chosen = T.cast(k[key + m * shape.k.token], "int32")
                put(total, 0, total[0] + chosen * T.cast(v[value + m * shape.v.token], "int32"))
            put(kv, row_major((t, head, j, i), extents), T.cast(total[0], shape.kv_dtype))

    arguments = [("k", shape.k.elements, attention.k), ("v", shape.v.elements, attention.v)]
    return function([*arguments, ("kv", attention.products, shape.kv_dtype)], body)


def build_gpu_attention(spec: GpuAttentionSpec) -> Expr:
    """Returns the TIR function; arguments: q, kv, [v_state], out."""
    shape = spec.shape
    arguments = [("q", shape.q.elements, spec.q), ("kv", spec.products, shape.kv_dtype)]
    if shape.keeps_state:
        arguments.append(("v_state", shape.heads * shape.queries * shape.width, state_dtype(shape.params)))
    arguments.append(("out", shape.out.elements, spec.out))
    names = [name for name, _, _ in arguments]

    def body(*buffers: DeviceBuffer) -> None:
        with shared_nest((shape.queries, shape.heads * shape.width)) as (n, channel):
            head = T.truncdiv(channel, T.int32(shape.width))
            emitter = _Query(spec, dict(zip(names, buffers, strict=True)))
            emitter.compute(head, n, T.truncmod(channel, T.int32(shape.width)))

    return function(arguments, body)


@dataclass(frozen=True)
class _Query:
    """The emitter of the second kernel, and its buffers by name."""

    spec: GpuAttentionSpec
    b: dict[str, DeviceBuffer]

    def compute(self, head: Expr, n: Expr, i: Expr) -> None:
        """One query and channel, all time steps."""
        shape = self.spec.shape
        potential = head * shape.potential[0] + n * shape.potential[1] + i
        v = allocate(1, potential_dtype(shape.params))
        state = self.b.get("v_state")
        put(v, 0, resting(shape.params) if state is None else from_state(state[potential], shape.params))
        total = allocate(1, "int32")
        with nest((shape.timesteps,)) as (t,):
            put(total, 0, T.int32(0))
            query = _row(shape.q, head, t) + n * shape.q.token
            products = row_major((t, head), (shape.timesteps, shape.heads)) * (shape.depth * shape.width) + i
            self._sum(total, query, products)
            current = scaled_current(total[0], "int32", shape.scale, shape.params)
            put(v, 0, charge(current, v[0], shape.params))
            fire(v, self.b["out"], _row(shape.out, head, t) + n * shape.out.token + i, 1, shape.params)
        if state is not None:
            put(state, potential, to_state(v[0], shape.params))

    def _sum(self, total: Expr, query: Expr, products: Expr) -> None:
        """Adds the rows of k^T v that the spikes of a query choose."""
        shape, q = self.spec.shape, self.b["q"]

        def add(j: Expr) -> None:
            put(total, 0, total[0] + T.cast(self.b["kv"][products + j * shape.width], "int32"))

        if self.spec.q == PACKED and self._begins_with_words(shape.q):
            gpu = current_gpu()
            assert gpu is not None
            with nest((shape.depth // WORD,)) as (number,), gpu.set_bits(q.word(query + number * WORD)) as bit:
                add(number * WORD + bit)
            return
        with nest((shape.depth,)) as (j,), when(q[query + j] != T.uint8(0)):
            add(j)

    def _begins_with_words(self, rows: Rows) -> bool:
        steps = (rows.offset, rows.head, rows.time, rows.token, self.spec.shape.depth)
        return all(step % WORD == 0 for step in steps)


def _row(rows: Rows, head: Expr, t: Expr) -> Expr:
    return T.int32(rows.offset) + head * rows.head + t * rows.time
