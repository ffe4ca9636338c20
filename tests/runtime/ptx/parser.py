"""Reads PTX, as far as TVM's LLVM writes it, into kernels of basic blocks.

A block is a run of instructions without a label or a branch inside: whatever threads begin it go through all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

_ENTRY = re.compile(
    r"^\.visible \.entry (\w+)\((.*?)\)\s*(?:\.maxntid ([\d, ]+))?\s*\n\{\n(.*?)^\}", re.DOTALL | re.MULTILINE
)
_PARAMETER = re.compile(r"^\s*\.param \.[bu]64 (?:\.ptr (?:\.\w+ )*(?:\.align \d+ )?)?(\w+)$")
_REGISTERS = re.compile(r"^\.reg \.(\w+)\s+(%\w+)<(\d+)>$")
_LABEL = re.compile(r"^(\$\w+):$")
_INSTRUCTION = re.compile(r"^(?:@(!?)(%\w+)\s+)?([\w.]+)(?:\s+(.+))?$")
_REGISTER = re.compile(r"%\w+(?!\w*\.)")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")
_BITS = {"pred": 1, "b16": 16, "b32": 32, "b64": 64}


class PtxError(Exception):
    """A text that is not understood, or a kernel that does what it must not."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: as it stands in the file.
        opcode: its parts: ``("setp", "eq", "b32")``.
        operands: registers, constants, ``[addresses]``, ``{vectors}`` and labels.
        guard: the predicate without which it does nothing, and whether that must be false; of branches only.
    """

    text: str
    opcode: tuple[str, ...]
    operands: tuple[str, ...]
    guard: tuple[str, bool] | None = None

    @property
    def is_store(self) -> bool:
        """Whether it writes memory and no register."""
        return self.opcode[0] == "st"

    def written(self) -> tuple[str, ...]:
        """Registers that it writes."""
        return () if self.is_store else registers_in(self.operands[0])

    def read(self) -> list[str]:
        """Registers that it reads."""
        return [name for each in self.operands[0 if self.is_store else 1 :] for name in registers_in(each)]


@dataclass
class Block:
    """Instructions that follow one another, and where threads go from there.

    Attributes:
        instructions: without the branch at the end.
        guard: predicate of the branch, and whether it must be false for it; None for one that is always taken.
        target: number of the block that it leads to; None where threads end.
        falls: number of the next block, for threads that do not branch; None where all do.
    """

    instructions: list[Instruction] = field(default_factory=list)
    guard: tuple[str, bool] | None = None
    target: int | None = None
    falls: int | None = None

    @property
    def successors(self) -> tuple[int | None, ...]:
        """Blocks that may follow; None is the end."""
        return (self.target,) if self.falls is None else (self.target, self.falls)

    def read_first(self) -> set[str]:
        """Registers that it reads before it writes them."""
        known: set[str] = set()
        found: set[str] = set()
        for instruction in self.instructions:
            found.update(set(instruction.read()) - known)
            known.update(instruction.written())
        return found if self.guard is None else found | ({self.guard[0]} - known)


@dataclass(frozen=True)
class Kernel:
    """An entry of a module.

    Attributes:
        name: its symbol.
        parameters: names of its parameters, 64 bits each.
        registers: width in bits by name.
        blocks: the first one is where threads begin.
    """

    name: str
    parameters: tuple[str, ...]
    registers: dict[str, int]
    blocks: tuple[Block, ...]

    @cached_property
    def post_dominators(self) -> tuple[set[int | None], ...]:
        """For every block, the blocks that every way from it to the end goes through; None is the end."""
        everything: set[int | None] = {None, *range(len(self.blocks))}
        found = [set(everything) for _ in self.blocks]
        changed = True
        while changed:
            changed = False
            for number in reversed(range(len(self.blocks))):
                behind = [{None} if each is None else found[each] for each in self.blocks[number].successors]
                now = set[int | None].intersection(*behind) | {number}
                changed |= now != found[number]
                found[number] = now
        return tuple(found)

    def divergent(self, number: int) -> set[int]:
        """Blocks that some threads of a warp may run alone once the branch at the end of a block has parted them."""
        together = self.post_dominators[number] - {number}
        found: set[int] = set()
        ahead = [each for each in self.blocks[number].successors if each not in together]
        while ahead:
            block = ahead.pop()
            if block is not None and block not in found:
                found.add(block)
                ahead += [each for each in self.blocks[block].successors if each not in together]
        return found


@cache
def registers_in(operand: str) -> tuple[str, ...]:
    """Names of the registers in an operand, special ones such as ``%tid.x`` excepted."""
    return tuple(_REGISTER.findall(operand))


def parse(text: str) -> dict[str, Kernel]:
    """Returns the kernels of a module by their symbols.

    Raises:
        PtxError: something stands there that is not understood.
    """
    text = re.sub(r"//.*", "", text)
    kernels = {}
    for name, parameters, _, body in _ENTRY.findall(text):
        names = tuple(_match(_PARAMETER, line)[1] for line in parameters.strip().split(",\n") if line)
        kernels[name] = _kernel(name, names, body)
    left = _ENTRY.sub("", text).split("\n")
    strange = [line for line in left if line.strip() and not re.match(r"\.(version|target|address_size) ", line)]
    if strange:
        raise PtxError(f"outside of kernels stands '{strange[0]}'")
    return kernels


def _kernel(name: str, parameters: tuple[str, ...], body: str) -> Kernel:
    registers: dict[str, int] = {}
    blocks, labels = [Block()], dict[str, int]()
    targets: dict[int, str] = {}
    for statement in _statements(body):
        if found := _LABEL.match(statement):
            if blocks[-1].instructions or len(blocks) - 1 in targets:
                blocks.append(Block())
            labels[found[1]] = len(blocks) - 1
        elif found := _REGISTERS.match(statement):
            registers |= {f"{found[2]}{number}": _BITS[found[1]] for number in range(int(found[3]))}
        else:
            instruction = _instruction(statement)
            if instruction.opcode[0] not in ("bra", "ret"):
                blocks[-1].instructions.append(instruction)
                continue
            targets[len(blocks) - 1] = instruction.operands[0] if instruction.operands else ""
            blocks[-1].guard = instruction.guard
            blocks.append(Block())
    for number, block in enumerate(blocks[:-1]):
        if number in targets:
            block.target = labels[targets[number]] if targets[number] else None
            block.falls = number + 1 if block.guard else None
        else:
            block.target = number + 1
    return Kernel(name, parameters, registers, tuple(blocks))


def _statements(body: str) -> Iterator[str]:
    for line in body.split("\n"):
        line = line.strip()
        if line:
            yield line.removesuffix(";")


def _instruction(text: str) -> Instruction:
    negated, predicate, opcode, operands = _match(_INSTRUCTION, text).groups()
    if predicate and not opcode.startswith("bra"):
        raise PtxError(f"only branches may have a predicate: '{text}'")
    guard = (predicate, bool(negated)) if predicate else None
    return Instruction(text, tuple(opcode.split(".")), tuple(_OPERAND.findall(operands or "")), guard)


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.match(text)
    if found is None:
        raise PtxError(f"'{text.strip()}' is not understood")
    return found
