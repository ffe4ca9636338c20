"""Assembly as LLVM prints it: its basic blocks, its loops, and a copy of it that counts how often each block runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

COUNTERS = "svit_counts"
_LABEL = re.compile(r"^([.\w$]+):")
_FUNCTION = re.compile(r"^\s*\.type\s+([.\w$]+),\s*[@%]function")
_TEST_BRANCH = re.compile(r"^(tbn?z)(\s+.*,\s*)([.\w$]+)$")


@dataclass(frozen=True, kw_only=True)
class Isa:
    """What one instruction set writes differently.

    Attributes:
        jump, conditional, leave, call: patterns of the mnemonics that go elsewhere; ``leave`` has no target in sight.
        comment: what begins a comment.
        counting: a macro ``svit_count N`` that adds 1 to a counter and changes neither registers nor flags.
    """

    jump: re.Pattern[str]
    conditional: re.Pattern[str]
    leave: re.Pattern[str]
    call: re.Pattern[str]
    comment: str
    counting: str


AARCH64 = Isa(
    jump=re.compile(r"b$"),
    conditional=re.compile(r"(b\.\w+|cbn?z|tbn?z)$"),
    leave=re.compile(r"(ret|br|brk|udf)$"),
    call=re.compile(r"blr?$"),
    comment="//",
    counting=f"""\
	.macro svit_count number
	stp x16, x17, [sp, #-16]!
	adrp x16, {COUNTERS}+8*\\number
	ldr x17, [x16, :lo12:{COUNTERS}+8*\\number]
	add x17, x17, #1
	str x17, [x16, :lo12:{COUNTERS}+8*\\number]
	ldp x16, x17, [sp], #16
	.endm
""",
)
X86 = Isa(
    jump=re.compile(r"jmpq?$"),
    conditional=re.compile(r"j(?!mp)\w+$"),
    leave=re.compile(r"(retq?|ud2)$"),
    call=re.compile(r"callq?$"),
    comment="#",
    counting=f"""\
	.macro svit_count number
	leaq -128(%rsp), %rsp
	pushfq
	incq {COUNTERS}+8*\\number(%rip)
	popfq
	leaq 128(%rsp), %rsp
	.endm
""",
)
ISAS = {"aarch64-linux-gnu": AARCH64, "x86_64-linux-gnu": X86}


@dataclass
class Block:
    """Instructions that run one after the other.

    Attributes:
        counter: number of the counter that tells how often the block ran.
        labels: where others may jump in.
        instructions: without comments.
        target: label of the branch at its end, None if there is none.
        is_conditional: whether that branch may be passed by.
        passed: counter of the times it was.
    """

    counter: int
    labels: tuple[str, ...]
    instructions: list[str] = field(default_factory=list)
    target: str | None = None
    is_conditional: bool = False
    passed: int | None = None

    def taken(self, counts: Mapping[int, float]) -> float:
        """How often its branch was taken."""
        if self.target is None:
            return 0.0
        return counts[self.counter] - (counts[self.passed] if self.passed is not None else 0.0)


@dataclass
class Function:
    """A function's blocks in the order of memory."""

    name: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Neighbouring blocks ``first..last`` that a branch at their end, or several, repeats."""

    first: int
    last: int

    def holds(self, other: Loop) -> bool:
        """Whether another loop lies inside."""
        return self != other and self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A file of assembly.

    Attributes:
        functions: in the file's order.
        counting: the same code with counters; it defines the array ``svit_counts`` and its length ``svit_count_end``.
        counters: their number.
    """

    functions: tuple[Function, ...]
    counting: str
    counters: int


def loops(function: Function) -> list[Loop]:
    """Finds loops as backward branches; those to one label are one loop. Sorted by their beginning."""
    starts = {label: index for index, block in enumerate(function.blocks) for label in block.labels}
    ends: dict[int, int] = {}
    for index, block in enumerate(function.blocks):
        first = starts.get(block.target or "", index + 1)
        if first <= index:
            ends[first] = max(index, ends.get(first, index))
    return [Loop(first=first, last=last) for first, last in sorted(ends.items())]


def innermost_loops(function: Function) -> list[Loop]:
    """The loops that hold no other."""
    found = loops(function)
    return [loop for loop in found if not any(loop.holds(other) for other in found)]


def nesting(function: Function) -> dict[int, int]:
    """Depth of every block: in how many loops it lies."""
    found = loops(function)
    return {i: sum(loop.first <= i <= loop.last for loop in found) for i in range(len(function.blocks))}


def read_assembly(text: str, isa: Isa) -> Assembly:
    """Splits assembly into blocks and writes the counting copy."""
    return _Reader(text, isa).read()


class _Reader:
    """One pass over the lines.

    Attributes:
        waiting: labels of the block that the next instruction begins.
        branch: the block before, if it ended with a conditional branch whose passing by is not yet counted.
        block: the block that instructions are added to.
    """

    def __init__(self, text: str, isa: Isa) -> None:
        self.isa, self.lines = isa, text.splitlines()
        self.names = {match[1] for line in self.lines if (match := _FUNCTION.match(line))}
        self.functions: list[Function] = []
        self.inside = False
        self.counters = 0
        self.waiting: list[str] = []
        self.branch: Block | None = None
        self.block: Block | None = None

    def read(self) -> Assembly:
        counted = [line for source in self.lines for line in self._line(source)]
        array = f"\t.local {COUNTERS}\n\t.comm {COUNTERS},{8 * max(self.counters, 1)},8\n"
        access = f"\t.data\n\t.globl svit_table\n\t.hidden svit_table\n\t.p2align 3\nsvit_table:\n\t.quad {COUNTERS}\n"
        access += f"\t.quad {self.counters}\n"
        text = "\n".join([self.isa.counting, *counted, array, access])
        return Assembly(functions=tuple(self.functions), counting=text, counters=self.counters)

    def _line(self, line: str) -> Iterator[str]:
        label = _LABEL.match(line)
        if label and label[1] in self.names:
            self.functions.append(Function(label[1]))
            self.inside, self.block, self.branch, self.waiting = True, None, None, []
        elif label and label[1].startswith(".Lfunc_end"):
            self.inside = False
        elif self.inside and label and not label[1].startswith((".Ltmp", ".Lfunc_begin")):
            yield from self._begin_at_label(label[1])
        elif self.inside and re.match(r"\s+[a-z]", line):
            yield from self._instruction(line.split(self.isa.comment)[0].strip())
            return
        yield line

    def _begin_at_label(self, label: str) -> Iterator[str]:
        if self.branch is not None:
            self.branch.passed = self._counter()
            yield f"\tsvit_count {self.branch.passed}"
        self.branch = self.block = None
        self.waiting.append(label)

    def _instruction(self, text: str) -> Iterator[str]:
        if self.block is None:
            self.block = Block(self._counter(), tuple(self.waiting))
            self.functions[-1].blocks.append(self.block)
            self.waiting = []
            yield f"\tsvit_count {self.block.counter}"
            if self.branch is not None:
                self.branch.passed, self.branch = self.block.counter, None
        self.block.instructions.append(text)
        mnemonic = text.split()[0]
        conditional = bool(self.isa.conditional.match(mnemonic))
        if conditional or self.isa.jump.match(mnemonic):
            self.block.target = re.split(r"[\s,]+", text)[-1]
            self.block.is_conditional = conditional
            self.branch = self.block if conditional else None
            self.block = None
        elif self.isa.leave.match(mnemonic):
            self.block = None
        yield from _far(text)

    def _counter(self) -> int:
        self.counters += 1
        return self.counters - 1


def _far(text: str) -> list[str]:
    """Lines for an instruction; tbz reaches 32 KiB only, which counters may exceed, so it jumps over a far branch."""
    test = _TEST_BRANCH.match(text)
    if test is None:
        return [f"\t{text}"]
    opposite = "tbz" if test[1] == "tbnz" else "tbnz"
    return [f"\t{opposite}{test[2]}77f", f"\tb {test[3]}", "77:"]
