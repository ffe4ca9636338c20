"""Rules for the operators that choose tokens, take them out and put them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from svitkit.errors import UnsupportedError
from svitkit.runtime.density import mixed
from svitkit.runtime.import_onnx import Node
from svitkit.runtime.kernels.tokens import (
    PlacesSpec,
    PutSpec,
    Rows,
    ScoreSpec,
    TakeSpec,
    TopSpec,
    build_places,
    build_put,
    build_score,
    build_take,
    build_top,
)
from svitkit.runtime.lowering.translation import Lowering
from svitkit.runtime.view import PACKED, SPIKES, Atom, Axis, Buffer, View, merge, store


@dataclass
class Joined:
    """Computed tokens and, behind them, all that there were: what puts them back reads both.

    Attributes:
        output: name of the joined value.
        computed, whole: the two.
        axis: that of the tokens.
    """

    output: str
    computed: View
    whole: View
    axis: int

    def emit(self, state: Lowering, out: Buffer) -> None:
        """Refuses: nothing but putting tokens back needs the joined value."""
        raise UnsupportedError(f"'{self.output}' joins tensors, and something else than a Gather of tokens reads it.")


def lower_score(state: Lowering, node: Node) -> None:
    """Score: one number a token, of spikes or counts (T, 1, C, H, W)."""
    x = state.read(node.inputs[0])
    if x.shape[1] != 1:
        raise UnsupportedError(f"scores are made of one input at a time, got {x.shape[1]}.")
    axes = [merge(axis) for axis in x.axes]
    if any(len(axis) > 1 for axis in axes):
        x = state.contiguous(x)
        axes = [merge(axis) for axis in x.axes]
    if x.buffer.dtype not in (*SPIKES, "float32"):
        raise UnsupportedError(f"scores are made of spikes or counts, got {x.buffer.dtype}.")
    time, _, channel, height, width = ((axis or (Atom(1, 0, "space"),))[0] for axis in axes)
    spec = ScoreSpec(
        criterion=node.attributes["criterion"],
        grid=(height.size, width.size),
        timesteps=time.size,
        channels=channel.size,
        strides=(height.stride, width.stride, time.stride, channel.stride),
        offset=x.offset,
        elements=x.buffer.elements,
        dtype=x.buffer.dtype,
    )
    tokens = prod(spec.grid)
    out = Buffer(node.outputs[0], "int32", (tokens,))
    work = tokens * spec.timesteps * spec.channels * (12 if spec.criterion == "difference" else 1)
    state.call(node.name, "score_tokens", spec, build_score, [x.buffer, out], work=work)
    state.values[node.outputs[0]] = View(out, ((), _line(tokens)))


def lower_top(state: Lowering, node: Node) -> None:
    """TopK of one row: the numbers of the largest scores; their values have no reader."""
    scores = state.read(node.inputs[0])
    wanted, tokens = state.graph.constants.get(node.inputs[1]), prod(scores.shape)
    kept = 0 if wanted is None else int(wanted.reshape(-1)[0])
    told = node.attributes
    best_first = told.get("largest", 1) == told.get("sorted", 1) == 1
    row = scores.shape[-1] == tokens and told["axis"] in (-1, len(scores.shape) - 1)
    if state.consumers.get(node.outputs[0]) or not 1 <= kept <= tokens or not row or not best_first:
        raise UnsupportedError(f"TopK of {scores.shape} for {kept}: only the numbers of one row's largest are known.")
    if not scores.is_contiguous():
        scores = state.contiguous(scores)
    out = Buffer(node.outputs[1], "int32", (kept,), limit=tokens - 1)
    spec = TopSpec(tokens, kept, scores.buffer.dtype)
    state.call(node.name, "top_tokens", spec, build_top, [scores.buffer, out])
    state.values[node.outputs[1]] = View(out, (*((),) * (len(scores.shape) - 1), _line(kept)))


def lower_places(state: Lowering, node: Node) -> None:
    """ScatterElements of 0..k-1 into k..k+N-1: where every token's row comes from."""
    given, updates = (state.graph.constants.get(node.inputs[index]) for index in (0, 2))
    kept = 0 if updates is None else updates.size
    numbers = np.arange(kept + (0 if given is None else given.size))
    if (
        given is None
        or updates is None
        or node.attributes.get("reduction", b"none") != b"none"
        or not (np.array_equal(given, numbers[kept:]) and np.array_equal(updates, numbers[:kept]))
    ):
        raise UnsupportedError("ScatterElements is known for the places of tokens only, as 'svitkit export' writes it.")
    index, count = _numbers(state, node.inputs[1], given.size)
    if count != kept:
        raise UnsupportedError(f"ScatterElements has {count} numbers for {kept} places of tokens.")
    out = Buffer(node.outputs[0], "int32", (given.size,), limit=kept + given.size - 1)
    state.call(node.name, "token_places", PlacesSpec(given.size, kept), build_places, [index, out])
    state.values[node.outputs[0]] = View(out, (_line(given.size),))


def lower_concat(state: Lowering, node: Node) -> None:
    """Concat of computed tokens and all that there were; it waits for the Gather that puts them back."""
    if len(node.inputs) != 2:
        raise UnsupportedError(
            "Concat is known for computed tokens and all that there were, as 'svitkit export' writes it."
        )
    computed, whole = (state.read(name) for name in node.inputs)
    axis = int(node.attributes["axis"]) % len(whole.axes)
    joined = computed.shape[axis] + whole.shape[axis]
    buffer = Buffer(node.outputs[0], whole.buffer.dtype, (joined,))
    axes = tuple(_line(joined) if at == axis else given for at, given in enumerate(whole.axes))
    state.values[node.outputs[0]] = View(buffer, axes)
    state.waiting[buffer] = Joined(node.outputs[0], computed, whole, axis)


def lower_gather(state: Lowering, node: Node) -> None:
    """Gather along the tokens: takes some out, or puts computed ones back."""
    source = state.values[node.inputs[0]]
    axis = int(node.attributes.get("axis", 0)) % len(source.axes)
    waiting = state.waiting.get(source.buffer)
    index, count = _index(state, node, source.shape[axis])
    if isinstance(waiting, Joined) and waiting.axis == axis:
        del state.waiting[source.buffer]
        _put(state, node, waiting, index, count)
    else:
        _take(state, node, state.read(node.inputs[0]), axis, index, count)


def _index(state: Lowering, node: Node, extent: int) -> tuple[Buffer, int]:
    name = node.inputs[1]
    if name not in state.graph.constants:
        return _numbers(state, name, extent)
    numbers = state.graph.constants[name]
    if numbers.ndim != 1 or numbers.size == 0 or numbers.min() < 0 or numbers.max() >= extent:
        raise UnsupportedError(f"the numbers of the tokens must be a vector of 0 to {extent - 1}.")
    return state.weights(f"{node.name}.numbers", numbers.astype(np.int32)), numbers.size


def _numbers(state: Lowering, name: str, extent: int) -> tuple[Buffer, int]:
    """Numbers that were computed, none of them beyond the last of ``extent`` tokens, and how many they are."""
    view = state.read(name)
    limit = view.buffer.limit
    if view.buffer.dtype != "int32" or limit is None or limit >= extent or not view.is_contiguous():
        raise UnsupportedError(f"numbers of tokens must come from a TopK over {extent} of them at most.")
    return view.buffer, prod(view.shape)


def _take(state: Lowering, node: Node, x: View, axis: int, index: Buffer, count: int) -> None:
    out = _result(node.outputs[0], x, axis, count, x.buffer.dtype)
    out.buffer.limit, out.buffer.density = x.buffer.limit, x.buffer.density
    extents, (given, made) = _rows((x, out), axis)
    spec = TakeSpec(count, extents, given, made)
    buffers = [x.buffer, index, out.buffer]
    state.call(node.name, "take_tokens", spec, build_take, buffers, work=out.buffer.elements)
    state.values[node.outputs[0]] = out


def _put(state: Lowering, node: Node, joined: Joined, index: Buffer, count: int) -> None:
    computed, whole, axis = joined.computed, joined.whole, joined.axis
    kept = computed.shape[axis]
    if count != whole.shape[axis]:
        raise UnsupportedError(f"{count} tokens are put back in the place of {whole.shape[axis]}.")
    dtypes = {computed.buffer.dtype, whole.buffer.dtype}
    if len(dtypes) > 1 and not dtypes <= set(SPIKES):
        computed, whole = state.contiguous(computed), state.contiguous(whole)
    dtype = whole.buffer.dtype if whole.buffer.dtype == computed.buffer.dtype else "uint8"
    out = _result(node.outputs[0], whole, axis, count, dtype)
    limits, densities = ([getattr(view.buffer, name) for view in (computed, whole)] for name in ("limit", "density"))
    out.buffer.limit = None if None in limits else max(limits)
    out.buffer.density = None if None in densities else mixed(*densities, share=kept / count)
    extents, (first, second, made) = _rows((computed, whole, out), axis)
    spec = PutSpec(count, kept, extents, first, second, made)
    buffers = [computed.buffer, whole.buffer, index, out.buffer]
    state.call(node.name, "put_tokens", spec, build_put, buffers, work=out.buffer.elements)
    state.values[node.outputs[0]] = out


def _line(count: int) -> Axis:
    return (Atom(count, 1, "space"),) if count > 1 else ()


def _result(name: str, x: View, axis: int, count: int, dtype: str) -> View:
    """A tensor like ``x`` with another number of tokens, every value of it stored; spikes packed if rows are whole."""
    axes = [list(_line(count)) if at == axis else list(given) for at, given in enumerate(x.axes)]
    whole = [[replace(atom, stride=1) for atom in given] for given in axes]
    if dtype == PACKED and sum(atom.role == "channel" for atoms in whole for atom in atoms) != 1:
        dtype = "uint8"
    return store(name, whole, dtype)


def _rows(views: Sequence[View], axis: int) -> tuple[tuple[int, ...], list[Rows]]:
    """Extents of a row in the last view's order, joined where they lie behind one another in all, and the rows."""
    inner = [
        [atom for at, atoms in enumerate(view.axes) if at != axis for atom in atoms if atom.size > 1] for view in views
    ]
    if len({tuple(atom.size for atom in atoms) for atoms in inner}) > 1:
        raise UnsupportedError(f"tokens of shapes {[view.shape for view in views]} are divided in different ways.")
    columns = sorted(zip(*inner, strict=True), key=lambda atoms: -atoms[-1].stride)
    joined: list[tuple[Atom, ...]] = []
    for atoms in columns:
        if joined and all(a.stride == b.size * b.stride for a, b in zip(joined[-1], atoms, strict=True)):
            atoms = tuple(replace(b, size=a.size * b.size) for a, b in zip(joined.pop(), atoms, strict=True))
        joined.append(atoms)
    joined = joined or [tuple(Atom(1, 1, "channel") for _ in views)]
    rows = [
        Rows(
            factors=tuple((atom.size, atom.stride) for atom in merge(view.axes[axis])) or ((1, 0),),
            strides=tuple(atoms[number].stride for atoms in joined),
            offset=view.offset,
            elements=view.buffer.elements,
            dtype=view.buffer.dtype,
        )
        for number, view in enumerate(views)
    ]
    return tuple(atoms[0].size for atoms in joined), rows
