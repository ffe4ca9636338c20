"""The record of one measurement: everything that was seen, and whether it may be believed.

One JSON object per run. What a board has no sensor for is absent, never zero. Figures of an emulated run are those of
the emulator on the machine it ran on: they carry ``emulated: true`` themselves, so that they cannot pass for a board's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from svitkit.errors import ConfigError
from svitkit.files import write_text
from svitkit.manifest import from_json
from svitkit.runtime.device_state import DeviceState
from svitkit.runtime.profile import Profile

STRICT = ConfigDict(extra="forbid", strict=True)
# Samples from which a tail percentile can be stated with 99 % confidence although one sample beyond it is an outlier.
# Source: the early-stopping rule of MLPerf Inference's LoadGen (binomial bound); 662 is its min_query_count for p99.
# The median describes the samples and makes no claim about a tail, so a handful is enough.
MINIMUM_SAMPLES = {50: 5, 90: 64, 95: 130, 99: 662}
# A run is called unstable when the middle half of the samples spreads over more than this share of their median, or
# when the medians of the first and the second half of the run differ by more than that share.
SPREAD_LIMIT = 0.25
DRIFT_LIMIT = 0.15


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Latency:
    """One inference of all time steps, batch 1, in milliseconds, input and output copies included.

    Attributes:
        emulated: the times are those of an emulator and say nothing about a board.
        count: number of samples.
        p50, p90, p95, p99: percentiles (nearest rank), absent where the samples are too few to support them.
    """

    emulated: bool
    count: int
    min: float
    mean: float
    max: float
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Memory:
    """Bytes of the process that ran the network, read inside that process, and of the static plan.

    Attributes:
        emulated: the process figures (those that may be absent) include an emulator and say nothing about a board.
        weights_bytes, state_bytes, workspace_bytes: the plan: parameters, membrane potentials, and what lives within
            one run.
        vm_hwm_bytes: highest resident memory (VmHWM), code and libraries included, before the samples are kept.
        pss_bytes: proportional share of resident memory, at the same moment.
        private_bytes: resident memory that nobody else uses, at the same moment.
        floor_bytes: what a network of no size would take: libraries, machine code, one input and one output.
        weights_resident_bytes: of the weights, which are mapped from their file; whole pages.
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

    @property
    def unexplained(self) -> float | None:
        """Share of the peak, with its sign, that is not floor, weights, states and workspace; None if not measured."""
        if self.emulated or self.vm_hwm_bytes is None or self.floor_bytes is None:
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
class BenchRecord:
    """One measurement of a bundle on a board.

    Attributes:
        board: the board that was asked for.
        place: which one of several, by its table in boards.toml; absent where the board's own name says it.
        built_for: the board that the bundle was built for.
        device: what really ran the program, as it calls itself.
        emulated: an emulator ran it: outputs count, times and process memory are the emulator's.
        started_at: UTC, ISO 8601.
        versions: of svitkit, TVM, the kernel, and the emulator.
        family, mode, timesteps: the network, see ``ModelMetadata``.
        target: TVM target of the machine code.
        bundle_sha256: of the manifest, which names every other file.
        bundle_bytes: bytes of all files of the bundle.
        cpu_features: CPU features that the running program found.
        prefix: arguments that the user put before the program, such as ``taskset -c 4-7``; absent without.
        threads: threads that shared the work of an inference.
        warmup: runs before the samples.
        attempts: timed runs until one was stable; the last one is recorded.
        load_ns, first_ns: loading the bundle and the first inference, which are no samples.
        samples_ns: every timed inference, in order.
        firing_rates: spikes per neuron and time step (0..1) on the device, by layer.
        profile: where the time goes, if it was asked for.
        before, after: clocks and temperatures around the timed run; absent where emulated.
        valid: nothing speaks against the record; in an emulated one the times are not judged.
        reasons: what speaks against it.
    """

    format_version: Literal[1] = 1
    board: str
    place: str | None = None
    built_for: str
    device: str
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
    warmup: int
    attempts: int
    load_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    latency_ms: Latency
    memory: Memory
    golden: Golden
    accuracy: Accuracy | None = None
    firing_rates: dict[str, float] | None = None
    profile: Profile | None = None
    before: DeviceState | None = None
    after: DeviceState | None = None
    valid: bool
    reasons: tuple[str, ...]


def summarize_latency(samples_ns: Sequence[int], *, emulated: bool) -> Latency:
    """Summarizes samples, with only those percentiles that their number supports.

    Args:
        samples_ns: at least one duration in nanoseconds.
        emulated: whether an emulator ran.
    """
    ordered = [sample / 1e6 for sample in sorted(samples_ns)]
    supported = {p: percentile(ordered, p) for p, least in MINIMUM_SAMPLES.items() if len(ordered) >= least}
    return Latency(
        emulated=emulated,
        count=len(ordered),
        min=ordered[0],
        mean=statistics.fmean(ordered),
        max=ordered[-1],
        p50=supported.get(50),
        p90=supported.get(90),
        p95=supported.get(95),
        p99=supported.get(99),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Returns the nearest-rank percentile: the smallest sample that ``percent`` % of all samples do not exceed."""
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def instabilities(samples_ns: Sequence[int], *, inputs: int) -> list[str]:
    """Returns what is wrong with samples as a measurement: too few, too widely spread, or drifting.

    Args:
        samples_ns: durations in the order they were taken.
        inputs: number of inputs that were taken in turn. The time depends on an input's spikes, so the spread is that
            among samples of the same input.
    """
    if len(samples_ns) < MINIMUM_SAMPLES[50]:
        return [f"{len(samples_ns)} samples do not support a median; {MINIMUM_SAMPLES[50]} are wanted"]
    reasons = []
    spread = statistics.fmean(_spread(samples_ns[first::inputs]) for first in range(min(inputs, len(samples_ns))))
    if spread > SPREAD_LIMIT:
        reasons.append(f"unstable: the middle half of an input's samples spreads over {spread:.0%} of their median")
    half = len(samples_ns) // 2
    early, late = statistics.median(samples_ns[:half]), statistics.median(samples_ns[half:])
    drift = (late - early) / early
    if abs(drift) > DRIFT_LIMIT:
        reasons.append(f"unstable: the second half of the samples is {drift:+.0%} from the first")
    return reasons


def _spread(samples_ns: Sequence[int]) -> float:
    """Returns the interquartile range as a share of the median."""
    ordered = sorted(samples_ns)
    return (percentile(ordered, 75) - percentile(ordered, 25)) / percentile(ordered, 50)


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
