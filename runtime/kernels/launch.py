"""Kernels for GPUs: the same statements with threads in the place of loops, and spikes packed 32 to a word.

A kernel of :mod:`svitkit.runtime.kernels` that is built inside :func:`for_gpu` becomes a GPU kernel: its shared loops
(:func:`svitkit.runtime.kernels.emit.shared_nest`) are its threads, one for each turn, and its vectors have one lane.

Packed spikes (dtype ``uint1``) are 32-bit words; element i is bit i % 32 of word i // 32. A kernel that writes them
runs with one lane for each bit of a word: 32 neighbouring threads that hold 32 neighbouring channels. CUDA collects
their bits with one vote, OpenCL 1.2 through local memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from tvm.script.ir_builder import tirx as T

from svitkit.runtime.view import PACKED, WORD, whole_words

Expr = Any  # a TIR expression; TVM ships no types
Api = Literal["cuda", "opencl"]

BLOCK = 128  # threads of a block: four warps, and within the limits of every OpenCL device
STATE = "v_state"  # name of the argument with potentials in step mode
_STORED = {PACKED: "uint32"}  # types of memory that differ from those of the values


@dataclass(frozen=True)
class Launch:
    """How many blocks of how many threads a kernel is launched with."""

    blocks: int
    threads: int


@dataclass
class Gpu:
    """A GPU kernel that is being built.

    Attributes:
        api: what is generated: CUDA's PTX, or OpenCL C.
        packs: whether it writes packed spikes.
        launch: its threads; None until they are opened.
        lane: number of the thread in its word.
        thread: number of the thread in its block.
        valid: whether this thread has an element of its own; None if all threads have.
        bits: local memory, a byte for each thread (OpenCL).
        declare: what declares other arguments in the place of one, by its name (:mod:`svitkit.runtime.kernels.fused`).
    """

    api: Api
    packs: bool = False
    launch: Launch | None = None
    lane: Expr = None
    thread: Expr = None
    valid: Expr = None
    bits: Expr = None
    declare: dict[str, Callable[[Gpu, tuple[str, int, str]], Any]] = field(default_factory=dict)

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """Product of two float32 numbers and sum with a third, rounded once."""
        if self.api == "cuda":
            return T.call_llvm_pure_intrin("float32", "llvm.fma", a, b, c)
        return T.call_pure_extern("float32", "fma", a, b, c)

    @contextmanager
    def set_bits(self, word: Expr) -> Iterator[Expr]:
        """Emits a loop over the set bits of a word, and yields their numbers, the lowest first."""
        left = T.alloc_buffer((1,), "uint32", scope="local")
        T.buffer_store(left, word, [0])
        with T.While(left[0] != T.uint32(0)):
            yield self._lowest_bit(left[0])
            T.buffer_store(left, T.bitwise_and(left[0], left[0] - T.uint32(1)), [0])

    def _lowest_bit(self, word: Expr) -> Expr:
        """Number of the lowest set bit of a word that is not 0."""
        if self.api == "cuda":
            return T.call_llvm_pure_intrin("int32", "llvm.cttz", T.reinterpret("int32", word), T.bool(True))
        alone = T.bitwise_and(word, T.uint32(0) - word)
        return T.int32(WORD - 1) - T.clz(T.reinterpret("int32", alone))


_gpu: ContextVar[Gpu | None] = ContextVar("gpu", default=None)


@contextmanager
def for_gpu(api: Api) -> Iterator[Gpu]:
    """Builds a kernel for a GPU inside the block."""
    gpu = Gpu(api)
    token = _gpu.set(gpu)
    try:
        yield gpu
    finally:
        _gpu.reset(token)


def current_gpu() -> Gpu | None:
    """The GPU kernel that is being built, None for the CPU."""
    return _gpu.get()


class Target(ABC):
    """What a GPU kernel stores elements in."""

    @abstractmethod
    def store(self, address: Expr, value: Expr) -> None:
        """Emits that an element is stored, in the threads that have one of their own."""

    @abstractmethod
    def with_validity(self, valid: Expr) -> Target:
        """The same, stored only where ``valid``."""

    def opened(self) -> Target:
        """The same, for a thread that begins to store the time steps of one neuron."""
        return self


@dataclass(frozen=True)
class DeviceBuffer(Target):
    """A kernel's argument in the memory of a GPU.

    Attributes:
        gpu: the kernel.
        memory: the buffer as TVM knows it, in words where spikes are packed.
        dtype: of the values.
        valid: overrides whether this thread's element is its own (:attr:`Gpu.valid`).
        is_state: whether the kernel also reads what it stores here; a thread then reads its own elements only.
    """

    gpu: Gpu
    memory: Expr
    dtype: str
    valid: Expr = field(default=None)
    is_state: bool = False

    def __getitem__(self, index: Expr) -> Expr:
        """An element; a packed one is 0 or 1 as uint8, a float16 one is float32."""
        if self.is_state and self._validity() is not None:
            return T.if_then_else(self._validity(), self.memory[index], T.cast(T.int32(0), self.dtype))
        if self.dtype == PACKED:
            return T.cast(T.bitwise_and(T.shift_right(self.word(index), _bit(index)), T.uint32(1)), "uint8")
        if self.dtype == "float16":
            return self._half(index)
        return self.memory[index]

    def word(self, index: Expr) -> Expr:
        """The word that holds a packed element."""
        return self.memory[T.shift_right(index, T.int32(5))]

    def store(self, address: Expr, value: Expr) -> None:
        """Emits ``self[address] = value``; a packed word is written by the lane of its first bit."""
        valid = self._validity()
        if self.dtype == PACKED:
            fired = value != T.uint8(0)
            self._store_word(address, fired if valid is None else T.And(valid, fired))
        elif valid is None:
            T.buffer_store(self.memory, value, [address])
        else:
            with T.If(valid), T.Then():
                T.buffer_store(self.memory, value, [address])

    def with_validity(self, valid: Expr) -> DeviceBuffer:
        """The same buffer, stored to only where ``valid``."""
        return replace(self, valid=valid)

    def _validity(self) -> Expr:
        return self.gpu.valid if self.valid is None else self.valid

    def _half(self, index: Expr) -> Expr:
        if self.gpu.api == "cuda":
            return T.cast(self.memory[index], "float32")
        # OpenCL loads halves everywhere, and computes with them only where an extension is
        return T.call_pure_extern("float32", "vload_half", index, self.memory.data)

    def _store_word(self, index: Expr, fired: Expr) -> None:
        gpu, target = self.gpu, T.shift_right(index, T.int32(5))
        if gpu.api == "cuda":
            word = T.alloc_buffer((1,), "int32", scope="local")
            T.buffer_store(word, T.call_llvm_intrin("int32", "llvm.nvvm.vote.ballot.sync", T.int32(-1), fired), [0])
            with T.If(gpu.lane == 0), T.Then():
                T.buffer_store(self.memory, T.reinterpret("uint32", word[0]), [target])
            return
        T.buffer_store(gpu.bits, T.cast(fired, "uint8"), [gpu.thread])
        T.evaluate(T.tvm_storage_sync("shared"))
        with T.If(gpu.lane == 0), T.Then():
            word = T.alloc_buffer((1,), "uint32", scope="local")
            T.buffer_store(word, T.uint32(0), [0])
            with T.serial(0, WORD) as bit:
                moved = T.shift_left(T.cast(gpu.bits[gpu.thread + bit], "uint32"), T.cast(bit, "uint32"))
                T.buffer_store(word, T.bitwise_or(word[0], moved), [0])
            T.buffer_store(self.memory, word[0], [target])
        T.evaluate(T.tvm_storage_sync("shared"))


def _bit(index: Expr) -> Expr:
    return T.cast(T.bitwise_and(index, T.int32(WORD - 1)), "uint32")


def argument(gpu: Gpu, name: str, elements: int, dtype: str) -> DeviceBuffer:
    """Declares an argument of the kernel that is being built."""
    words = elements // WORD if dtype == PACKED else elements
    memory = T.arg(name, T.buffer((words,), _STORED.get(dtype, dtype)))
    return DeviceBuffer(gpu, memory, dtype, is_state=name == STATE)


@contextmanager
def threads(gpu: Gpu, extents: Sequence[int], row: int = 1) -> Iterator[list[Expr]]:
    """Opens one thread for each turn of some loops, and yields the loops' variables.

    Where spikes are packed, the last ``row`` loops run along one row of channels, which is filled up to whole words
    with threads that compute the last channel again and store nothing.
    """
    if not gpu.packs:
        with _single_threads(gpu, prod(extents)) as number:
            yield position_of(number, extents)
        return
    rows, inner = extents[:-row], extents[-row:]
    channels = prod(inner)
    whole = whole_words(channels)
    with warps(gpu, prod(rows) * whole // WORD) as warp:
        *outer, channel = position_of(warp * WORD + gpu.lane, (*rows, whole))
        if whole > channels:
            gpu.valid = channel < channels
            channel = T.min(channel, T.int32(channels - 1))
        yield [*outer, *position_of(channel, inner)]


@contextmanager
def warps(gpu: Gpu, count: int) -> Iterator[Expr]:
    """Opens ``count`` groups of 32 threads, whole ones, and yields the number of the thread's group."""
    together = max(size for size in range(1, BLOCK // WORD + 1) if count % size == 0)
    with _threads(gpu, Launch(count // together, together * WORD)) as (block, thread):
        gpu.thread, gpu.lane = thread, T.truncmod(thread, T.int32(WORD))
        if gpu.packs and gpu.api == "opencl":
            gpu.bits = T.alloc_buffer((together * WORD,), "uint8", scope="shared")
        yield block * together + T.truncdiv(thread, T.int32(WORD))


@contextmanager
def _single_threads(gpu: Gpu, count: int) -> Iterator[Expr]:
    size = min(BLOCK, count)
    with _threads(gpu, Launch(-(-count // size), size)) as (block, thread):
        number = block * size + thread
        if count % size:
            with T.If(number < count), T.Then():
                yield number
        else:
            yield number


@contextmanager
def _threads(gpu: Gpu, launch: Launch) -> Iterator[tuple[Expr, Expr]]:
    if gpu.launch is not None:
        raise ValueError("a kernel has one set of threads: its body opens a second one")
    gpu.launch = launch
    with (
        T.launch_thread("blockIdx.x", launch.blocks) as block,
        T.launch_thread("threadIdx.x", launch.threads) as thread,
    ):
        yield block, thread


def position_of(number: Expr, extents: Sequence[int]) -> list[Expr]:
    """The loops' variables in turn ``number``, the last one running fastest."""
    indices: list[Expr] = []
    inner = 1
    for position, extent in reversed(list(enumerate(extents))):
        index = number if inner == 1 else T.truncdiv(number, T.int32(inner))
        bounded = position == 0 or prod(extents[:position]) == 1
        indices.insert(0, T.int32(0) if extent == 1 else index if bounded else T.truncmod(index, T.int32(extent)))
        inner *= extent
    return indices
