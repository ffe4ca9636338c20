"""The static plan of an inference: tensors at fixed places, and kernel calls in order.

``program.txt`` is what ``libsvit`` plays; it is text so that a person can read it and the runner needs no parser
library. The plan holds no pointers and no sizes that are not known at build time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from svitkit.runtime.kernels.launch import Api, Launch
from svitkit.runtime.view import PACKED, STORAGE_ORDER, Buffer, View

FORMAT_VERSION = 2
KERNEL_FILES: dict[Api, str] = {"cuda": "kernels.ptx", "opencl": "kernels.cl"}
Precision = Literal["fp16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class GpuTarget:
    """The GPU that a program is for.

    Attributes:
        api: through which driver it runs.
        architecture: the least compute capability, such as ``sm_87``; None for OpenCL.
        allows_cpu: whether an OpenCL device that is a CPU will do.
        precision: of real weights whose inputs are spikes or counts; those of real inputs stay fp32.
    """

    api: Api
    architecture: str | None = None
    allows_cpu: bool = False
    precision: Precision = "fp32"

    @property
    def kernels(self) -> str:
        """Name of the file with the kernels."""
        return KERNEL_FILES[self.api]

    def tvm_target(self) -> dict[str, str | list[str]]:
        """Returns the target as ``tvm.target.Target`` takes it."""
        return {"kind": "opencl"} if self.architecture is None else {"kind": "nvptx", "mcpu": self.architecture}

    def words(self) -> list[str]:
        """What ``program.txt`` says of it."""
        if self.architecture is not None:
            return [self.api, self.architecture.removeprefix("sm_"), self.kernels]
        return [self.api, "any" if self.allows_cpu else "gpu", self.kernels]


@dataclass(frozen=True)
class Call:
    """One kernel call: the symbol in the machine code, the layer it belongs to, and its buffers.

    ``split`` calls are made once for every part, at the same time; the others once, as part 0 of 1. A call that
    ``prepares`` is made once, when the bundle is loaded, and what it writes stays.
    """

    symbol: str
    layer: str
    buffers: tuple[Buffer, ...]
    split: bool = False
    prepares: bool = False


@dataclass(frozen=True)
class Expansion:
    """Weights that are stored without their background, and expanded once (:mod:`svitkit.runtime.sparse`).

    Attributes:
        layer: whose weights they are.
        out: where they are expanded to, a buffer of the workspace that nothing else uses.
        bitmap, values: buffers of the weights file.
        background: the bits of every element that is not stored, as an unsigned number.
    """

    layer: str
    out: Buffer
    bitmap: Buffer
    values: Buffer
    background: int

    @property
    def stored_bytes(self) -> int:
        """Bytes of bitmap and values in the weights file."""
        return self.bitmap.size_bytes + self.values.size_bytes


@dataclass(frozen=True)
class Tap:
    """Where the spikes of a LIF layer can be read, right after a call."""

    layer: str
    view: View
    call: int


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The kernel of a call, and what was expected of it.

    Attributes:
        layer, kernel: names as in the call; the kernel's without its number.
        reason: why this one.
        call: number of the call.
        weights: the graph's name of the node with the weights, that of the network's layer; None where there is none.
        macs: dense multiply-accumulates of a layer with weights, padding included; None for other calls.
        input_density: share of its inputs that are not 0, None for real inputs.
        counts: its work, by the names of :mod:`svitkit.runtime.work_counts`; empty where nobody counts it.
        predicted_ns: its time by the cost model of the board, None where that has none.
    """

    layer: str
    kernel: str
    reason: str
    call: int
    weights: str | None = None
    macs: int | None = None
    input_density: float | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    predicted_ns: float | None = None


@dataclass
class Program:
    """An inference as a list of calls.

    Attributes:
        input: where the caller puts the data.
        output: where the logits are when the last call is done.
        threads: into how many parts a split call may be divided; some kernels have memory for each part.
        gpu: the GPU that plays it, None for the CPU.
        launches: blocks and threads of every kernel by symbol, for a GPU.
        parameters: for every compiled GPU kernel, which buffer of a call its parameters are, in their order.
        functions: TIR functions by symbol; none if only the work counts.
        specs: what shapes each function, by symbol.
        calls: in order of execution.
        weights: contents of every buffer in the weights space, in the order of the file.
        expansions: weights that are expanded before the first call.
        states: initial value of every state buffer.
        taps: spikes of every LIF layer.
        kernels: the kernel of every layer and of every list of events, with the grounds.
    """

    input: Buffer
    output: Buffer
    threads: int = 1
    gpu: GpuTarget | None = None
    launches: dict[str, Launch] = field(default_factory=dict)
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    functions: dict[str, Any] = field(default_factory=dict)
    specs: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    weights: dict[Buffer, bytes] = field(default_factory=dict)
    expansions: list[Expansion] = field(default_factory=list)
    states: dict[Buffer, float] = field(default_factory=dict)
    taps: list[Tap] = field(default_factory=list)
    kernels: list[Chosen] = field(default_factory=list)

    def floating_point(self) -> tuple[str, ...]:
        """Layers whose kernels compute with real numbers, from behind the rounding of the input to the last neurons."""
        last = max((tap.call for tap in self.taps), default=-1)
        return tuple(
            dict.fromkeys(
                call.layer
                for call in self.calls[: last + 1]
                if any(buffer.dtype == "float32" for buffer in call.buffers)
                and not (call.buffers[0] is self.input and call.buffers[-1].dtype == "uint8" and len(call.buffers) == 2)
            )
        )

    def buffers(self) -> list[Buffer]:
        """Every buffer once, in the order of first use."""
        used = [buffer for call in self.calls for buffer in call.buffers]
        stored = [buffer for each in self.expansions for buffer in (each.bitmap, each.values)]
        return list(dict.fromkeys([self.input, self.output, *used, *stored]))


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offset of every buffer inside its space, and the size of each space."""

    offsets: dict[Buffer, int]
    weights_bytes: int
    states_bytes: int
    workspace_bytes: int


def tap_order(view: View) -> tuple[int, ...]:
    """Permutation of the storage axes that gives the graph's order of a stored value."""
    roles = [atom.role for atom in view.atoms if atom.size > 1]
    if view.buffer.dtype == PACKED:  # its channels follow each other in the graph's order, and are stored as one axis
        first = roles.index("channel") if "channel" in roles else len(roles)
        roles = [*roles[:first], "channel", *(role for role in roles[first:] if role != "channel")]
    stored = sorted(range(len(roles)), key=lambda index: STORAGE_ORDER.index(roles[index]))
    return tuple(stored.index(index) for index in range(len(roles))) or (0,)


def to_text(program: Program, plan: MemoryPlan, facts: Sequence[str] = ()) -> str:
    """Writes the program in the format that ``runner/program.cc`` reads.

    Kernels see flat tensors; the spikes of a tap are named a second time, with their shape in storage order.

    Args:
        program: the calls.
        plan: where the buffers lie.
        facts: lines about the network (:mod:`svitkit.runtime.program_facts`).
    """
    numbers = {buffer: index for index, buffer in enumerate(program.buffers())}
    lines = [
        f"svit-program {FORMAT_VERSION}",
        f"sizes weights {plan.weights_bytes} states {plan.states_bytes} workspace {plan.workspace_bytes}",
        f"threads {program.threads}",
    ]
    lines += [] if program.gpu is None else [_join(["device", *program.gpu.words()])]
    lines += [_tensor_line(number, buffer, plan, (buffer.elements,)) for buffer, number in numbers.items()]
    shaped = {tap.layer: len(numbers) + index for index, tap in enumerate(program.taps)}
    lines += [_tensor_line(shaped[tap.layer], tap.view.buffer, plan, tap.view.buffer.shape) for tap in program.taps]
    lines += [f"state {numbers[buffer]} {value!r}" for buffer, value in program.states.items()]
    lines += [f"input {numbers[program.input]}", f"output {numbers[program.output]}"]
    lines += [_expand_line(expansion, numbers) for expansion in program.expansions]
    lines += [_call_line(call, numbers, program) for call in program.calls]
    for tap in program.taps:
        order = tap_order(tap.view)
        played = sum(not call.prepares for call in program.calls[: tap.call + 1]) - 1
        lines.append(f"tap {tap.layer} {shaped[tap.layer]} {played}")
        lines.append(f"taporder {tap.layer} {len(order)} {_join(order)}")
    return "\n".join([*lines, *facts, "end"]) + "\n"


def _tensor_line(number: int, buffer: Buffer, plan: MemoryPlan, shape: tuple[int, ...]) -> str:
    name = "".join(letter if letter.isprintable() and letter != " " else "_" for letter in buffer.name)
    return f"tensor {number} {name} {buffer.dtype} {buffer.space} {plan.offsets[buffer]} {len(shape)} {_join(shape)}"


def _expand_line(expansion: Expansion, numbers: dict[Buffer, int]) -> str:
    places = _join(numbers[buffer] for buffer in (expansion.out, expansion.bitmap, expansion.values))
    return f"expand {places} {expansion.background}"


def _call_line(call: Call, numbers: dict[Buffer, int], program: Program) -> str:
    if program.gpu is not None:
        launch = program.launches[call.symbol]
        buffers = [numbers[call.buffers[index]] for index in program.parameters[call.symbol]]
        size = f"{launch.blocks} 1 1 {launch.threads} 1 1"
        kind = "prepare" if call.prepares else "launch"
        return f"{kind} {call.symbol} {call.layer} {size} {len(buffers)} {_join(buffers)}"
    division = "split" if call.split else "whole"
    arguments = _join(numbers[buffer] for buffer in call.buffers)
    return f"call {call.symbol} {call.layer} {division} {len(call.buffers)} {arguments}"


def _join(numbers: Any) -> str:
    return " ".join(str(number) for number in numbers)


def weight_bytes(program: Program, plan: MemoryPlan) -> bytes:
    """Returns the contents of ``weights.bin``: every weight buffer at its offset, gaps zero."""
    image = bytearray(plan.weights_bytes)
    for buffer, content in program.weights.items():
        image[plan.offsets[buffer] : plan.offsets[buffer] + len(content)] = content
    return bytes(image)


def last_uses(program: Program) -> dict[Buffer, tuple[int, int]]:
    """First and last call that touches each workspace buffer; input, output and weights live throughout."""
    uses: dict[Buffer, tuple[int, int]] = {}
    for index, call in enumerate(program.calls):
        for buffer in call.buffers:
            if buffer.space == "workspace":
                uses[buffer] = (uses.get(buffer, (index, index))[0], index)
    kept = [call.buffers[-1] for call in program.calls if call.prepares]
    for buffer in (program.input, program.output, *(expansion.out for expansion in program.expansions), *kept):
        uses[buffer] = (0, len(program.calls))
    return uses
