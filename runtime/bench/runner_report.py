"""What ``svit-run`` prints: one JSON object."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from svitkit.errors import RunError

RUNNER_NAME = "svit-run"
BUILD_AGAIN = "Build the bundle again with this version of svitkit."
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reading:
    """One look at the sensors.

    Attributes:
        at_ns: since the phase began.
        values: text of every sensor in the order of the command line; None where it could not be read.
    """

    at_ns: int
    values: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Window:
    """Inferences without a break.

    Attributes:
        start_ns: since the phase began.
        count: inferences.
        p50_ns, max_ns: of their times.
    """

    start_ns: int
    count: PositiveInt
    p50_ns: PositiveInt
    max_ns: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SustainedReport:
    """Windows in a row, and a look at the sensors before the first and after each."""

    windows: Annotated[tuple[Window, ...], Field(min_length=1)]
    readings: tuple[Reading, ...]

    def __post_init__(self) -> None:
        """Refuses readings that do not fit the windows."""
        if len(self.readings) != len(self.windows) + 1:
            raise ValueError(f"{len(self.windows)} windows have {len(self.readings)} readings, and one more is wanted")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StreamReport:
    """Frames that were streamed.

    Attributes:
        period_ns: between two arrivals; 0 where each came when the last one was done.
        latencies_ns: of every frame, from its arrival until its output was there.
    """

    period_ns: int
    latencies_ns: Annotated[tuple[int, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnergyReport:
    """A rest, inferences, and a rest, with the sensors read all the while.

    Attributes:
        active_ns: when the inferences began, since the phase began.
        idle_ns: when they ended.
        end_ns: when the second rest ended.
        inferences: their number.
        readings: of the power sensors.
    """

    active_ns: int
    idle_ns: int
    end_ns: int
    inferences: PositiveInt
    readings: tuple[Reading, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunnerDevice:
    """What a network really ran on.

    Attributes:
        api: ``cpu`` for machine code; else the driver that played the program.
        type: ``gpu``, or ``cpu``, which an OpenCL device can be as well.
        name: as the driver says it; empty for machine code.
        driver: its version and what it does; empty for machine code.
    """

    api: Literal["cpu", "cuda", "opencl"]
    type: Literal["cpu", "gpu"]
    name: str
    driver: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LayerTime:
    """One kernel call of the network, over the inferences of a profile.

    Attributes:
        layer: the layer's name in the trained network; of an operation without one, the graph's own name.
        kernel: the function in the machine code.
        p50_ns: median over the inferences; in step mode one inference is all its time steps.
        total_ns: sum over the inferences.
        calls: how often the function was called for this layer.
    """

    layer: str
    kernel: str
    p50_ns: int
    total_ns: int
    calls: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunnerReport:
    """What ``svit-run`` prints.

    Attributes:
        load_ns: loading the bundle.
        first_ns: the first inference.
        warmup: inferences between that and the samples.
        is_steady: whether their times no longer changed, if that was awaited.
        samples_ns: the timed inferences, empty unless asked for.
        vm_hwm_bytes, pss_bytes, private_bytes: memory of the process; None where the kernel does not tell.
        floor_bytes: what a network of no size would take: libraries, machine code, one input and one output.
        weights_resident_bytes: of the mapped weights, whole pages.
        weights_bytes, state_bytes, workspace_bytes: the static memory plan.
        device: what the network ran on; None of an earlier svit-run, which knew CPUs alone.
        system_memory_bytes: the most by which the whole system's available memory became less from before loading until
            the network was warm; counts whatever else ran meanwhile. None on a CPU, or where the kernel does not tell.
        cpu_features: CPU features by their names in /proc/cpuinfo, as the kernel told the program.
        threads: threads that shared the work.
        accuracy_samples: number of inputs that were run.
        profile: cost of every kernel call in the order of execution, if it was asked for.
        profile_overhead_ns: what the clock adds to every call of the profile.
        profile_p50_ns: median of the profile's inferences as a whole.
        sustained, stream, energy: further phases, if they were asked for.
    """

    load_ns: int
    first_ns: int
    warmup: int
    is_steady: bool | None = None
    samples_ns: tuple[int, ...]
    vm_hwm_bytes: int | None = None
    pss_bytes: int | None = None
    private_bytes: int | None = None
    floor_bytes: int | None = None
    weights_resident_bytes: int | None = None
    weights_bytes: int
    state_bytes: int
    workspace_bytes: int
    device: RunnerDevice | None = None
    system_memory_bytes: int | None = None
    cpu_features: tuple[str, ...]
    threads: int
    accuracy_samples: int | None = None
    profile: tuple[LayerTime, ...] | None = None
    profile_overhead_ns: float | None = None
    profile_p50_ns: int | None = None
    sustained: SustainedReport | None = None
    stream: StreamReport | None = None
    energy: EnergyReport | None = None


def parse_report(text: str) -> RunnerReport:
    """Reads what ``svit-run`` printed.

    Raises:
        RunError: it is not the JSON object that this version of svitkit expects.
    """
    try:
        return TypeAdapter(RunnerReport).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise RunError(
            f"{RUNNER_NAME} printed {text.strip()[:80]!r}, which is not its report ({where}: {first['msg']}). "
            f"{BUILD_AGAIN}"
        ) from None
