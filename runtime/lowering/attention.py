"""The rule for attention: two products of spikes in a row, a scale and neurons become one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.attention import AttentionSpec, Rows, build_attention
from svitkit.runtime.kernels.emit import Neuron
from svitkit.runtime.lowering.gpu import emit_gpu_attention
from svitkit.runtime.lowering.matmul import Product
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.program import Chosen
from svitkit.runtime.view import SPIKES, Atom, Axis, Buffer, View, align, merge

EXACT = 1 << 24  # real numbers hold every integer up to here, so any order of the sums gives the same
WIDEST = 128  # channels of a head


@dataclass(frozen=True)
class _Factor:
    """A factor as rows of tokens: its batch axes, and the atoms of tokens and channels."""

    view: View
    tokens: Atom
    channels: Atom


@dataclass(frozen=True)
class Attention:
    """out = q (k^T v) for every head and time step; ``out`` is laid out as the product would be."""

    q: _Factor
    k: _Factor
    v: _Factor
    out: _Factor


def find_attention(state: Lowering, view: View) -> Attention | None:
    """The attention whose result waits in a view's buffer, if there is one that has a kernel."""
    outer = state.waiting.get(view.buffer)
    if not isinstance(outer, Product):
        return None
    left, right = state.waiting.get(outer.a.buffer), state.waiting.get(outer.b.buffer)
    if isinstance(left, Product) and outer.a == left.out:
        chain = (left.a, left.b, outer.b)
    elif isinstance(right, Product) and outer.b == right.out:
        chain = (outer.a, right.a, right.b)
    else:
        return None
    if any(factor.buffer in state.waiting for factor in chain):
        return None
    readings = [found for found in (_rows(*chain, outer.out), _columns(*chain, outer.out)) if found is not None]
    return max(readings, key=lambda found: found.q.channels.size, default=None)  # of one token both are possible


def forget_attention(state: Lowering, view: View) -> None:
    """Takes the products of an attention that was emitted off the list of what waits."""
    outer = state.waiting.pop(view.buffer)
    if isinstance(outer, Product):
        for factor in (outer.a, outer.b):
            state.waiting.pop(factor.buffer, None)


def _rows(x: View, y: View, z: View, out: View) -> Attention | None:
    """Reads x y z so that tokens are rows of the result: q = x, k = y^T, v = z."""
    return _attention(_factor(x, -2, -1), _factor(y, -1, -2), _factor(z, -2, -1), _factor(out, -2, -1))


def _columns(x: View, y: View, z: View, out: View) -> Attention | None:
    """Reads x y z so that tokens are columns of the result: q = z^T, k = y, v = x^T."""
    return _attention(_factor(z, -1, -2), _factor(y, -2, -1), _factor(x, -1, -2), _factor(out, -1, -2))


def _factor(view: View, tokens: int, channels: int) -> _Factor | None:
    """A factor whose tokens are evenly spaced and whose channels are dense, else None."""
    rows, columns = _single(view.axes[tokens]), _single(view.axes[channels])
    if rows is None or columns is None or (columns.size > 1 and columns.stride != 1):
        return None
    return _Factor(view, rows, columns)


def _single(axis: Axis) -> Atom | None:
    """An axis as one atom, or None if it is several."""
    merged = merge(axis) or (Atom(1, 0, "channel"),)
    return merged[0] if len(merged) == 1 else None


def _attention(q: _Factor | None, k: _Factor | None, v: _Factor | None, out: _Factor | None) -> Attention | None:
    if q is None or k is None or v is None or out is None:
        return None
    limit = v.view.buffer.limit
    bits = q.view.buffer.limit == k.view.buffer.limit == 1
    if not bits or limit is None or any(factor.view.buffer.dtype not in SPIKES for factor in (q, k, v)):
        return None
    if limit * k.tokens.size * k.channels.size >= EXACT or v.channels.size > WIDEST:
        return None
    return Attention(q, k, v, out)


def emit_attention(
    state: Lowering,
    node: Node,
    found: Attention,
    views: tuple[View, View],
    params: Neuron,
    scale: float,
    potential: Buffer | None,
) -> bool:
    """Emits the kernel.

    Args:
        state: the network on its way.
        node: the LIF layer.
        found: the attention.
        views: the sums as the layer reads them, and its spikes.
        params: of the neurons.
        scale: factor of the sums.
        potential: the neurons' state in step mode.

    Returns:
        Whether there is a kernel for this layout.
    """
    factors = (found.q, found.k, found.v, found.out)
    batch = [
        atoms
        for axis in align([replace(factor.view, axes=factor.view.axes[:-2]) for factor in factors])
        for atoms in axis
        if atoms[-1].size > 1
    ]
    time = [atoms for atoms in batch if atoms[-1].role == "time"]
    heads = [atoms for atoms in batch if atoms[-1].role != "time"]
    strides = _spikes(found.out, heads, time, views)
    if len(time) > 1 or len(heads) > 1 or strides is None:
        return False
    rows = [
        Rows(
            head=heads[0][index].stride if heads else 0,
            time=time[0][index].stride if time else 0,
            token=factor.tokens.stride,
            offset=factor.view.offset,
            elements=factor.view.buffer.elements,
        )
        for index, factor in enumerate(factors[:3])
    ]
    timesteps = prod(atoms[-1].size for atoms in time)
    out = views[1].buffer
    head, step, token = strides
    spec = AttentionSpec(
        heads=prod(atoms[-1].size for atoms in heads),
        timesteps=timesteps,
        queries=found.q.tokens.size,
        keys=found.k.tokens.size,
        depth=found.q.channels.size,
        width=found.v.channels.size,
        q=rows[0],
        k=rows[1],
        v=rows[2],
        v_limit=found.v.view.buffer.limit or 1,
        out=Rows(head, step, token, 0, out.elements),
        potential=(_timeless(head, step, timesteps), _timeless(token, step, timesteps)),
        scale=scale,
        params=params,
        keeps_state=potential is not None,
        parts=state.parts,
    )
    if state.gpu is not None:
        return emit_gpu_attention(state, node, spec, [factor.view for factor in factors[:3]], potential, views[1])
    scratch = [Buffer(f"{node.name}.{name}", dtype, (size * state.parts,)) for name, size, dtype in spec.scratch()]
    buffers = [*(factor.view.buffer for factor in factors[:3]), *scratch, *([potential] if potential else []), out]
    work = spec.heads * timesteps * (spec.queries + spec.keys) * spec.depth * spec.width // 4
    state.call(node.name, "attention", spec, build_attention, buffers, work=work)
    reason, call = "two products of spikes before the neurons", len(state.program.calls) - 1
    state.program.kernels.append(Chosen(layer=node.name, kernel="attention", reason=reason, call=call))
    return True


def _spikes(
    sums: _Factor, heads: Sequence[tuple[Atom, ...]], time: Sequence[tuple[Atom, ...]], views: tuple[View, View]
) -> tuple[int, int, int] | None:
    """Strides of heads, time and tokens of the spikes; None unless their channels are dense."""
    pairs = [pair for axis in align(views) for pair in axis if pair[0].size > 1]
    atoms = [heads[0][-1] if heads else None, time[0][-1] if time else None, sums.tokens, sums.channels]
    strides = [_stride(pairs, atom) for atom in atoms]
    if strides[3] not in (0, 1) or None in strides:
        return None
    head, step, token = (stride or 0 for stride in strides[:3])
    return head, step, token


def _stride(pairs: Sequence[tuple[Atom, ...]], atom: Atom | None) -> int | None:
    """Stride in the second view of what is an atom in the first; 0 for extent 1, None if it is not evenly spaced."""
    if atom is None or atom.size == 1:
        return 0
    inside = sorted(
        (pair for pair in pairs if atom.stride <= pair[0].stride < atom.stride * atom.size),
        key=lambda pair: pair[0].stride,
    )
    around = [pair for pair in pairs if pair[0].stride < atom.stride < pair[0].stride * pair[0].size]
    if around:
        (a, b), *_ = around
        steps = atom.stride // a.stride
        return b.stride * steps if steps * atom.size <= a.size else None
    extent = 1
    for a, b in inside:
        if a.stride != atom.stride * extent or b.stride != inside[0][1].stride * extent:
            return None
        extent *= a.size
    return inside[0][1].stride if inside and extent >= atom.size and extent % atom.size == 0 else None


def _timeless(stride: int, step: int, timesteps: int) -> int:
    """Stride of the potentials, which lie as the spikes do but without time."""
    return stride // timesteps if stride > step else stride
