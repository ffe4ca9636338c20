"""Measuring bundles on many boards: machines side by side, on each machine one run at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import queue
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from svitkit.boards.board import Board
from svitkit.boards.hosts import host_of
from svitkit.boards.preflight import check_bundle
from svitkit.errors import ConfigError, SvitError
from svitkit.manifest import Manifest, read_manifest
from svitkit.parts import bundle_sha256
from svitkit.runtime.bench.fleet_results import FleetRun, Results, RunKey
from svitkit.runtime.bench.record import BenchRecord

THIS_MACHINE = "this machine"
DEPLOYED_NAME = "bundle"
"""How ``svitkit deploy`` calls every bundle."""
ROUND_S = 2.0
"""Between two attempts to end what a board does; leaving a board in order takes less."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run that can be made.

    Attributes:
        key: its name in the results.
        bundle: the bundle's directory.
        manifest: of the bundle.
        board: the board, with its place.
        machine: whose cores the run takes; a machine makes one run at a time.
    """

    key: RunKey
    bundle: Path
    manifest: Manifest
    board: Board
    machine: str


Measure = Callable[[Job], BenchRecord]


def plan_jobs(bundles: Sequence[Path], boards: Sequence[Board]) -> tuple[list[Job], list[FleetRun]]:
    """Pairs every bundle with every board that it can run on.

    Returns:
        jobs: board by board, in the order in which they were named.
        skipped: the other pairs, with the reason.

    Raises:
        ConfigError: two bundles or boards have one name, a bundle fits no board or a board no bundle, or nothing says
            where a board is.
    """
    _require_different("bundle", [bundle_name(bundle) for bundle in bundles])
    _require_different("board", [board.table for board in boards])
    manifests = [read_manifest(bundle) for bundle in bundles]
    jobs, skipped = [], []
    for board in boards:
        machine = machine_of(board)
        for bundle, manifest in zip(bundles, manifests, strict=True):
            key = run_key(bundle, board)
            try:
                check_bundle(manifest, board)
                jobs.append(Job(key=key, bundle=bundle, manifest=manifest, board=board, machine=machine))
            except ConfigError as error:
                skipped.append(FleetRun(run=key, outcome="skipped", error=str(error)))
    busy, used = {job.key.where for job in jobs}, {job.key.bundle for job in jobs}
    for run in skipped:
        if run.run.where not in busy:
            raise ConfigError(f"no bundle fits {run.run.where}: {run.error} Nothing was run.")
        if run.run.bundle not in used:
            raise ConfigError(f"bundle {run.run.bundle} fits no board: {run.error} Nothing was run.")
    return jobs, skipped


def bundle_name(bundle: Path) -> str:
    """Returns the name that a bundle keeps when it is built again: of its folder, or of that of its deployment."""
    folder = bundle.resolve()
    return folder.parent.name if folder.name == DEPLOYED_NAME else folder.name


def run_key(bundle: Path, board: Board) -> RunKey:
    """Names a run."""
    digest = bundle_sha256(bundle)
    return RunKey(bundle=bundle_name(bundle), bundle_sha256=digest, board=board.name, place=board.place)


def machine_of(board: Board) -> str:
    """Returns the machine whose cores a board's programs run on: two runs on one machine would disturb each other.

    A loopback address may be this machine or the end of a tunnel, and counts as this machine.

    Raises:
        ConfigError: nothing says where the board is.
    """
    if board.transport != "ssh":
        return THIS_MACHINE
    host = host_of(board.table, None)
    address = host.destination.rpartition("@")[2].lower()
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(address).is_loopback:
            return THIS_MACHINE
    return THIS_MACHINE if address == "localhost" else f"{address}, port {host.port or 'of ssh'}"


def run_fleet(
    jobs: Sequence[Job], results: Results, measure: Measure, ended: Callable[[FleetRun], None]
) -> list[FleetRun]:
    """Runs the jobs that no measurement stands for in the results yet, and writes down each as it ends.

    Args:
        jobs: the jobs.
        results: what is known, and where the rest is written.
        measure: makes a run, see :func:`run_jobs`.
        ended: told of every run that ends now.

    Returns:
        What became of each job.
    """
    with contextlib.closing(run_jobs([job for job in jobs if not results.has_record(job.key)], measure)) as runs:
        for run in runs:
            results.add(run)
            ended(run)
    return [results.of(job.key) for job in jobs]


def run_jobs(jobs: Sequence[Job], measure: Measure) -> Generator[FleetRun]:
    """Runs jobs, machines side by side, and yields what became of each as it ends.

    What is measured on this machine itself comes first and alone: sending files to other boards would disturb it. Where
    the caller stops listening, or is interrupted, what runs is ended, and boards are left as they were found.

    Args:
        jobs: the jobs; those of one machine run one after another, in this order.
        measure: makes a run; called from several threads at a time. What it raises is the outcome of that run alone.
    """
    yield from _side_by_side([job for job in jobs if job.board.transport == "local"], measure)
    yield from _side_by_side([job for job in jobs if job.board.transport != "local"], measure)


def _side_by_side(jobs: Sequence[Job], measure: Measure) -> Generator[FleetRun]:
    """Runs jobs, one thread a machine."""
    machines: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        machines[job.machine].append(job)
    ended: queue.SimpleQueue[FleetRun | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(own: list[Job]) -> None:
        for job in own:
            if stopped.is_set():
                break
            ended.put(run_job(job, measure))
        ended.put(None)

    workers = [threading.Thread(target=work, args=(own,), daemon=True) for own in machines.values()]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            yield from iter(ended.get, None)
    finally:
        stopped.set()
        _end(workers)


def run_job(job: Job, measure: Measure) -> FleetRun:
    """Makes one run, and takes whatever goes wrong for its outcome: the other boards go on."""
    try:
        return FleetRun(run=job.key, outcome="measured", record=measure(job))
    except SvitError as error:
        return FleetRun(run=job.key, outcome="failed", error=str(error))
    except OSError as error:
        told = f"{error.filename or 'the system'}: {error.strerror or error}"
        return FleetRun(run=job.key, outcome="failed", error=told)
    except Exception as error:
        told = f"unexpected {type(error).__name__}: {error}. This may be a defect of svitkit: bench this board alone."
        return FleetRun(run=job.key, outcome="failed", error=told)


def _end(workers: Sequence[threading.Thread]) -> None:
    """Ends the program that each worker waits for, until none is left.

    A worker waits for the child process that it started last: the program, or ssh. When that is gone, it leaves the
    board in order, as after any failed run.
    """
    while alive := [worker for worker in workers if worker.is_alive()]:
        for worker in alive:
            for child in _children(worker)[-1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + ROUND_S
        for worker in alive:
            worker.join(max(0.0, deadline - time.monotonic()))


def _children(worker: threading.Thread) -> list[int]:
    """Returns the processes that a thread has started, in that order."""
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/self/task/{worker.native_id}/children").read_text().split()]
    return []


def _require_different(kind: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two {kind}s are called '{twice[0]}', and their results could not be told apart. Rename one."
        )
