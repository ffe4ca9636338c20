"""What a run costs and gives, with its uncertainty, and which runs none other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from svitkit.report.runs import Run, place
from svitkit.report.words import KIBIBYTE
from svitkit.runtime.bench.latency import percentile

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Point:
    """A run as a point of accuracy, latency and memory.

    Attributes:
        run: the run.
    """

    run: Run

    @property
    def accuracy(self) -> float | None:
        """Percent; None if it was not measured."""
        return self.run.record.accuracy.percent if self.run.record.accuracy else None

    @property
    def latency_ms(self) -> float | None:
        """The median; None if the samples do not support it."""
        return self.run.record.latency_ms.p50

    @property
    def memory_kib(self) -> float | None:
        """The peak of the process (VmHWM); under an emulator, whose memory it would be, the plan of the bundle.

        On a GPU it lacks what the driver takes; there it is compared with that of other runs on the GPU alone.
        """
        memory = self.run.record.memory
        if memory.emulated:
            return (memory.weights_bytes + memory.state_bytes + memory.workspace_bytes) / KIBIBYTE
        return None if memory.vm_hwm_bytes is None else memory.vm_hwm_bytes / KIBIBYTE

    @property
    def latency_range(self) -> tuple[float, float]:
        """The quartiles of the samples, in ms."""
        ordered = sorted(self.run.record.samples_ns)
        return percentile(ordered, 25) / 1e6, percentile(ordered, 75) / 1e6

    @cached_property
    def accuracy_range(self) -> tuple[float, float] | None:
        """Wilson's interval of 95 %, in percent: what as many other images might have shown."""
        from scipy.stats import binomtest

        measured = self.run.record.accuracy
        if measured is None:
            return None
        right = round(measured.percent / 100 * measured.count)
        found = binomtest(right, measured.count).proportion_ci(CONFIDENCE, method="wilson")
        return 100 * float(found.low), 100 * float(found.high)

    @property
    def costs(self) -> tuple[float, ...] | None:
        """Lost accuracy, memory and latency, each better the smaller; None if one was not measured or is not valid.

        Without the latency under an emulator: a network may be the slower one there and the faster one on a board.
        """
        if not self.run.record.valid or self.accuracy is None or self.memory_kib is None:
            return None
        if self.run.record.emulated:
            return -self.accuracy, self.memory_kib
        return None if self.latency_ms is None else (-self.accuracy, self.memory_kib, self.latency_ms)


def front(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """Returns the numbers of those that none beats: no other is as good in everything and better in something."""
    return [
        number
        for number, own in enumerate(costs)
        if not any(other != own and all(b <= a for a, b in zip(own, other, strict=True)) for other in costs)
    ]


def best(points: Sequence[Point]) -> set[str]:
    """Returns the labels of the runs on the front of their board, by all of their costs together."""
    found: set[str] = set()
    for where in {place(point.run) for point in points}:
        known = [(point, point.costs) for point in points if place(point.run) == where]
        judged = [(point, costs) for point, costs in known if costs is not None]
        found |= {judged[number][0].run.label for number in front([costs for _, costs in judged])}
    return found
