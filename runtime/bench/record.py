"""The record of one measurement: everything that was seen, and whether it may be believed.

One JSON object per run. What a board has no sensor for is absent, never zero. Figures of an emulated run are those of
the emulator on the machine it ran on: they carry ``emulated: true`` themselves, so that they cannot pass for a board's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from svitkit.boards.gpu import Device
from svitkit.errors import ConfigError
from svitkit.files import write_text
from svitkit.manifest import from_json
from svitkit.runtime.bench.device_state import DeviceState
from svitkit.runtime.bench.energy import Energy
from svitkit.runtime.bench.latency import STRICT, Latency, Stability
from svitkit.runtime.bench.profile import Profile
from svitkit.runtime.bench.runner_report import RunnerDevice
from svitkit.runtime.bench.streaming import Stream
from svitkit.runtime.bench.sustained import Sustained

CPU = "CPU"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Memory:
    """Bytes of the process that ran the network, read inside that process, of the system, and of the static plan.

    An integrated GPU shares the memory with the CPU, and what its driver takes does not count as the process's: beside
    the process stands by how much the whole system's free memory shrank, which other programs may change too.

    Attributes:
        emulated: the figures that may be absent are an emulator's, or a CPU's in place of a GPU, and say nothing about
            a board.
        weights_bytes, state_bytes, workspace_bytes: the plan: parameters, membrane potentials, and what lives within
            one run.
        vm_hwm_bytes: highest resident memory (VmHWM), code and libraries included, before the samples are kept.
        pss_bytes: proportional share of resident memory, at the same moment.
        private_bytes: resident memory that nobody else uses, at the same moment.
        floor_bytes: what a network of no size would take: libraries, machine code, one input and one output.
        weights_resident_bytes: of the weights, which are mapped from their file; whole pages.
        system_bytes: MemAvailable of the system before loading less its smallest value until the warm-up was over; on
            GPUs alone.
    """

    emulated: bool
    weights_bytes: int
    state_bytes: int
    workspace_bytes: int
    vm_hwm_bytes: int | None = None
    pss_bytes: int | None = None
    private_bytes: int | None = None
    floor_bytes: int | None = None
    weights_resident_bytes: int | None = None
    system_bytes: int | None = None

    @property
    def unexplained(self) -> float | None:
        """Share of the peak, with its sign, that is not floor, weights, states and workspace; None if not measured.

        None on GPUs, too: there weights, states and workspace need not lie in the memory of the process.
        """
        if self.emulated or self.system_bytes is not None or self.vm_hwm_bytes is None or self.floor_bytes is None:
            return None
        plan = self.weights_bytes + self.state_bytes + self.workspace_bytes
        return 1 - (self.floor_bytes + plan) / self.vm_hwm_bytes


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Accuracy:
    """Share of images whose class the bundle named right, counted on the device.

    Attributes:
        percent: 0..100.
        count: images that were shown.
        dataset: their name.
        split: always the test split, on which nothing was decided.
    """

    percent: float
    count: int
    dataset: str
    split: Literal["test"] = "test"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Golden:
    """Whether the device computes what was computed at build time.

    Attributes:
        match: every difference is within the tolerance and every argmax is equal.
        count: golden inputs.
        max_abs_diff: largest absolute difference of two logits.
        tolerance: largest one that is accepted.
        argmax_mismatches: inputs whose largest logit is another class.
    """

    match: bool
    count: int
    max_abs_diff: float
    tolerance: float
    argmax_mismatches: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Operations:
    """Operations of the layers with weights in one inference of all time steps, in the terms of NeuroBench.

    Attributes:
        dense: multiply-accumulates, padding included, as if every input were used.
        effective_macs: of them, those of layers that read real values.
        effective_acs: accumulates that spikes cause: dense operations times the share of inputs that are not 0, by
            calibration at build time.
    """

    dense: int
    effective_macs: int
    effective_acs: float

    @property
    def synaptic(self) -> float:
        """Effective synaptic operations."""
        return self.effective_macs + self.effective_acs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ThreadsTried:
    """One number of threads that ``--threads auto`` tried, and the median latency with it."""

    threads: int
    p50_ms: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BenchRecord:
    """One measurement of a bundle on a board.

    Attributes:
        board: the board that was asked for.
        place: which one of several, by its table in boards.toml; absent where the board's own name says it.
        built_for: the board that the bundle was built for.
        device: what really ran the program, as it calls itself.
        ran_on: the CPU or GPU of it that ran the network, as its driver calls it; absent for bundles of older versions.
        emulated: an emulator ran it, or a CPU in place of a GPU: outputs count, times and process memory are its own.
        started_at: UTC, ISO 8601.
        versions: of svitkit, TVM, the kernel, and the emulator.
        family, mode, timesteps: the network, see ``ModelMetadata``.
        target: TVM target of the machine code.
        bundle_sha256: of the manifest, which names every other file.
        bundle_bytes: bytes of all files of the bundle.
        cpu_features: CPU features that the running program found.
        prefix: arguments that the user put before the program, such as ``taskset -c 4-7``; absent without.
        threads: threads that shared the work of an inference.
        threads_tried: what ``--threads auto`` compared.
        cpus: cores that all threads stayed on; absent where the system chose.
        warmup: inferences before the samples.
        steady: whether their times no longer changed at the end; absent where nobody asked.
        attempts: timed runs until one was stable; the last one is recorded.
        load_ns, first_ns: loading the bundle and the first inference, which are no samples.
        samples_ns: every timed inference, in order.
        operations: dense and synaptic ones; absent for bundles of older versions.
        firing_rates: spikes per neuron and time step (0..1) on the device, by layer.
        stability: how well the samples repeat; absent where they are few, or emulated.
        profile, sustained, stream, energy: what else was asked for, measured after the samples.
        before, after: clocks and temperatures around the timed run; absent where emulated.
        valid: nothing speaks against the record; in an emulated one the times are not judged.
        reasons: what speaks against it.
    """

    format_version: Literal[1] = 1
    board: str
    place: str | None = None
    built_for: str
    device: str
    ran_on: RunnerDevice | None = None
    emulated: bool
    started_at: str
    versions: dict[str, str]
    family: str
    mode: Literal["sequence", "step"]
    timesteps: int
    target: dict[str, str | list[str]]
    bundle_sha256: str
    bundle_bytes: int
    cpu_features: tuple[str, ...]
    prefix: tuple[str, ...] | None = None
    threads: int
    threads_tried: tuple[ThreadsTried, ...] | None = None
    cpus: tuple[int, ...] | None = None
    warmup: int
    steady: bool | None = None
    attempts: int
    load_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    latency_ms: Latency
    memory: Memory
    golden: Golden
    accuracy: Accuracy | None = None
    operations: Operations | None = None
    firing_rates: dict[str, float] | None = None
    stability: Stability | None = None
    profile: Profile | None = None
    sustained: Sustained | None = None
    stream: Stream | None = None
    energy: Energy | None = None
    before: DeviceState | None = None
    after: DeviceState | None = None
    valid: bool
    reasons: tuple[str, ...]

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU ran the network; a CPU that stands in for one is none."""
        return self.ran_on is not None and self.ran_on.type == "gpu"

    @property
    def built_as(self) -> Device:
        """The device that the bundle was built for; a CPU may have stood in for a GPU."""
        return "cpu" if self.ran_on is None or self.ran_on.api == "cpu" else "gpu"

    @property
    def processor(self) -> str:
        """What ran the network, in words: ``CPU``, ``GPU Orin (CUDA 12.6)``, or a CPU that stood in for a GPU."""
        if self.ran_on is None or self.built_as == "cpu":
            return CPU
        return f"{self.ran_on.type.upper()} {self.ran_on.name} ({self.ran_on.driver})"


def record_json(record: BenchRecord) -> str:
    """Serializes a record as indented JSON with a final newline; what is None is left out."""
    return TypeAdapter(BenchRecord).dump_json(record, indent=2, exclude_none=True).decode() + "\n"


def write_record(path: Path, record: BenchRecord) -> None:
    """Writes a record as JSON."""
    write_text(path, record_json(record))


def read_record(path: Path) -> BenchRecord:
    """Reads a record.

    Raises:
        ConfigError: there is no such file, or it is no record.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Make a record with 'svitkit bench'.") from None
    return from_json(content, BenchRecord, source=str(path))
