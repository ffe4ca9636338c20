"""Makes a Python function of an instruction: it reads registers of all threads, and writes one or memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.ptx.arithmetic import TYPES, operation
from tests.runtime.ptx.memory import Argument, address_of, argument_at
from tests.runtime.ptx.parser import Instruction, Kernel, PtxError, registers_in

Array = NDArray[Any]
WARP = 32
_ADDRESS = re.compile(r"^\[(%\w+)(?:\+(-?\d+))?\]$")
_CONSTANT = re.compile(r"^(?:0f(?P<float>[0-9A-F]{8})|(?P<integer>-?(?:0x[0-9A-Fa-f]+|\d+))U?)$")
_OF_LOADS = {"global", "nc", "v2", "v4"}
_OF_STORES = {"global", "v2", "v4"}


@dataclass
class State:
    """What threads see that execute a block.

    Attributes:
        arguments: of the launch.
        threads: (active,) int32, numbers in the launch.
        block_size: threads of a block.
        values: (active,) registers, unsigned or bool.
    """

    arguments: Sequence[Argument]
    threads: Array
    block_size: int
    values: dict[str, Array]

    def some(self, active: Array, names: Iterable[str]) -> State:
        """The same for some of the threads, with some of their registers."""
        values = {name: self.values[name][active] for name in names if name in self.values}
        return State(self.arguments, self.threads[active], self.block_size, values)

    @property
    def warps(self) -> Array:
        """Numbers of the threads' warps."""
        block, thread = np.divmod(self.threads, self.block_size)
        return block * -(-self.block_size // WARP) + thread // WARP


Step = Callable[[State], None]
_Read = Callable[[State], Array]
_Write = Callable[[State, Array], None]


def as_step(kernel: Kernel, instruction: Instruction) -> Step:
    """Makes a function of an instruction of a kernel.

    Raises:
        PtxError: it is not known.
    """
    try:
        match instruction.opcode:
            case ("ld", "param", "b64" | "u64"):
                return _load_parameter(kernel, instruction)
            case ("ld", *how, kind) if set(how) <= _OF_LOADS:
                return _load(kernel, instruction, kind, constant="nc" in how)
            case ("st", *how, kind) if set(how) <= _OF_STORES:
                return _store(kernel, instruction, kind)
            case ("vote", "sync", "ballot", "b32"):
                return _ballot(kernel, instruction)
            case ("cvta", "to", "global", "u64"):
                return _compute(kernel, instruction, ("mov", "b64"))
        return _compute(kernel, instruction, instruction.opcode)
    except PtxError as error:
        raise PtxError(f"{kernel.name}, '{instruction.text}': {error}") from None


def _compute(kernel: Kernel, instruction: Instruction, opcode: tuple[str, ...]) -> Step:
    found = operation(opcode)
    target, *sources = instruction.operands
    write = _writer(kernel, target, found.result)
    reads = [_reader(kernel, source, kind) for source, kind in zip(sources, found.sources, strict=True)]
    compute = found.compute

    def step(state: State) -> None:
        write(state, compute(*[read(state) for read in reads]))

    return step


def _load_parameter(kernel: Kernel, instruction: Instruction) -> Step:
    target, source = instruction.operands
    number = kernel.parameters.index(source.strip("[]"))
    write = _writer(kernel, target, "u64")

    def step(state: State) -> None:
        write(state, np.array([address_of(number, state.arguments[number].tensor)], np.uint64))

    return step


def _load(kernel: Kernel, instruction: Instruction, kind: str, *, constant: bool) -> Step:
    target, source = instruction.operands
    names = registers_in(target)
    writes = [_writer(kernel, name, kind) for name in names]
    dtype = TYPES[kind]
    locate = _locator(source, dtype.itemsize * len(names))

    def step(state: State) -> None:
        parts = list(locate(state))
        for place, write in enumerate(writes):
            values = np.empty(len(state.threads), f"u{dtype.itemsize}")
            for argument, chosen, offsets in parts:
                where = offsets + place * dtype.itemsize
                values[chosen] = argument.load(where, dtype.itemsize, state.threads[chosen], constant=constant)
            write(state, values.view(dtype))

    return step


def _store(kernel: Kernel, instruction: Instruction, kind: str) -> Step:
    target, source = instruction.operands
    dtype = TYPES[kind]
    reads = [_reader(kernel, name, kind) for name in source.strip("{}").replace(",", " ").split()]
    locate = _locator(target, dtype.itemsize * len(reads))

    def step(state: State) -> None:
        parts = list(locate(state))
        for place, read in enumerate(reads):
            values = np.broadcast_to(read(state), state.threads.shape).view(f"u{dtype.itemsize}")
            for argument, chosen, offsets in parts:
                argument.store(offsets + place * dtype.itemsize, values[chosen], state.threads[chosen])

    return step


def _ballot(kernel: Kernel, instruction: Instruction) -> Step:
    target, source, members = instruction.operands
    if members != "-1":
        raise PtxError("a vote of a part of a warp is not known")
    write, read = _writer(kernel, target, "b32"), _reader(kernel, source, "pred")
    bits = np.uint32(1) << np.arange(WARP, dtype=np.uint32)

    def step(state: State) -> None:
        threads = state.threads
        if state.block_size % WARP or len(threads) % WARP:
            raise PtxError("a warp votes without all of its threads")
        lanes = threads.reshape(-1, WARP)
        if (lanes != lanes[:, :1] // WARP * WARP + np.arange(WARP)).any():
            raise PtxError("a warp votes without all of its threads")
        fired = np.broadcast_to(read(state), threads.shape).reshape(-1, WARP)
        words = np.bitwise_or.reduce(np.where(fired, bits, np.uint32(0)), axis=1)
        write(state, np.repeat(words, WARP))

    return step


def _locator(operand: str, size: int) -> Callable[[State], Iterator[tuple[Argument, Any, Array]]]:
    """Finds the arguments that addresses of ``size`` aligned bytes point to, for which threads, and offsets in them."""
    found = _ADDRESS.match(operand)
    if found is None:
        raise PtxError(f"the address {operand} is not understood")
    name, displacement = found[1], int(found[2] or 0)

    def locate(state: State) -> Iterator[tuple[Argument, Any, Array]]:
        addresses = state.values[name].view(np.int64) + displacement
        if (addresses % size).any():
            raise PtxError(f"an address of {size} bytes is not aligned")
        numbers = argument_at(addresses)
        everywhere = (numbers == numbers[0]).all()
        for number in numbers[:1] if everywhere else np.unique(numbers):
            if not 0 <= number < len(state.arguments):
                raise PtxError(f"there is no argument at {int(addresses[numbers == number][0]):#x}")
            chosen = slice(None) if everywhere else np.flatnonzero(numbers == number)
            argument = state.arguments[number]
            yield argument, chosen, addresses[chosen] - address_of(int(number), argument.tensor)

    return locate


def _reader(kernel: Kernel, operand: str, kind: str) -> _Read:
    dtype = TYPES[kind]
    if operand in ("%tid.x", "%ctaid.x"):
        split = np.mod if operand == "%tid.x" else np.floor_divide
        return lambda state: split(state.threads, state.block_size).astype(np.uint32)
    if operand in kernel.registers:
        width = kernel.registers[operand]
        if kind == "pred" or width == 8 * dtype.itemsize:
            return lambda state: state.values[operand].view(dtype)
        if width < 8 * dtype.itemsize:
            raise PtxError(f"{operand} has {width} bits, wanted {8 * dtype.itemsize}")
        return lambda state: state.values[operand].astype(f"u{dtype.itemsize}").view(dtype)
    constant = _constant(operand, dtype)
    return lambda state: constant


@cache
def _constant(operand: str, dtype: np.dtype[Any]) -> Array:
    found = _CONSTANT.match(operand)
    fits = found is not None and dtype.kind != "b" and (dtype.itemsize == 4 if found["float"] else dtype.kind != "f")
    if found is None or not fits:
        raise PtxError(f"{operand} is no {dtype}")
    bits = int(found["float"], 16) if found["float"] else int(found["integer"], 0)
    return np.array([bits & (1 << 8 * dtype.itemsize) - 1], f"u{dtype.itemsize}").view(dtype)


def _writer(kernel: Kernel, name: str, kind: str) -> _Write:
    """What puts values into a register, which may be wider: then signed ones keep their sign, others get zeros."""
    dtype, width = TYPES[kind], kernel.registers[name]
    if width != (1 if kind == "pred" else max(width, 8 * dtype.itemsize)) or (
        dtype.kind == "f" and width != int(kind[1:])
    ):
        raise PtxError(f"{name} of {width} bits takes no {kind}")
    wide = dtype if dtype.kind in "fb" else np.dtype(f"{dtype.kind}{width // 8}")
    bits = wide if wide.kind == "b" else np.dtype(f"u{width // 8}")

    def write(state: State, values: Array) -> None:
        values = values.astype(wide, copy=False).view(bits)
        if len(values) != len(state.threads):
            values = np.full(len(state.threads), values[0], bits)
        state.values[name] = values

    return write
