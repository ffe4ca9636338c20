"""Puts a record together, and judges it: what speaks against believing a measurement."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import svitkit
from svitkit.boards.board import Board
from svitkit.boards.device_facts import DeviceFacts
from svitkit.boards.preflight import missing_features
from svitkit.boards.transports import qemu_version
from svitkit.manifest import MANIFEST_NAME, Manifest
from svitkit.parts import bundle_sha256
from svitkit.runtime.bench.device_state import DeviceState, read_device_name, throttled_between, throttling
from svitkit.runtime.bench.latency import instabilities, read_stability, summarize_latency
from svitkit.runtime.bench.record import BenchRecord, Golden, Memory, Operations
from svitkit.runtime.bench.runner_report import RunnerReport


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The last timed run and the machine around it; ``before`` and ``after`` are None under emulation."""

    report: RunnerReport
    before: DeviceState | None
    after: DeviceState | None
    attempts: int


def disturbances(timing: Timing, inputs: int) -> list[str]:
    """Returns the reasons not to believe the times: a machine that was slowed down, or samples that do not repeat."""
    slowed: list[str] = []
    if timing.before is not None and timing.after is not None:
        between = throttled_between(timing.before, timing.after)
        slowed = list(dict.fromkeys([*throttling(timing.before), *throttling(timing.after), *between]))
    return [*(f"throttled: {reason}" for reason in slowed), *instabilities(timing.report.samples_ns, inputs=inputs)]


def objections(board: Board, manifest: Manifest, timing: Timing, golden: Golden) -> list[str]:
    """Returns what speaks against a measurement; the times of an emulated one are not judged."""
    reasons = []
    if not golden.match:
        reasons.append(
            f"golden outputs differ by {golden.max_abs_diff:.3g} (accepted: {golden.tolerance:.3g}), "
            f"{golden.argmax_mismatches} of {golden.count} with another class"
        )
    missing = missing_features(manifest.required_features, timing.report.cpu_features)
    if missing:
        reasons.append(f"the program found no {', '.join(missing)} on the device, which its machine code may use")
    return reasons if board.emulated else [*reasons, *disturbances(timing, manifest.golden_count)]


def count_operations(manifest: Manifest) -> Operations | None:
    """Adds up the operations of one inference; None where the manifest does not tell them."""
    layers = [layer for layer in manifest.kernels if layer.macs is not None]
    if not layers:
        return None
    runs = manifest.model.timesteps if manifest.model.mode == "step" else 1
    real = [layer for layer in layers if layer.input_density is None]
    return Operations(
        dense=runs * sum(layer.macs or 0 for layer in layers),
        effective_macs=runs * sum(layer.macs or 0 for layer in real),
        effective_acs=runs * sum((layer.macs or 0) * (layer.input_density or 0.0) for layer in layers),
    )


def device_and_versions(board: Board, manifest: Manifest, facts: DeviceFacts | None) -> tuple[str, dict[str, str]]:
    """Returns what really ran the program, and the versions of everything that took part."""
    versions = {"svitkit": svitkit.__version__, "tvm": manifest.tvm_version}
    if facts is not None:
        told = {"kernel": facts.kernel, "glibc": facts.libc, "l4t": facts.l4t}
        device = f"an emulator on {facts.name}" if board.emulated else facts.name
        return device, versions | {name: version for name, version in told.items() if version is not None}
    versions["kernel"] = platform.release()
    device = read_device_name() or platform.machine()
    if board.qemu_cpu is None:
        return device, versions
    versions["qemu"] = qemu_version()
    return f"qemu-aarch64 -cpu {board.qemu_cpu} on {device}", versions


def _bundle_bytes(bundle: Path, manifest: Manifest) -> int:
    if bundle.is_file():
        return bundle.stat().st_size
    return (bundle / MANIFEST_NAME).stat().st_size + sum(entry.size for entry in manifest.files.values())


def assemble(
    bundle: Path,
    board: Board,
    manifest: Manifest,
    timing: Timing,
    *,
    facts: DeviceFacts | None,
    golden: Golden,
    started_at: str,
) -> BenchRecord:
    """Puts the record together."""
    report = timing.report
    device, versions = device_and_versions(board, manifest, facts)
    if board.stands_in_for_gpu:
        device = f"OpenCL in place of a GPU on {device}"
    reasons = objections(board, manifest, timing, golden)
    return BenchRecord(
        board=board.name,
        place=board.place,
        built_for=manifest.board,
        device=device,
        ran_on=report.device,
        emulated=board.emulated,
        started_at=started_at,
        versions=versions,
        family=manifest.model.family,
        mode=manifest.model.mode,
        timesteps=manifest.model.timesteps,
        target=manifest.target,
        bundle_sha256=bundle_sha256(bundle),
        bundle_bytes=_bundle_bytes(bundle, manifest),
        cpu_features=report.cpu_features,
        threads=report.threads,
        warmup=report.warmup,
        steady=report.is_steady,
        attempts=timing.attempts,
        load_ns=report.load_ns,
        first_ns=report.first_ns,
        samples_ns=report.samples_ns,
        latency_ms=summarize_latency(report.samples_ns, emulated=board.emulated),
        stability=None if board.emulated else read_stability(report.samples_ns, inputs=manifest.golden_count),
        memory=Memory(
            emulated=board.emulated,
            weights_bytes=report.weights_bytes,
            state_bytes=report.state_bytes,
            workspace_bytes=report.workspace_bytes,
            vm_hwm_bytes=report.vm_hwm_bytes,
            pss_bytes=report.pss_bytes,
            private_bytes=report.private_bytes,
            floor_bytes=report.floor_bytes,
            weights_resident_bytes=report.weights_resident_bytes,
            system_bytes=report.system_memory_bytes,
        ),
        golden=golden,
        operations=count_operations(manifest),
        before=timing.before,
        after=timing.after,
        valid=not reasons,
        reasons=tuple(reasons),
    )
