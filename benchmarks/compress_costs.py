"""What an inference of a network costs, before and after compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.bench_latency import time_in_turn
from benchmarks.bench_memory import run_program
from benchmarks.compressions import Cost
from benchmarks.peers import first_line
from svitkit.boards.board import load_board
from svitkit.data import batches
from svitkit.data.dataset import Dataset
from svitkit.errors import SvitError
from svitkit.export.metadata import read_metadata
from svitkit.inspect_model import inspect_network
from svitkit.models.checkpoint import Checkpoint
from svitkit.proven import build_proven, export_proven, samples
from svitkit.runtime.session import Session

INSPECTED_IMAGES = 16
TIMED_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A bundle that was built for this machine and run here, batch 1, one thread.

    Attributes:
        bundle: its folder.
        latency_ms: median.
        peak_bytes: ``VmHWM`` of svit-run.
    """

    bundle: Path
    latency_ms: float
    peak_bytes: int


def measure_costs(
    original: Checkpoint, smaller: Checkpoint, data: Dataset, folders: tuple[Path, Path], *, rounds: int
) -> tuple[Cost, Cost, dict[str, str]]:
    """Counts, builds, times in turn and runs two networks.

    Args:
        original: the network before.
        smaller: the network after.
        data: fitting both.
        folders: where the artefacts of each are; what is there is not built again.
        rounds: how often each of 4 test images is timed.

    Returns:
        The costs of both, and why there are no times if there are none.
    """
    before, after = static_cost(original, data), static_cost(smaller, data)
    try:
        ran = run_in_turn((original, smaller), data, folders, rounds=rounds)
    except SvitError as error:
        return before, after, {"latency_ms": first_line(error)}
    before, after = (
        replace(cost, latency_ms=each.latency_ms, peak_bytes=each.peak_bytes)
        for cost, each in zip((before, after), ran, strict=True)
    )
    return before, after, {}


def run_in_turn(
    networks: Sequence[Checkpoint], data: Dataset, folders: Sequence[Path], *, rounds: int
) -> tuple[Ran, ...]:
    """Builds networks, times them in turn, and runs each in a process of its own.

    Args:
        networks: fitting the same data.
        data: the data.
        folders: where the artefacts of each are; what is there is not built again.
        rounds: how often each of 4 test images is timed.

    Raises:
        SvitError: a network cannot be built, or not run.
    """
    bundles = [_bundle(network, data, folder) for network, folder in zip(networks, folders, strict=True)]
    inputs = samples(data, "test", read_metadata(folders[0] / "model.onnx"), limit=TIMED_IMAGES)
    runtimes = {str(bundle): Session(bundle, threads=1).run for bundle in bundles}
    passed, _ = time_in_turn(runtimes, list(inputs), rounds)
    return tuple(
        Ran(
            bundle=bundle,
            latency_ms=float(np.median(passed[str(bundle)])),
            peak_bytes=run_program(bundle, inputs).peak_bytes,
        )
        for bundle in bundles
    )


def _bundle(network: Checkpoint, data: Dataset, folder: Path) -> Path:
    bundle = folder / "bundle"
    if not bundle.exists():
        folder.mkdir(parents=True, exist_ok=True)
        export_proven(network, folder / "model.onnx", dataset=data)
        build_proven(folder / "model.onnx", load_board("host"), bundle, data)
    return bundle


def static_cost(checkpoint: Checkpoint, data: Dataset) -> Cost:
    """Returns what can be counted without running a bundle."""
    x, _ = next(
        batches(
            data,
            "validation",
            batch_size=INSPECTED_IMAGES,
            timesteps=checkpoint.spec.timesteps,
            limit=INSPECTED_IMAGES,
        )
    )
    rows = inspect_network(checkpoint, x)
    return Cost(
        parameter_bytes=checkpoint.parameter_bytes(),
        macs=sum(row.macs for row in rows),
        synaptic_operations=sum(row.synaptic_operations for row in rows),
    )
