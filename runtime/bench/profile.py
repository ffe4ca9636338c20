"""Where an inference spends its time: what every kernel call of a network costs."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from pydantic.dataclasses import dataclass

from svitkit.errors import RunError, VerificationError
from svitkit.runtime.bench.runner_report import RUNNER_NAME, STRICT, LayerTime, RunnerReport


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Profile:
    """A run in which every kernel call was timed; it is no part of the latency samples.

    Attributes:
        emulated: the times are those of an emulator and say nothing about a board.
        p50_ns: median of the same inferences as a whole. The latency samples are other inferences, taken before them.
        overhead_ns: what reading the clock adds to every call; it is part of the times.
        layers: in the order of execution.
    """

    emulated: bool
    p50_ns: int
    overhead_ns: float
    layers: tuple[LayerTime, ...]

    @property
    def sum_ns(self) -> int:
        """The sum of the medians of all calls."""
        return sum(layer.p50_ns for layer in self.layers)

    def share(self, layer: LayerTime) -> float:
        """Returns the share (0..1) that a call has in the time of all calls; 0 where the clock saw no time pass."""
        return layer.p50_ns / self.sum_ns if self.sum_ns else 0.0


def read_profile(report: RunnerReport, *, emulated: bool) -> Profile:
    """Takes the profile out of what ``svit-run --profile`` printed.

    Raises:
        RunError: there is none.
    """
    if report.profile is None or report.profile_overhead_ns is None or report.profile_p50_ns is None:
        raise RunError(f"{RUNNER_NAME} printed no profile. Build the bundle again with this version of svitkit.")
    return Profile(
        emulated=emulated,
        p50_ns=report.profile_p50_ns,
        overhead_ns=report.profile_overhead_ns,
        layers=report.profile,
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlannedCall:
    """One kernel call, or launch on a GPU, as it stands in a bundle's program.

    Attributes:
        layer, kernel: as in ``LayerTime``.
        outputs: elements of the tensor that it writes: its layer's spikes, if it makes them; else of a call the last
            argument, of a launch the one in the workspace that no launch before it has.
        dtype: their type.
        fires: whether it writes its layer's spikes.
    """

    layer: str
    kernel: str
    outputs: int
    dtype: str
    fires: bool = False


def read_calls(program: str) -> tuple[PlannedCall, ...]:
    """Returns the kernel calls, or launches, of a program in the order of execution.

    Args:
        program: content of a bundle's ``program.txt``.

    Raises:
        VerificationError: the program cannot be read.
    """
    tensors: dict[str, tuple[int, str]] = {}
    unwritten: set[str] = set()
    calls: list[PlannedCall] = []
    spikes: dict[tuple[str, int], tuple[int, str]] = {}
    try:
        for line in program.splitlines():
            words = line.split()
            if words[:1] == ["tensor"]:
                tensors[words[1]] = prod(int(extent) for extent in words[7:]), words[3]
                unwritten |= {words[1]} if words[4] == "workspace" else set()
            elif words[:1] in (["input"], ["expand"]):
                unwritten.discard(words[1])
            elif words[:1] == ["prepare"]:
                unwritten -= set(_arguments(words))
            elif words[:1] in (["call"], ["launch"]):
                arguments = _arguments(words)
                written = [each for each in arguments if each in unwritten and words[0] == "launch"]
                elements, dtype = tensors[(written or arguments)[-1]]
                calls.append(PlannedCall(layer=words[2], kernel=words[1], outputs=elements, dtype=dtype))
                unwritten -= set(arguments)
            elif words[:1] == ["tap"]:
                spikes[words[1], int(words[3])] = tensors[words[2]]
    except (IndexError, KeyError, ValueError):
        raise VerificationError(f"program.txt has a broken line: '{line[:80]}'. Build the bundle again.") from None
    return tuple(_with_spikes(call, spikes.get((call.layer, number))) for number, call in enumerate(calls))


def _with_spikes(call: PlannedCall, spikes: tuple[int, str] | None) -> PlannedCall:
    return call if spikes is None else replace(call, outputs=spikes[0], dtype=spikes[1], fires=True)


def _arguments(words: list[str]) -> list[str]:
    """Returns the tensors of a call, which stand behind their number: that of a launch behind two sizes of a grid."""
    count = 4 if words[0] == "call" else 9
    return words[count + 1 : count + 1 + int(words[count])]
