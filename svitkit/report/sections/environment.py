"""Where, with what and how every run was measured, and whether it may be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from svitkit.report.blocks import Fold, Paragraph, Row, Section, Table
from svitkit.report.runs import Run
from svitkit.report.words import figure, kibibytes, verdict
from svitkit.runtime.bench.device_state import DeviceState, throttled_flags
from svitkit.runtime.bench.record import BenchRecord


def environment(runs: Sequence[Run]) -> Section:
    """Shows what a run's figures depend on, as far as its record knows it."""
    said = Paragraph(text="What a device has no sensor for is absent.")
    return Section(anchor="environment", title="Environment and checks", blocks=(said, *(_run(run) for run in runs)))


def _run(run: Run) -> Fold:
    record = run.record
    rows = [Row(cells=fact) for fact in _facts(run)]
    return Fold(
        summary=f"{run.label}: {record.device}; {verdict(record.valid, record.reasons)}",
        blocks=(Table(caption=f"Environment of {run.label}", columns=("fact", "value"), rows=rows),),
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    record = run.record
    yield "record", run.source
    yield "verdict", verdict(record.valid, record.reasons)
    yield "golden check", _golden(record)
    yield "device", record.device + (" (an emulator, not a board)" if record.emulated else "")
    yield "ran on", record.processor
    yield "board", record.board + ("" if record.built_for == record.board else f"; built for {record.built_for}")
    yield "started", record.started_at
    yield "versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())
    yield "network", f"{record.family}, {record.mode} mode, T = {record.timesteps}"
    yield "target", " ".join(_target(record))
    yield "bundle", f"{kibibytes(record.bundle_bytes)} KiB, SHA-256 {record.bundle_sha256}"
    if record.accuracy is not None:
        yield "accuracy", f"{record.accuracy.count} {record.accuracy.split} images of {record.accuracy.dataset}"
    threads = f"{record.threads} thread{'s' * (record.threads != 1)}"
    if record.cpus is not None:
        threads += f" on cores {', '.join(map(str, record.cpus))}"
    steady = {True: ", steady then", False: ", NOT steady then", None: ""}[record.steady]
    yield "runs", f"{threads}, {record.warmup} runs to warm up{steady}, {record.attempts} attempt(s)"
    if record.threads_tried is not None:
        tried = ", ".join(f"{each.threads}: {figure(each.p50_ms)} ms" for each in record.threads_tried)
        yield "threads tried", tried
    if record.operations is not None:
        counts = record.operations
        said = f"{counts.synaptic / 1e6:,.2f} M synaptic (calibrated) of {counts.dense / 1e6:,.1f} M dense"
        yield "operations of an inference", said
    if record.prefix:
        yield "before the program", " ".join(record.prefix)
    for when, state in (("before", record.before), ("after", record.after)):
        if state is not None:
            yield from _state(when, state)
    yield from _memory(record)
    yield "CPU features", " ".join(record.cpu_features)


def _golden(record: BenchRecord) -> str:
    golden = record.golden
    return (
        f"{'equal' if golden.match else 'DIFFERENT'} on {golden.count} inputs: largest difference "
        f"{golden.max_abs_diff:.2g}, accepted {golden.tolerance:.2g}; {golden.argmax_mismatches} other classes"
    )


def _target(record: BenchRecord) -> Iterator[str]:
    for name, value in record.target.items():
        yield f"{name}={value if isinstance(value, str) else ','.join(value)}"


def _state(when: str, state: DeviceState) -> Iterator[tuple[str, str]]:
    if state.governor is not None:
        yield f"governor {when}", state.governor
    for name, clocks in (("requested", state.requested_mhz), ("actual", state.actual_mhz)):
        if clocks is not None:
            yield f"{name} clocks {when}", f"{min(clocks):.0f} to {max(clocks):.0f} MHz, {len(clocks)} cores"
    if state.temperatures_celsius is not None:
        zones = ", ".join(f"{zone} {value:.1f}" for zone, value in state.temperatures_celsius.items())
        yield f"temperatures {when}", f"{zones} (degrees Celsius)"
    if state.throttled_flags is not None:
        said = ", ".join(throttled_flags(state.throttled_flags)) or "none"
        yield f"flags {when}", f"{said} (get_throttled 0x{state.throttled_flags:x})"
    if state.overcurrent_events is not None:
        yield f"over-current events {when}", ", ".join(f"{n} {c}" for n, c in state.overcurrent_events.items())
    if state.throttling_zones is not None:
        yield f"throttling {when}", ", ".join(state.throttling_zones)


def _memory(record: BenchRecord) -> Iterator[tuple[str, str]]:
    memory, mark = record.memory, ", the emulator's" if record.memory.emulated else ""
    plan = {"weights": memory.weights_bytes, "states": memory.state_bytes, "workspace": memory.workspace_bytes}
    yield "memory plan", ", ".join(f"{name} {kibibytes(size)} KiB" for name, size in plan.items())
    seen = {
        "VmHWM": memory.vm_hwm_bytes,
        "PSS": memory.pss_bytes,
        "private": memory.private_bytes,
        "runtime floor": memory.floor_bytes,
        "resident weights": memory.weights_resident_bytes,
    }
    known = [f"{name} {kibibytes(size)} KiB" for name, size in seen.items() if size is not None]
    if known:
        yield "process memory", ", ".join(known) + mark
    if memory.system_bytes is not None:
        said = f"{kibibytes(memory.system_bytes)} KiB less free, by all programs and drivers"
        yield "memory of the system", said + mark
