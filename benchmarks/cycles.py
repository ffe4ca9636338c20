"""From counted blocks and timed code to the cycles of a function.

Three sums: everything at llvm-mca's steady rate with every branch predicted (low); with the mispredictions that spikes
cause (the estimate for cores that run out of order); and with every block outside innermost loops and every entry into
a loop taken by itself, as if nothing ran beside it (high; the estimate for cores that run in order).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from benchmarks.assembly import Block, Function, Isa, Loop, innermost_loops
from benchmarks.mca import Code, Timing

CALL_CYCLES = 50.0  # a function of libm or libc; none stands in a loop that matters
LEARNED_TRIPS = 32  # longer loops are left with a misprediction, even where they always turn equally often
Counts = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What llvm-mca does not say of a core.

    Attributes:
        penalty_cycles: of a mispredicted branch.
        in_order: whether instructions wait for those before them.
    """

    penalty_cycles: float
    in_order: bool


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Code that is timed together.

    Attributes:
        code: its instructions, without calls and returns.
        runs: how often it runs.
        entries: how often it is come to from elsewhere; 0 for code outside innermost loops.
        in_loop: whether it is an innermost loop.
        calls: calls in it, each run.
    """

    code: Code
    runs: float
    entries: float
    in_loop: bool
    calls: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cycles of a function or of several.

    Attributes:
        cycles: the estimate.
        low_cycles, high_cycles: what it lies between.
        missed_cycles: the part that is mispredicted branches.
        instructions: executed.
        loop_instructions: those in innermost loops.
        bound: what limits the costliest loop.
        bound_cycles: cycles of that loop.
    """

    cycles: float = 0.0
    low_cycles: float = 0.0
    high_cycles: float = 0.0
    missed_cycles: float = 0.0
    instructions: float = 0.0
    loop_instructions: float = 0.0
    bound: str = ""
    bound_cycles: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Sums; the bound is that of the costlier loop."""
        worst = max(self, other, key=lambda cost: cost.bound_cycles)
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("cycles", "low_cycles", "high_cycles", "missed_cycles", "instructions", "loop_instructions")
        }
        return Cost(**sums, bound=worst.bound, bound_cycles=worst.bound_cycles)


def pieces(function: Function, counts: Counts, isa: Isa) -> list[Piece]:
    """Splits what ran of a function into its innermost loops and the blocks around them."""
    found: list[Piece] = []
    taken: set[int] = set()
    for loop in innermost_loops(function):
        trace = _trace(function, loop, counts)
        if trace and not taken & set(trace):
            taken |= set(trace)
            blocks = [function.blocks[index] for index in trace]
            runs = counts[blocks[0].counter]
            found.append(_piece(blocks, runs, max(runs - _returns(function, loop, counts), 0.0), True, isa))
    rest = [block for index, block in enumerate(function.blocks) if index not in taken and counts[block.counter]]
    return found + [_piece([block], counts[block.counter], 0.0, False, isa) for block in rest]


def _trace(function: Function, loop: Loop, counts: Counts) -> list[int]:
    """The blocks that run in at least every second turn of a loop; none if it did not run."""
    turns = counts[function.blocks[loop.first].counter]
    indices = range(loop.first, loop.last + 1)
    return [i for i in indices if turns and 0.5 * turns <= counts[function.blocks[i].counter] <= turns]


def _returns(function: Function, loop: Loop, counts: Counts) -> float:
    labels = function.blocks[loop.first].labels
    return sum(block.taken(counts) for block in function.blocks[loop.first : loop.last + 1] if block.target in labels)


def _piece(blocks: Iterable[Block], runs: float, entries: float, in_loop: bool, isa: Isa) -> Piece:
    every = [text for block in blocks for text in block.instructions]
    code = tuple(text for text in every if not _leaves(text, isa))
    calls = sum(bool(isa.call.match(text.split()[0])) for text in every)
    return Piece(code=code, runs=runs, entries=entries, in_loop=in_loop, calls=calls)


def _leaves(text: str, isa: Isa) -> bool:
    mnemonic = text.split()[0]
    return bool(isa.call.match(mnemonic) or isa.leave.match(mnemonic))


def mispredictions(function: Function, counts: Counts, varying: Collection[int]) -> float:
    """Branches that a predictor gets wrong.

    Those that go the same ways for every input follow the geometry: predicted, but for the ends of long loops. Those
    that spikes decide are taken wrongly whenever they go their rarer way.
    """
    starts = {label: index for index, block in enumerate(function.blocks) for label in block.labels}
    total = 0.0
    for index, block in enumerate(function.blocks):
        ran, went = counts[block.counter], block.taken(counts)
        left = ran - went
        if not block.is_conditional or not ran or not left:
            continue
        is_long_loop = starts.get(block.target or "", index + 1) <= index and ran / left > LEARNED_TRIPS
        if is_long_loop or block.counter in varying or block.passed in varying:
            total += min(went, left)
    return total


def function_cost(
    function: Function,
    counted: tuple[Counts, Collection[int]],
    isa: Isa,
    timing: Callable[[Code], Timing],
    core: Pipeline,
) -> Cost:
    """Adds up a function.

    Args:
        function: the code.
        counted: how often each counter's place was reached, and the counters that differ between inputs.
        isa: its instruction set.
        timing: cycles of a piece of code.
        core: the core.
    """
    missed = core.penalty_cycles * mispredictions(function, *counted)
    total = Cost(cycles=missed, high_cycles=missed, missed_cycles=missed)
    for piece in pieces(function, counted[0], isa):
        total += _piece_cost(piece, timing(piece.code), core.in_order)
    return total


def _piece_cost(piece: Piece, timing: Timing, in_order: bool) -> Cost:
    steady = piece.runs * timing.steady
    calls = piece.runs * piece.calls * CALL_CYCLES
    filling = (piece.entries if piece.in_loop else piece.runs) * (timing.once - timing.steady)
    instructions = piece.runs * len(piece.code)
    return Cost(
        cycles=steady + calls + (filling if in_order else 0.0),
        low_cycles=steady + calls,
        high_cycles=steady + calls + filling,
        instructions=instructions,
        loop_instructions=instructions if piece.in_loop else 0.0,
        bound=timing.bound if piece.in_loop else "",
        bound_cycles=steady if piece.in_loop else 0.0,
    )
