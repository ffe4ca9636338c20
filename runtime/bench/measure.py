"""Measures a bundle on a board: correct outputs first, then accuracy, then time and memory."""

from __future__ import annotations

import dataclasses
import datetime
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from svitkit.boards.board import Board
from svitkit.boards.devices import check_gpu_threads
from svitkit.boards.preflight import check_bundle, check_device
from svitkit.boards.transports import Transport, open_transport
from svitkit.errors import ConfigError
from svitkit.manifest import Manifest, check_files, read_manifest
from svitkit.parts import read_part
from svitkit.runtime.bench.clusters import CLUSTER_FILES, choose_cpus, read_clusters
from svitkit.runtime.bench.device_checks import (
    GOLDEN_INPUT,
    Progress,
    check_data,
    check_golden,
    measure_accuracy,
)
from svitkit.runtime.bench.device_state import STATE_FILES, DeviceState, read_device_state
from svitkit.runtime.bench.energy import read_energy
from svitkit.runtime.bench.options import BenchOptions
from svitkit.runtime.bench.power_meter import METER_FILES, Meter, find_meter
from svitkit.runtime.bench.profile import read_profile
from svitkit.runtime.bench.record import BenchRecord, ThreadsTried
from svitkit.runtime.bench.runner_process import InputFile, Runner
from svitkit.runtime.bench.streaming import read_stream
from svitkit.runtime.bench.sustained import SUSTAINED_FILES, read_sustained, sustained_sensors
from svitkit.runtime.bench.verdict import Timing, assemble, disturbances

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset

# Under emulation the times mean nothing, so only as many are taken as the record needs to be complete.
EMULATED_REPEAT = 10
MAX_ATTEMPTS = 3
# Of each number of threads that is tried: enough for a median that tells the numbers apart.
TRIED = BenchOptions(warmup=5, warmup_s=0.5, repeat=20, min_time_s=0.3)


def bench(
    bundle: Path,
    board: Board,
    *,
    options: BenchOptions | None = None,
    host: str | None = None,
    wait_s: int = 0,
    dataset: Dataset | None = None,
    progress: Progress | None = None,
) -> BenchRecord:
    """Measures a bundle on a board.

    Args:
        bundle: the bundle's directory, or a single file.
        board: the board to run on.
        options: what is measured, and for how long.
        host: ``[user@]address[:port]`` of a board that is reached by SSH; boards.toml says it if None.
        wait_s: how long to wait while somebody else uses the board.
        dataset: its test split is classified on the board; no accuracy if None.
        progress: called with the stage's name and the share of it that is done (0..1).

    Raises:
        ConfigError: the bundle cannot run on the board, the board cannot be reached or lacks what is asked for, or the
            data do not fit.
        VerificationError: a file of the bundle is not what its manifest says, or logits are not finite.
        RunError: the board does not answer, or the program on it failed, died or took too long.
    """
    options = options or BenchOptions()
    manifest = read_manifest(bundle)
    check_bundle(manifest, board)
    check_device_options(manifest, options)
    check_files(bundle, manifest)
    if dataset is not None:
        check_data(dataset, manifest.model)
    notify = progress or (lambda stage, share: None)
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (
        open_transport(board, host=host, wait_s=wait_s) as transport,
        tempfile.TemporaryDirectory(prefix="svitkit-") as work,
        governor(transport, board, options.governor),
    ):
        board = as_started(board, transport.prefix)
        threads = options.threads if isinstance(options.threads, int) else None
        if manifest.device == "gpu":
            threads = 1
        if transport.facts is not None:
            check_device(transport.facts, board, manifest, threads)
        meter = require_meter(transport, board) if options.energy_s else None
        cpus = cpus_to_stay_on(transport, board, manifest, options.cpus)
        if cpus and threads and threads > len(cpus):
            raise ConfigError(
                f"{threads} threads on {len(cpus)} cores ({', '.join(map(str, cpus))}) would wait for each other. "
                "Name more cores with --cpus, or fewer threads."
            )
        runner = Runner(
            transport=transport,
            bundle=transport.push(bundle),
            is_single_file=bundle.is_file(),
            mode=manifest.model.mode,
            timesteps=manifest.model.timesteps,
            classes=manifest.model.output.shape[-1],
            work=Path(work),
            timeout_s=options.timeout_s,
            threads=threads or min(board.threads, len(cpus) or board.threads),
            cpus=cpus,
            require_device=options.require_device,
        )
        notify("golden check", 0.0)
        golden, rates = check_golden(runner, bundle, manifest)
        accuracy = None if dataset is None else measure_accuracy(runner, manifest.model, dataset, options.limit, notify)
        notify("timing", 0.0)
        inputs = push_inputs(runner, bundle, manifest.golden_count)
        tried = None
        if options.threads == "auto" and not board.emulated:
            runner, tried = with_fastest_threads(runner, inputs, len(cpus) or board.threads)
        timing = time_runs(runner, board, inputs, options)
        notify("timing", 1.0)
        further = measure_further(runner, board, inputs, options, meter, notify)
    facts = transport.facts
    record = assemble(bundle, board, manifest, timing, facts=facts, golden=golden, started_at=started_at)
    return dataclasses.replace(
        record,
        accuracy=accuracy,
        firing_rates=rates,
        profile=read_profile(timing.report, emulated=board.emulated) if options.profile else None,
        prefix=transport.prefix or None,
        threads_tried=tried,
        cpus=cpus or None,
        **further,
    )


def check_device_options(manifest: Manifest, options: BenchOptions) -> None:
    """Refuses what a bundle for the CPU, or one for a GPU, cannot do.

    Raises:
        ConfigError: another kind of device is required than the bundle runs on, or threads on a GPU.
    """
    if options.require_device not in (None, manifest.device):
        raise ConfigError(
            f"--require-device {options.require_device}: the bundle was built for the {manifest.device.upper()} of "
            f"{manifest.board}. Build one with --device {options.require_device}."
        )
    if manifest.device == "gpu":
        check_gpu_threads(options.threads)


def as_started(board: Board, prefix: Sequence[str]) -> Board:
    """Returns the board as an emulated one where an emulator stands before its programs: its times are no board's."""
    emulator = bool(prefix) and PurePosixPath(prefix[0]).name.startswith("qemu-")
    return dataclasses.replace(board, transport="qemu") if emulator else board


@contextmanager
def governor(transport: Transport, board: Board, name: str | None) -> Iterator[None]:
    """Keeps the board's cores under a cpufreq governor as long as the block runs, if one is asked for."""
    if name is None:
        yield
        return
    if board.emulated:
        raise ConfigError(f"{board.name} is emulated: its clock is that of this machine. Leave --governor out.")
    with transport.governor(name):
        yield


def cpus_to_stay_on(transport: Transport, board: Board, manifest: Manifest, wanted: str | None) -> tuple[int, ...]:
    """Returns the cores that the program stays on; empty where the system, or the user's own prefix, chooses.

    On a GPU the system chooses: the thread that starts its kernels works little.
    """
    if wanted is None and (board.emulated or transport.prefix or manifest.device == "gpu"):
        return ()
    with transport.look(CLUSTER_FILES) as root:
        return choose_cpus(wanted, read_clusters(root))


def require_meter(transport: Transport, board: Board) -> Meter:
    """Returns the board's sensor of power.

    Raises:
        ConfigError: there is none that may be read, or the board is emulated.
    """
    if board.emulated:
        raise ConfigError(f"{board.name} is emulated: the energy it takes is no board's. Leave --energy out.")
    with transport.look(METER_FILES) as root:
        meter = find_meter(root)
    if meter is None:
        raise ConfigError(
            f"{board.name} has no sensor of power that this user may read (looked for: INA3221, the PMIC of a "
            "Raspberry Pi 5, RAPL, which root alone may read). Leave --energy out, or measure at the plug."
        )
    return meter


def push_inputs(runner: Runner, bundle: Path, count: int) -> InputFile:
    """Returns the golden inputs on the board; a single file holds them where only itself can read them."""
    if not runner.is_single_file:
        return InputFile(path=f"{runner.bundle}/{GOLDEN_INPUT}", count=count)
    local = runner.work / GOLDEN_INPUT
    local.write_bytes(read_part(bundle, GOLDEN_INPUT))
    return InputFile(path=runner.transport.push(local), count=count)


def with_fastest_threads(runner: Runner, inputs: InputFile, most: int) -> tuple[Runner, tuple[ThreadsTried, ...]]:
    """Tries 1, 2, 4 and so on up to ``most`` threads, and returns the runner with the fastest number of them."""
    numbers = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    runners = [dataclasses.replace(runner, threads=number) for number in numbers]
    medians = [statistics.median(each.time(inputs, TRIED).samples_ns) for each in runners]
    tried = tuple(
        ThreadsTried(threads=each.threads, p50_ms=median / 1e6) for each, median in zip(runners, medians, strict=True)
    )
    return runners[medians.index(min(medians))], tried


def time_runs(runner: Runner, board: Board, inputs: InputFile, options: BenchOptions) -> Timing:
    """Times the bundle on its golden inputs, and looks at the machine before and after.

    A run that was disturbed is repeated, at most twice. Under emulation there is one short run.
    """
    if board.emulated:
        repeat = min(options.repeat, EMULATED_REPEAT)
        few = dataclasses.replace(options, repeat=repeat, min_time_s=0.0, warmup_s=0.0)
        return Timing(report=runner.time(inputs, few), before=None, after=None, attempts=1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        before = look_at(runner.transport)
        report = runner.time(inputs, options)
        timing = Timing(report=report, before=before, after=look_at(runner.transport), attempts=attempt)
        if not disturbances(timing, inputs.count):
            break
    return timing


def measure_further(
    runner: Runner, board: Board, inputs: InputFile, options: BenchOptions, meter: Meter | None, notify: Progress
) -> dict[str, Any]:
    """Measures what is asked for beside latency, each in a run of its own; returns it by the record's field."""
    further: dict[str, Any] = {}
    if options.frames:
        notify("stream", 0.0)
        frames = runner.stream(inputs, options.frames, options.fps)
        further["stream"] = read_stream(frames, deadline_ms=options.deadline_ms, emulated=board.emulated)
        notify("stream", 1.0)
    if meter is not None:
        notify("energy", 0.0)
        further["energy"] = read_energy(runner.measure_energy(inputs, options.energy_s, meter), meter)
        notify("energy", 1.0)
    if options.duration_s:
        notify("sustained load", 0.0)
        with runner.transport.look(SUSTAINED_FILES) as root:
            sensors = () if board.emulated else sustained_sensors(root)
        report = runner.sustain(inputs, options.duration_s, sensors)
        further["sustained"] = read_sustained(report, sensors, emulated=board.emulated)
        notify("sustained load", 1.0)
    return further


def look_at(transport: Transport) -> DeviceState:
    """Reads clocks and temperatures of the machine at the other end."""
    with transport.look(STATE_FILES) as root:
        return read_device_state(root)
