"""Frames as a camera delivers them: how late they are done."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from svitkit.runtime.bench.latency import STRICT, Latency, summarize_latency
from svitkit.runtime.bench.runner_report import StreamReport


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stream:
    """Frames that were streamed: one time step each in step mode, with the states kept, else one inference.

    Attributes:
        fps: frames that arrived in a second (an open loop: late or not); absent where each came when the last one was
            done (a closed loop).
        frames: how many.
        fps_reached: frames per second that were done; at most ``fps``; in a closed loop the most there can be.
        deadline_ms: a frame that took longer since its arrival is late; absent in a closed loop.
        misses: late frames.
        latency_ms: from a frame's arrival until its output was there; the time it waited for its turn included.
        latencies_ns: the same of every frame, in order.
    """

    fps: float | None = None
    frames: int
    fps_reached: float
    deadline_ms: float | None = None
    misses: int | None = None
    latency_ms: Latency
    latencies_ns: tuple[int, ...]


def read_stream(report: StreamReport, *, deadline_ms: float | None, emulated: bool) -> Stream:
    """Describes a stream.

    Args:
        report: what the program printed.
        deadline_ms: the time between two arrivals if None.
        emulated: whether an emulator ran.
    """
    latencies, period_ns = report.latencies_ns, report.period_ns
    is_open = period_ns > 0
    spent_ns = len(latencies) * period_ns + max(0, latencies[-1] - period_ns) if is_open else sum(latencies)
    limit_ms = (deadline_ms or period_ns / 1e6) if is_open else None
    return Stream(
        fps=1e9 / period_ns if is_open else None,
        frames=len(latencies),
        fps_reached=len(latencies) / (spent_ns / 1e9),
        deadline_ms=limit_ms,
        misses=None if limit_ms is None else sum(latency > limit_ms * 1e6 for latency in latencies),
        latency_ms=summarize_latency(latencies, emulated=emulated),
        latencies_ns=latencies,
    )
