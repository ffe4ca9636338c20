"""Strided views: every reshape, transpose, split and broadcast of a tensor without moving a byte.

A value of the graph is a :class:`View`: a buffer, an offset, and for each of its axes a list of :class:`Atom` (size and
stride), outermost first. An axis of several atoms is a product such as H x W flattened into tokens. Because
the atoms carry their own strides, a convolution may keep its result with channels innermost while the
graph goes on speaking of (T, B, C, H, W). A broadcast atom has stride 0 and is not stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Literal

from svitkit.errors import UnsupportedError
from svitkit.runtime.density import Density

Role = Literal["space", "time", "channel"]
STORAGE_ORDER: tuple[Role, ...] = ("space", "time", "channel")
ITEM_BYTES = {"float32": 4, "int32": 4, "float16": 2, "uint16": 2, "int16": 2, "uint8": 1, "int8": 1}
PACKED = "uint1"
"""Spikes packed 32 to a word: GPUs only. Every row of channels begins with a new word."""
WORD = 32
SPIKES = ("uint8", PACKED)
"""Types that hold spikes, and of bytes also counts."""


@dataclass(eq=False)
class Buffer:
    """A piece of memory that kernels read and write.

    Attributes:
        name: the graph value it holds.
        dtype: numpy dtype name, or ``uint1`` for packed spikes.
        shape: extents in storage order; of packed spikes, all channels are the last one.
        limit: largest value an integer buffer can hold, None for real values.
        density: how often a value of an integer buffer occurs; None where nothing is known.
        space: which part of the memory plan it lives in.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    limit: int | None = None
    density: Density | None = None
    space: Literal["workspace", "states", "weights"] = "workspace"

    @property
    def elements(self) -> int:
        """Number of elements; of packed spikes with those that fill up rows to whole words."""
        if self.dtype == PACKED:
            return prod(self.shape[:-1]) * whole_words(self.shape[-1])
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size in bytes."""
        return self.elements // 8 if self.dtype == PACKED else self.elements * ITEM_BYTES[self.dtype]


def whole_words(channels: int) -> int:
    """Channels of a row of packed spikes, filled up to whole words."""
    return -(-channels // WORD) * WORD


@dataclass(frozen=True)
class Atom:
    """One factor of an axis: extent, stride in elements (0 = broadcast), and what it stands for."""

    size: int
    stride: int
    role: Role

    def split(self, inner: int) -> tuple[Atom, Atom]:
        """Splits into an outer atom and an inner one of ``inner`` elements."""
        return Atom(self.size // inner, self.stride * inner, self.role), Atom(inner, self.stride, self.role)


Axis = tuple[Atom, ...]


@dataclass(frozen=True)
class View:
    """A value of the graph as it lies in memory."""

    buffer: Buffer = field(repr=False)
    axes: tuple[Axis, ...]
    offset: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents as the graph sees them."""
        return tuple(prod(atom.size for atom in axis) for axis in self.axes)

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """All atoms in the graph's order."""
        return tuple(atom for axis in self.axes for atom in axis)

    def reshape(self, shape: Sequence[int]) -> View:
        """Regroups the atoms, splitting where the new shape asks for it.

        Raises:
            UnsupportedError: the new extents cut an atom unevenly, so that bytes would have to move.
        """
        if prod(shape) != prod(self.shape):
            raise UnsupportedError(f"cannot reshape {self.shape} to {tuple(shape)}: the sizes differ.")
        rest = [atom for atom in self.atoms if atom.size != 1]
        axes: list[Axis] = []
        for extent in reversed(shape):
            taken: list[Atom] = []
            while extent > 1:
                atom = rest.pop()
                if extent % atom.size and atom.size % extent:
                    raise UnsupportedError(
                        f"reshape of {self.shape} to {tuple(shape)} cuts an axis of {atom.size} unevenly; wanted "
                        f"factors of the axis. Write the network with whole heads or tokens."
                    )
                if atom.size > extent:
                    outer, atom = atom.split(extent)
                    rest.append(outer)
                taken.insert(0, atom)
                extent //= atom.size
            axes.insert(0, tuple(taken))
        return replace(self, axes=tuple(axes))

    def transpose(self, permutation: Sequence[int]) -> View:
        """Reorders the axes."""
        return replace(self, axes=tuple(self.axes[axis] for axis in permutation))

    def slice(self, axis: int, start: int, stop: int) -> View:
        """Keeps ``start:stop`` of one axis.

        Raises:
            UnsupportedError: the axis is a product of atoms apart in memory that the range does not respect.
        """
        factors = merge(self.axes[axis]) or self.axes[axis]
        inner = prod(atom.size for atom in factors[1:])
        if start % inner or stop % inner:
            raise UnsupportedError(f"slice {start}:{stop} of axis {axis} of {self.shape} cuts through its factors.")
        outer = factors[0]
        kept = Atom((stop - start) // inner, outer.stride, outer.role)
        axes = (*self.axes[:axis], (kept, *factors[1:]), *self.axes[axis + 1 :])
        return replace(self, axes=axes, offset=self.offset + start // inner * outer.stride)

    def expand(self, shape: Sequence[int], role: Role) -> View:
        """Broadcasts axes of extent 1, and adds leading ones, to ``shape``."""
        padded = ((),) * (len(shape) - len(self.axes)) + self.axes
        axes = []
        for axis, extent in zip(padded, shape, strict=True):
            size = prod(atom.size for atom in axis)
            if size not in (1, extent):
                raise UnsupportedError(f"cannot broadcast {self.shape} to {tuple(shape)}.")
            axes.append(axis if size == extent else (Atom(extent, 0, role),))
        return replace(self, axes=tuple(axes))

    def is_contiguous(self) -> bool:
        """Whether the elements lie in the graph's order without gaps."""
        expected = 1
        for atom in reversed([atom for atom in self.atoms if atom.size > 1]):
            if atom.stride != expected:
                return False
            expected *= atom.size
        return self.offset == 0 and expected == self.buffer.elements


def merge(axis: Iterable[Atom]) -> Axis:
    """Joins neighbouring atoms that lie behind one another in memory."""
    merged: list[Atom] = []
    for atom in axis:
        if atom.size == 1:
            continue
        if merged and merged[-1].stride == atom.size * atom.stride:
            atom = Atom(merged.pop().size * atom.size, atom.stride, atom.role)
        merged.append(atom)
    return tuple(merged)


def align(views: Sequence[View]) -> list[list[tuple[Atom, ...]]]:
    """Brings views of broadcastable shapes to common atoms.

    Returns:
        For every axis of the broadcast shape, a list with, for every common atom, that atom in each of the views.
    """
    rank = max(len(view.axes) for view in views)
    padded = [((),) * (rank - len(view.axes)) + view.axes for view in views]
    return [_align_axis([axes[index] for axes in padded]) for index in range(rank)]


def _align_axis(axes: Sequence[Axis]) -> list[tuple[Atom, ...]]:
    """Splits axes at the union of their factor boundaries; axes of extent 1 broadcast."""
    extents = [prod(atom.size for atom in axis) for axis in axes]
    extent = max(extents)
    if any(size not in (1, extent) for size in extents):
        raise UnsupportedError(f"extents {extents} do not broadcast.")
    cuts = {1, extent}
    for axis, size in zip(axes, extents, strict=True):
        if size == extent:
            cuts |= {prod(atom.size for atom in axis[index:]) for index in range(len(axis))}
    bounds = sorted(cuts)
    if any(high % low for low, high in pairwise(bounds)):
        raise UnsupportedError(
            f"axes of factors {[[atom.size for atom in axis] for axis in axes]} have no common factors."
        )
    sizes = [high // low for low, high in pairwise(bounds)][::-1]
    role: Role = next(
        (axis[0].role for axis, size in zip(axes, extents, strict=True) if size == extent and axis), "channel"
    )
    columns = [
        _cut(axis, sizes) if size == extent else [Atom(part, 0, role) for part in sizes]
        for axis, size in zip(axes, extents, strict=True)
    ]
    return list(zip(*columns, strict=True))


def _cut(axis: Axis, sizes: Sequence[int]) -> list[Atom]:
    """Splits an axis into atoms of exactly ``sizes``, outermost first."""
    rest = [atom for atom in axis if atom.size > 1]
    pieces: list[Atom] = []
    for size in reversed(sizes):
        atom = rest.pop()
        if atom.size > size:
            outer, atom = atom.split(size)
            rest.append(outer)
        pieces.insert(0, atom)
    return pieces


def store(
    name: str, axes: Sequence[Sequence[Atom]], dtype: str, *, limit: int | None = None, keep_broadcast: bool = True
) -> View:
    """Lays out a new value: space outermost, then time, then channels; broadcast atoms stay unstored.

    Packed spikes are laid out in bits, the channels of a row filled up to whole words.

    Args:
        name: the value's name.
        axes: size and role of every atom, by axis; the strides matter only where they are 0.
        dtype: numpy dtype name.
        limit: largest value of an integer tensor.
        keep_broadcast: whether atoms of stride 0 stay broadcast in the result.
    """
    atoms = [
        (axis_index, atom_index, atom)
        for axis_index, axis in enumerate(axes)
        for atom_index, atom in enumerate(axis)
        if atom.size > 1 and not (keep_broadcast and atom.stride == 0)
    ]
    atoms.sort(key=lambda entry: STORAGE_ORDER.index(entry[2].role))
    strides: dict[tuple[int, int], int] = {}
    stride = 1
    channels = prod(atom.size for _, _, atom in atoms if atom.role == "channel")
    for axis_index, atom_index, atom in reversed(atoms):
        if dtype == PACKED and atom.role != "channel":
            stride = whole_words(stride)  # of the channels; every later one is a multiple already
        strides[axis_index, atom_index] = stride
        stride *= atom.size
    placed = tuple(
        tuple(Atom(atom.size, strides.get((i, j), 0), atom.role) for j, atom in enumerate(axis))
        for i, axis in enumerate(axes)
    )
    if dtype == PACKED:
        rows = tuple(atom.size for _, _, atom in atoms if atom.role != "channel")
        return View(Buffer(name, dtype, (*rows, channels), limit), placed)
    return View(Buffer(name, dtype, tuple(atom.size for _, _, atom in atoms) or (1,), limit), placed)
