"""Attention of spikes in integers, then scale and LIF neurons: q (k^T v), without the matrix of tokens by tokens.

    kv[j, i] = sum over tokens m of k[t, m, j] * v[t, m, i]
    s[t, n, i] = sum over j of q[t, n, j] * kv[j, i]

Both are sums of rows that bits choose. Four rows have sixteen sums; these are computed once, and four bits of k or q,
read as a number, name the sum to add (the method of the four Russians). There is no multiplication and no branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.kernels.emit import (
    Expr,
    Neuron,
    assign,
    charge,
    current_part,
    fire,
    from_state,
    function,
    nest,
    potential_dtype,
    resting,
    scaled_current,
    shared_nest,
    state_dtype,
    to_state,
)
from svitkit.runtime.kernels.registers import Value, layout, read, vectors, write, write_memory, zeros

BITS = 4
SUMS = 1 << BITS
LANES = 64
BLOCK = 64  # keys whose sums are kept at once; 8 KiB for heads of 32 channels
# Four bytes of 0 or 1, the first one lowest, times this have those bits side by side from bit 24 on. The product needs
# more than 32 bits, and TVM tells LLVM that none overflows.
GATHER = 0x01020408


@dataclass(frozen=True)
class Rows:
    """Where the rows of a factor lie: strides of heads, time and tokens; channels are dense."""

    head: int
    time: int
    token: int
    offset: int
    elements: int


@dataclass(frozen=True)
class AttentionSpec:
    """Shapes of an attention with its neurons.

    Attributes:
        heads, timesteps: how often it is computed.
        queries, keys: tokens of q and of k and v.
        depth, width: channels of q and k, and of v, for each head.
        q, k: spikes; v: counts up to ``v_limit``.
        out: the spikes.
        potential: strides of heads and tokens in the neurons' state, which has no time.
        scale: factor of the sums; a real product is rounded before the neuron adds it.
        keeps_state: whether the potential is kept from call to call (step mode).
        parts: most parts that run at once.
    """

    heads: int
    timesteps: int
    queries: int
    keys: int
    depth: int
    width: int
    q: Rows
    k: Rows
    v: Rows
    v_limit: int
    out: Rows
    potential: tuple[int, int]
    scale: float
    params: Neuron
    keeps_state: bool
    parts: int

    @property
    def kv_dtype(self) -> str:
        """Type that holds every element of k^T v."""
        return _unsigned_sum(self.keys * self.v_limit)

    @property
    def sum_dtype(self) -> str:
        """Type that holds every result, signed for the conversion to real numbers."""
        return "int16" if self.keys * self.v_limit * self.depth < 1 << 15 else "int32"

    def scratch(self) -> list[tuple[str, int, str]]:
        """Buffers that every part has for itself: name, elements of one part, type."""
        groups = -(-min(self.keys, BLOCK) // BITS)
        buffers = [
            ("number", groups * self.depth, "uint16"),
            ("v_sums", groups * SUMS * self.width, self.kv_dtype),
            ("kv", self.depth * self.width, self.kv_dtype),
            ("kv_sums", -(-self.depth // BITS) * SUMS * self.width, self.sum_dtype),
        ]
        return (
            buffers
            if self.keeps_state
            else [*buffers, ("v_state", self.queries * self.width, state_dtype(self.params))]
        )


def _unsigned_sum(limit: int) -> str:
    return "uint8" if limit < 1 << 8 else "uint16" if limit < 1 << 16 else "int32"


def build_attention(spec: AttentionSpec) -> Expr:
    """Returns the TIR function; arguments: q, k, v, the scratch buffers, [v_state], out."""
    arguments = [(name, rows.elements, "uint8") for name, rows in (("q", spec.q), ("k", spec.k), ("v", spec.v))]
    arguments += [(name, elements * spec.parts, dtype) for name, elements, dtype in spec.scratch()]
    if spec.keeps_state:
        arguments.append(("v_state", spec.heads * spec.queries * spec.width, state_dtype(spec.params)))
    arguments.append(("out", spec.out.elements, "uint8"))
    names = [name for name, _, _ in arguments]

    def body(*buffers: Expr) -> None:
        emitter = _Attention(spec, dict(zip(names, buffers, strict=True)), gcd(spec.width, LANES))
        with shared_nest((spec.heads,)) as (head,):
            emitter.compute(head)

    return function(arguments, body)


@dataclass(frozen=True)
class _Attention:
    """The emitter: its buffers by name, and the channels of one vector statement."""

    spec: AttentionSpec
    b: dict[str, Expr]
    chunk: int

    def compute(self, head: Expr) -> None:
        """One head, all time steps."""
        spec = self.spec
        if not spec.keeps_state:
            with nest((spec.queries,)) as (n,):
                initial = to_state(resting(spec.params), spec.params)
                write_memory(
                    self.b["v_state"], self._potential(head, n), layout(spec.width, self.chunk), lambda *_: initial
                )
        with nest((spec.timesteps,)) as (t,):
            self._multiply_keys(head, t)
            kv = self._own("kv")
            for first, count, size in _groups(spec.depth):
                with nest((count,)) as (g,):
                    group = first + g
                    rows = [self._at("kv", kv + (group * BITS + row) * spec.width) for row in range(size)]
                    self._tabulate("kv_sums", group, rows)
            with nest((spec.queries,)) as (n,):
                self._neurons(head, t, n)

    def _multiply_keys(self, head: Expr, t: Expr) -> None:
        """Computes kv = k^T v, a block of keys after the other."""
        spec, kv = self.spec, self._own("kv")
        with nest((spec.depth,)) as (j,):
            zero = T.cast(T.int32(0), spec.kv_dtype)
            write_memory(self.b["kv"], kv + j * spec.width, layout(spec.width, self.chunk), lambda *_: zero)
        full, rest = divmod(spec.keys, BLOCK)
        for start, count, keys in ((0, full, BLOCK), (full * BLOCK, 1, rest)):
            if count and keys:
                with nest((count,)) as (block,):
                    self._add_keys(head, t, start + block * BLOCK, keys)

    def _add_keys(self, head: Expr, t: Expr, start: Expr, keys: int) -> None:
        """Adds one block of keys to kv."""
        spec = self.spec
        k, v = (_address(rows, head, t) + start * rows.token for rows in (spec.k, spec.v))
        for first, count, size in _groups(keys):
            with nest((count,)) as (g,):
                key = (first + g) * BITS
                rows = [self._at("v", v + (key + row) * spec.v.token) for row in range(size)]
                self._tabulate("v_sums", first + g, rows)
                self._number(first + g, [k + (key + row) * spec.k.token for row in range(size)])
        groups = -(-keys // BITS)
        number, sums = self._own("number"), self._own("v_sums")
        with nest((spec.depth,)) as (j,):
            at = self._own("kv") + j * spec.width
            total = vectors(layout(spec.width, self.chunk), spec.kv_dtype)
            write(total, self._at("kv", at))
            with nest((groups,)) as (g,):
                chosen = T.cast(self.b["number"][number + g * spec.depth + j], "int32")
                before, added = read(total), self._at("v_sums", sums + g * (SUMS * spec.width) + chosen)
                write(total, lambda a, lane: before(a, lane) + added(a, lane))
            write_memory(self.b["kv"], at, layout(spec.width, self.chunk), read(total))

    def _number(self, group: Expr, rows: Sequence[Expr]) -> None:
        """Which sum of a group of keys every channel of k chooses, as its place in the table."""
        spec, k = self.spec, self.b["k"]
        chunk = gcd(spec.depth, LANES)
        with nest((spec.depth // chunk,)) as (part,):
            first = part * chunk

            def place(lane: Expr) -> Expr:
                bits = [T.cast(k[row + first + lane], "uint16") << T.uint16(bit) for bit, row in enumerate(rows)]
                return sum(bits[1:], bits[0]) * T.uint16(spec.width)

            assign(self.b["number"], self._own("number") + group * spec.depth + first, chunk, place)

    def _tabulate(self, name: str, group: Expr, rows: Sequence[Value]) -> None:
        """Writes the sums of every choice of some rows; the first row's bit is the lowest."""
        width, table = self.spec.width, self.b[name]
        dtype = self.spec.kv_dtype if name == "v_sums" else self.spec.sum_dtype
        base = self._own(name) + group * (SUMS * width)
        write_memory(table, base, layout(width, self.chunk), lambda *_: T.cast(T.int32(0), dtype))
        for bit, row in enumerate(rows):
            added = vectors(layout(width, self.chunk), dtype)
            write(added, _cast(row, dtype))
            for low in range(1 << bit):
                before, value = self._at(name, base + low * width), read(added)
                high = base + ((1 << bit) + low) * width
                write_memory(table, high, layout(width, self.chunk), _plus(before, value))

    def _neurons(self, head: Expr, t: Expr, n: Expr) -> None:
        """Sum, scale and neurons of one query."""
        spec = self.spec
        total = zeros(layout(spec.width, self.chunk), spec.sum_dtype)
        query = _address(spec.q, head, t) + n * spec.q.token
        for first, count, size in _groups(spec.depth):
            with nest((count,)) as (g,):
                chosen = self._bits(query + (first + g) * BITS, size) * spec.width
                sums = self._own("kv_sums") + (first + g) * (SUMS * spec.width)
                write(total, _plus(read(total), self._at("kv_sums", sums + chosen)))
        potential = self._potential(head, n)
        potentials = vectors(layout(spec.width, self.chunk), potential_dtype(spec.params))
        stored = self._at("v_state", potential)
        write(potentials, lambda at, lane: from_state(stored(at, lane), spec.params))
        sums_of, before = read(total), read(potentials)

        def current(at: int, lane: Expr) -> Expr:
            return scaled_current(sums_of(at, lane), spec.sum_dtype, spec.scale, spec.params)

        write(potentials, lambda at, lane: charge(current(at, lane), before(at, lane), spec.params))
        out = _address(spec.out, head, t) + n * spec.out.token
        for v in potentials:
            fire(v.buffer, self.b["out"], out + v.at, v.width, spec.params)
        after = read(potentials)
        kept = layout(spec.width, self.chunk)
        write_memory(self.b["v_state"], potential, kept, lambda at, lane: to_state(after(at, lane), spec.params))

    def _bits(self, first: Expr, size: int) -> Expr:
        """Some neighbouring spikes of q as a number."""
        q = self.b["q"]
        if size == BITS:
            word = T.cast(T.reinterpret("uint32", q[T.Ramp(first, 1, BITS)]), "uint64") * T.uint64(GATHER)
            return T.cast(T.shift_right(word, T.uint64(24)) & T.uint64(SUMS - 1), "int32")
        bits = [T.cast(q[first + bit], "int32") * (1 << bit) for bit in range(size)]
        return sum(bits[1:], bits[0])

    def _potential(self, head: Expr, n: Expr) -> Expr:
        """Where the potentials of a query lie."""
        if not self.spec.keeps_state:
            return self._own("v_state") + n * self.spec.width
        return head * self.spec.potential[0] + n * self.spec.potential[1]

    def _own(self, name: str) -> Expr:
        """Where this part's share of a scratch buffer begins."""
        part, _ = current_part()
        return part * next(elements for own, elements, _ in self.spec.scratch() if own == name)

    def _at(self, name: str, base: Expr) -> Value:
        """How a row of a buffer is read."""
        return lambda at, lane: self.b[name][base + at + lane]


def _address(rows: Rows, head: Expr, t: Expr) -> Expr:
    return T.int32(rows.offset) + head * rows.head + t * rows.time


def _groups(rows: int) -> list[tuple[int, int, int]]:
    """Runs of groups of rows: first group, number of groups, rows of each."""
    full, rest = divmod(rows, BITS)
    return [run for run in ((0, full, BITS), (full, 1, rest)) if run[1] and run[2]]


def _cast(value: Value, dtype: str) -> Value:
    return lambda at, lane: T.cast(value(at, lane), dtype)


def _plus(a: Value, b: Value) -> Value:
    return lambda at, lane: a(at, lane) + b(at, lane)
