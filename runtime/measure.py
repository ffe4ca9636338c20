"""Measures a bundle on a board: correct outputs first, then accuracy, then time and memory."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import svitkit
from svitkit.boards.board import Board
from svitkit.boards.device_facts import DeviceFacts
from svitkit.boards.preflight import check_bundle, check_device, missing_features
from svitkit.boards.transports import Transport, open_transport, qemu_version
from svitkit.errors import ConfigError
from svitkit.manifest import MANIFEST_NAME, Manifest, check_files, read_manifest
from svitkit.parts import bundle_sha256, read_part
from svitkit.runtime.device_checks import (
    GOLDEN_INPUT,
    Progress,
    check_data,
    check_golden,
    measure_accuracy,
)
from svitkit.runtime.device_state import (
    STATE_FILES,
    DeviceState,
    read_device_name,
    read_device_state,
    throttling,
)
from svitkit.runtime.profile import read_profile
from svitkit.runtime.record import BenchRecord, Golden, Memory, instabilities, summarize_latency
from svitkit.runtime.runner_process import Runner, RunnerReport

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset

# Under emulation the times mean nothing, so only as many are taken as the record needs to be complete.
EMULATED_REPEAT = 10
MAX_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is timed; see :func:`bench`."""

    warmup: int
    repeat: int
    min_time_s: float
    profile: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """The last timed run and the machine around it; ``before`` and ``after`` are None under emulation."""

    report: RunnerReport
    before: DeviceState | None
    after: DeviceState | None
    attempts: int


def bench(
    bundle: Path,
    board: Board,
    *,
    host: str | None = None,
    wait_s: int = 0,
    dataset: Dataset | None = None,
    limit: int = 360,
    warmup: int = 5,
    repeat: int = 50,
    min_time_s: float = 1.0,
    timeout_s: float = 600.0,
    threads: int | None = None,
    profile: bool = False,
    progress: Progress | None = None,
) -> BenchRecord:
    """Measures a bundle on a board.

    Args:
        bundle: the bundle's directory, or a single file.
        board: the board to run on.
        host: ``[user@]address[:port]`` of a board that is reached by SSH; boards.toml says it if None.
        wait_s: how long to wait while somebody else uses the board.
        dataset: its test split is classified on the board; no accuracy if None.
        limit: test images at most.
        warmup: runs before the samples.
        repeat: least number of samples; an emulated board takes at most 10.
        min_time_s: least time that the samples add up to; not on an emulated board.
        timeout_s: longest time for one run of the program on the board.
        threads: threads that share the work of an inference; the board's own number if None.
        profile: whether every kernel call is timed as well, in inferences that are no samples.
        progress: called with the stage's name and the share of it that is done (0..1).

    Raises:
        ConfigError: the bundle cannot run on the board, the board cannot be reached, or the data do not fit.
        VerificationError: a file of the bundle is not what its manifest says, or logits are not finite.
        RunError: the board does not answer, or the program on it failed, died or took too long.
    """
    check_arguments(warmup=warmup, repeat=repeat, min_time_s=min_time_s, timeout_s=timeout_s)
    manifest = read_manifest(bundle)
    check_bundle(manifest, board)
    check_files(bundle, manifest)
    if dataset is not None:
        check_data(dataset, manifest.model)
    notify = progress or (lambda stage, share: None)
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (
        open_transport(board, host=host, wait_s=wait_s) as transport,
        tempfile.TemporaryDirectory(prefix="svitkit-") as work,
    ):
        board = as_started(board, transport.prefix)
        if transport.facts is not None:
            check_device(transport.facts, board, manifest, threads)
        runner = Runner(
            transport=transport,
            bundle=transport.push(bundle),
            is_single_file=bundle.is_file(),
            mode=manifest.model.mode,
            timesteps=manifest.model.timesteps,
            classes=manifest.model.output.shape[-1],
            work=Path(work),
            timeout_s=timeout_s,
            threads=threads or board.threads,
        )
        notify("golden check", 0.0)
        golden, rates = check_golden(runner, bundle, manifest)
        accuracy = None if dataset is None else measure_accuracy(runner, manifest.model, dataset, limit, notify)
        notify("timing", 0.0)
        limits = Limits(warmup=warmup, repeat=repeat, min_time_s=min_time_s, profile=profile)
        timing = time_runs(runner, board, manifest, limits, _push_inputs(runner, bundle))
        notify("timing", 1.0)
    facts = transport.facts
    record = assemble(bundle, board, manifest, timing, facts=facts, golden=golden, warmup=warmup, started_at=started_at)
    costs = read_profile(timing.report, emulated=board.emulated) if profile else None
    prefix = transport.prefix or None
    return dataclasses.replace(record, accuracy=accuracy, firing_rates=rates, profile=costs, prefix=prefix)


def as_started(board: Board, prefix: Sequence[str]) -> Board:
    """Returns the board as an emulated one where an emulator stands before its programs: its times are no board's."""
    emulator = bool(prefix) and PurePosixPath(prefix[0]).name.startswith("qemu-")
    return dataclasses.replace(board, transport="qemu") if emulator else board


def check_arguments(*, warmup: int, repeat: int, min_time_s: float, timeout_s: float) -> None:
    """Raises ConfigError for numbers with which nothing can be measured."""
    if warmup < 0 or repeat < 1 or min_time_s < 0 or timeout_s <= 0:
        raise ConfigError(
            f"warmup={warmup}, repeat={repeat}, min_time_s={min_time_s:g}, timeout_s={timeout_s:g}: "
            "wanted warmup >= 0, repeat >= 1, min_time_s >= 0 and timeout_s > 0."
        )


def _push_inputs(runner: Runner, bundle: Path) -> str:
    """Returns the path of the golden inputs on the board; a single file holds them where only itself can read them."""
    if not runner.is_single_file:
        return f"{runner.bundle}/{GOLDEN_INPUT}"
    local = runner.work / GOLDEN_INPUT
    local.write_bytes(read_part(bundle, GOLDEN_INPUT))
    return runner.transport.push(local)


def time_runs(runner: Runner, board: Board, manifest: Manifest, limits: Limits, inputs: str) -> Timing:
    """Times the bundle on its golden inputs, and looks at the machine before and after.

    A run that was disturbed is repeated, at most twice. Under emulation there is one short run.
    """
    count = manifest.golden_count
    if board.emulated:
        few = dataclasses.replace(limits, repeat=min(limits.repeat, EMULATED_REPEAT), min_time_s=0.0)
        report = runner.time(inputs, count=count, **dataclasses.asdict(few))
        return Timing(report=report, before=None, after=None, attempts=1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        before = look_at(runner.transport)
        report = runner.time(inputs, count=count, **dataclasses.asdict(limits))
        timing = Timing(report=report, before=before, after=look_at(runner.transport), attempts=attempt)
        if not disturbances(timing, count):
            break
    return timing


def look_at(transport: Transport) -> DeviceState:
    """Reads clocks and temperatures of the machine at the other end."""
    with transport.look(STATE_FILES) as root:
        return read_device_state(root)


def disturbances(timing: Timing, inputs: int) -> list[str]:
    """Returns the reasons not to believe the times: a machine that was slowed down, or samples that do not repeat."""
    states = [state for state in (timing.before, timing.after) if state is not None]
    slowed = dict.fromkeys(reason for state in states for reason in throttling(state))
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


def device_and_versions(board: Board, manifest: Manifest, facts: DeviceFacts | None) -> tuple[str, dict[str, str]]:
    """Returns what really ran the program, and the versions of everything that took part."""
    versions = {"svitkit": svitkit.__version__, "tvm": manifest.tvm_version}
    if facts is not None:
        told = {"kernel": facts.kernel, "glibc": facts.libc}
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
    warmup: int,
    started_at: str,
) -> BenchRecord:
    """Puts the record together."""
    report = timing.report
    device, versions = device_and_versions(board, manifest, facts)
    reasons = objections(board, manifest, timing, golden)
    return BenchRecord(
        board=board.name,
        built_for=manifest.board,
        device=device,
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
        warmup=warmup,
        attempts=timing.attempts,
        load_ns=report.load_ns,
        first_ns=report.first_ns,
        samples_ns=report.samples_ns,
        latency_ms=summarize_latency(report.samples_ns, emulated=board.emulated),
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
        ),
        golden=golden,
        before=timing.before,
        after=timing.after,
        valid=not reasons,
        reasons=tuple(reasons),
    )
