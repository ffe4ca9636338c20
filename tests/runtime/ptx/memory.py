"""The memory of a GPU that watches: who wrote what is read, and whether threads of a launch disturb each other.

Threads of a launch run in no order. What one stores, another may neither load nor change; several may store the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.ptx.parser import PtxError

Array = NDArray[Any]
ITEM_BYTES = {"float32": 4, "int32": 4, "uint1": 4, "float16": 2, "uint16": 2, "int16": 2, "uint8": 1, "int8": 1}
NOBODY, SEVERAL = -1, -2
ADDRESS_BITS = 40  # arguments lie so far apart that no wrong offset leads from one into another
_OWNERS = {1: np.uint16, 2: np.uint32, 4: np.uint64}  # an owner of 16 bits for each byte


@dataclass(frozen=True)
class Tensor:
    """A line of ``program.txt``: elements of ``item_bytes`` at an offset of a space."""

    number: int
    name: str
    dtype: str
    space: str
    offset: int
    size_bytes: int

    @property
    def item_bytes(self) -> int:
        """Bytes of an element, of a word where spikes are packed."""
        return ITEM_BYTES[self.dtype]

    @property
    def bytes(self) -> slice:
        """Where it lies in its space."""
        return slice(self.offset, self.offset + self.size_bytes)


class Memory:
    """Weights, states and workspace, with the tensor that each byte was last written as."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.data = {space: np.zeros(size, np.uint8) for space, size in sizes.items()}
        self.owners = {space: np.zeros(size, np.uint16) for space, size in sizes.items()}

    def put(self, tensor: Tensor, content: bytes) -> None:
        """Writes all of a tensor."""
        self.data[tensor.space][tensor.bytes] = np.frombuffer(content, np.uint8, tensor.size_bytes)
        self.owners[tensor.space][tensor.bytes] = tensor.number + 1

    def get(self, tensor: Tensor) -> Array:
        """Returns the bytes of a tensor.

        Raises:
            PtxError: something else was written there since, or nothing.
        """
        if (self.owners[tensor.space][tensor.bytes] != tensor.number + 1).any():
            raise PtxError(f"not all of {tensor.name} is written")
        return self.data[tensor.space][tensor.bytes].copy()


def address_of(number: int, tensor: Tensor) -> int:
    """Where an argument of a launch begins: in the middle of addresses of its own, aligned as its tensor is."""
    return (2 * number + 3 << ADDRESS_BITS - 1) + tensor.offset


def argument_at(addresses: Array) -> Array:
    """Numbers of the arguments to which addresses belong."""
    return (addresses >> ADDRESS_BITS) - 1


class Argument:
    """A tensor during one launch.

    Args:
        memory: what it lies in.
        tensor: which one.
    """

    def __init__(self, memory: Memory, tensor: Tensor) -> None:
        size = tensor.item_bytes
        self.tensor = tensor
        self.elements = memory.data[tensor.space][tensor.bytes].view(f"u{size}")
        self.owners = memory.owners[tensor.space][tensor.bytes].view(_OWNERS[size])
        self.owner = _OWNERS[size](sum((tensor.number + 1) << 16 * byte for byte in range(size)))
        self.writer = np.full(len(self.elements), NOBODY, np.int32)
        self.reader = np.full(len(self.elements), NOBODY, np.int32)
        self.is_stored = self.is_constant = False

    def load(self, offsets: Array, size: int, threads: Array, *, constant: bool) -> Array:
        """Returns what threads find at byte offsets.

        Args:
            offsets: (threads,) int64.
            size: in bytes, of what one thread loads.
            threads: their numbers.
            constant: whether the load promises that no thread of the launch writes there.
        """
        self.is_constant |= constant
        item = self.tensor.item_bytes
        if size < item:
            (index,) = self._indices(offsets - offsets % item, item)
            self._read(index, threads)
            return (self.elements[index] >> (8 * (offsets % item)).astype(self.elements.dtype)).astype(f"u{size}")
        result: Array | None = None
        for place, index in enumerate(self._indices(offsets, size)):
            self._read(index, threads)
            part = self.elements[index].astype(f"u{size}", copy=False) << (8 * self.tensor.item_bytes * place)
            result = part if result is None else result | part
        assert result is not None
        return result

    def store(self, offsets: Array, values: Array, threads: Array) -> None:
        """Lets threads write values at byte offsets."""
        if self.tensor.space == "weights":
            raise PtxError("writes weights")
        self.is_stored = True
        for place, index in enumerate(self._indices(offsets, values.itemsize)):
            part = values >> (8 * self.tensor.item_bytes * place)
            self._write(index, part.astype(self.elements.dtype), threads)

    def finish(self) -> None:
        """Checks what only the whole launch shows."""
        if self.is_stored and self.is_constant:
            raise PtxError(f"{self.tensor.name} is written and read as a constant in one launch")

    def _indices(self, offsets: Array, size: int) -> list[Array]:
        """Elements that threads access: for each one, an array of one index a thread."""
        if offsets.min() < 0 or offsets.max() + size > self.tensor.size_bytes:
            wrong = offsets[(offsets < 0) | (offsets + size > self.tensor.size_bytes)][0]
            raise PtxError(f"{size} bytes at {wrong} are outside of {self.tensor.name}: {self.tensor.size_bytes} bytes")
        item = self.tensor.item_bytes
        if size < item or (offsets % size).any():
            raise PtxError(f"{size} bytes of {self.tensor.name}, which has elements of {item} bytes, or not aligned")
        first = offsets // item
        return [first] if size == item else [first + place for place in range(size // item)]

    def _read(self, index: Array, threads: Array) -> None:
        if self.tensor.space == "weights":
            return
        if (self.owners[index] != self.owner).any():
            raise PtxError(f"reads what nobody has written as {self.tensor.name}")
        if self.is_stored:
            self._only(self.writer[index], threads, "reads what another thread writes")
        _mark(self.reader, index, threads)

    def _write(self, index: Array, values: Array, threads: Array) -> None:
        self._only(self.reader[index], threads, "writes what another thread reads")
        others = self.writer[index]
        changed = (self.elements[index] != values) & (others != NOBODY) & (others != threads)
        self.elements[index] = values
        if changed.any() or (self.elements[index] != values).any():
            raise PtxError(f"two threads write different values to {self.tensor.name}")
        _mark(self.writer, index, threads)
        self.owners[index] = self.owner

    def _only(self, others: Array, threads: Array, what: str) -> None:
        if ((others != NOBODY) & (others != threads)).any():
            raise PtxError(f"{what}, in {self.tensor.name}")


def _mark(marks: Array, index: Array, threads: Array) -> None:
    """Notes threads at elements, and where there are several, that."""
    known = marks[index]
    now = np.where((known == NOBODY) | (known == threads), threads, SEVERAL)
    marks[index] = now
    marks[index[marks[index] != now]] = SEVERAL
