"""The whole path: compress, export, verify, build and bench, with every artefact on disk.

    DIR/checkpoint   DIR/model.onnx   DIR/bundle   DIR/record.json

An artefact is replaced when its successor is whole; what was made from the old one goes at the same moment, so that the
artefacts of a directory always belong together.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from svitkit.boards.board import Board
from svitkit.boards.devices import check_gpu_threads, check_predictable
from svitkit.boards.gpu import Device
from svitkit.boards.preflight import check_device
from svitkit.boards.transports import open_transport
from svitkit.errors import ConfigError
from svitkit.progress import Advance
from svitkit.proven import build_proven, check_device_choice, export_proven

if TYPE_CHECKING:
    from svitkit.compress.run import CompressResult
    from svitkit.data.dataset import Dataset
    from svitkit.manifest import Manifest
    from svitkit.models.checkpoint import Checkpoint
    from svitkit.runtime.bench.record import BenchRecord

CHECKPOINT, ONNX, BUNDLE, RECORD = ARTEFACTS = ("checkpoint", "model.onnx", "bundle", "record.json")
BOARD_IMAGES = 1000
FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """What is asked for; all but ``threads`` as in ``svitkit.compress.pipeline.compress_model``.

    Attributes:
        limit: images at most, of every split; None for all in the search and 1000 on the board.
        objective: what shall be as small as accuracy allows, ``latency`` on the board that is deployed to.
        threads: threads of an inference on the board; the board's own number if None.
        single_file: whether the bundle is one program instead of a folder.
        device: what the bundle runs on, the CPU or the GPU of the board.
        host: ``[user@]address[:port]`` of a board that is reached by SSH; boards.toml says it if None.
        wait_s: how long to wait while somebody else uses the board.
    """

    method: str = "svitkit"
    max_drop: float | None = None
    min_saving: float | None = None
    finetune_epochs: int = 0
    bn_recalibration: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    limit: int | None = None
    threads: int | None = None
    single_file: bool = False
    device: Device = "cpu"
    resume: bool = False
    objective: str | None = None
    host: str | None = None
    wait_s: int = 0


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """The limits cannot be met; the best network that was found is kept, and nothing was built from it.

    Attributes:
        why: the outcome in one sentence.
        validation_before, validation_after: accuracy in percent.
        memory_saving: share of the parameter bytes.
        artifacts: paths by name.
    """

    satisfied: bool = field(default=False, init=False)
    model: str
    board: str
    why: str
    validation_before: float
    validation_after: float
    memory_saving: float
    artifacts: dict[str, Path]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a deployment came to. Accuracies are percent, savings shares.

    Attributes:
        satisfied: whether the network met the limits on validation accuracy and parameter bytes.
        model: what was deployed.
        board: where.
        emulated: whether an emulator ran it; then latency and process memory say nothing about a board.
        accuracy_before, accuracy_after: on the same test images; the original in torch, and the bundle on the board.
        accuracy_images: how many test images that were.
        validation_before, validation_after: accuracies on which the compression decided.
        memory_saving: 1 - weights in the bundle / fp32 weights of the original.
        operations_saving: share of the dense multiply-accumulates, where blocks compute some of their tokens only.
        params_before, params_after: deployed parameters (batch norms folded).
        bundle_bytes: all files of the bundle.
        latency_ms: one inference; the percentiles that the number of samples supports.
        peak_rss_bytes: VmHWM of the program on the board; None where the kernel does not tell.
        golden_match: the board computes what was computed at build time.
        valid, reasons: whether the measurement may be believed, and what speaks against it.
        artifacts: paths by name.
    """

    satisfied: bool = field(default=True, init=False)
    model: str
    board: str
    emulated: bool
    accuracy_before: float
    accuracy_after: float
    accuracy_images: int
    validation_before: float
    validation_after: float
    memory_saving: float
    operations_saving: float | None
    params_before: int
    params_after: int
    bundle_bytes: int
    latency_ms: dict[str, float]
    peak_rss_bytes: int | None
    golden_match: bool
    valid: bool
    reasons: tuple[str, ...]
    artifacts: dict[str, Path]


def deploy(
    name: str,
    checkpoint: Checkpoint,
    dataset: Dataset,
    board: Board,
    out: Path,
    *,
    options: DeployOptions,
    advance: Advance,
) -> tuple[Deployment, BenchRecord] | Shortfall:
    """Takes a trained network to a measured bundle on a board.

    Args:
        name: what to call the network.
        checkpoint: the network.
        dataset: data that fit it (``match_dataset``).
        board: where it is to run.
        out: folder of the artefacts.
        options: what is asked for.
        advance: told how far it is.

    Returns:
        The summary and the full record; or, where the limits cannot be met, what was reached.

    Raises:
        SvitError: a stage failed; what the stages before it made stays.
    """
    from svitkit.runtime.bench.measure import bench
    from svitkit.runtime.bench.options import BenchOptions
    from svitkit.runtime.bench.record import write_record

    board = require_buildable(board, options)
    prepare_folder(out)
    require_reachable(board, options)
    small = _compress(checkpoint, dataset, board, out / CHECKPOINT, options, advance)
    _discard(out, ONNX, BUNDLE, RECORD)
    if not small.satisfied:
        return _shortfall(name, board, small, out)
    advance("export and verify", 0)
    export_proven(small.checkpoint, out / ONNX, dataset=dataset)
    advance("export and verify", 1)
    advance("build", 0)
    manifest = build_proven(
        out / ONNX, board, out / BUNDLE, dataset, single_file=options.single_file, device=options.device
    )
    advance("build", 1)
    images = options.limit or BOARD_IMAGES
    record = bench(
        out / BUNDLE,
        board,
        host=options.host,
        wait_s=options.wait_s,
        dataset=dataset,
        options=BenchOptions(limit=images, threads=options.threads),
        progress=advance,
    )
    write_record(out / RECORD, record)
    before = _test_accuracy(checkpoint, dataset, images)
    return _summary(name, small, manifest, record, accuracy_before=before, out=out), record


def default_folder(name: str, board: Board, device: Device = "cpu") -> Path:
    """Returns where artefacts go if nothing else is said: ``svitkit-out/<model>-<board>``, for GPUs with ``-gpu``."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in Path(name).name)
    suffix = "-gpu" if device == "gpu" and not board.stands_in_for_gpu else ""
    return Path("svitkit-out") / f"{plain}-{board.name}{suffix}"


def prepare_folder(out: Path) -> None:
    """Refuses a folder that holds something else than a deployment.

    Raises:
        ConfigError: it does.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"'{out}' is a file. Choose another folder with -o.")
    foreign = [path.name for path in out.iterdir() if path.name not in ARTEFACTS] if out.exists() else []
    foreign = [name for name in foreign if not name.startswith(tuple(f".{artefact}." for artefact in ARTEFACTS))]
    if foreign:
        raise ConfigError(f"'{out}' holds '{foreign[0]}', which no deployment makes. Choose another folder with -o.")


def require_buildable(board: Board, options: DeployOptions) -> Board:
    """Returns the board with the GPU that is built for, if one is.

    Raises:
        ConfigError: there is none, or what is asked for beside it is of CPUs.
    """
    if options.objective == "latency":
        check_predictable(board, options.device)
    if options.device == "gpu":
        check_gpu_threads(options.threads)
    return check_device_choice(board, options.device, single_file=options.single_file)


def require_reachable(board: Board, options: DeployOptions) -> None:
    """Fails early where the last step would fail.

    Raises:
        ConfigError: programs cannot be run on the board from here, or it is another board.
        RunError: the board does not answer, or somebody else uses it.
    """
    with open_transport(board, host=options.host, wait_s=options.wait_s) as transport:
        if transport.facts is not None:
            threads = 1 if options.device == "gpu" else options.threads
            check_device(transport.facts, board, threads=threads, device=options.device)


def _compress(
    checkpoint: Checkpoint, dataset: Dataset, board: Board, out: Path, options: DeployOptions, advance: Advance
) -> CompressResult:
    from svitkit.compress.pipeline import compress_model
    from svitkit.predict import latency_costs

    return compress_model(
        checkpoint,
        dataset,
        out,
        method=options.method,
        max_drop=options.max_drop,
        min_saving=options.min_saving,
        finetune_epochs=options.finetune_epochs,
        resume=options.resume,
        bn_recalibration=options.bn_recalibration,
        settings=options.settings,
        seed=options.seed,
        limit=options.limit,
        objective=options.objective,
        costs=latency_costs(checkpoint, dataset, board) if options.objective == "latency" else None,
        progress=advance,
    )


def _discard(out: Path, *names: str) -> None:
    """Removes artefacts that were made from an older network."""
    for name in names:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _test_accuracy(checkpoint: Checkpoint, dataset: Dataset, images: int) -> float:
    from svitkit.accuracy import accuracy

    return accuracy(checkpoint.model, dataset, "test", timesteps=checkpoint.spec.timesteps, limit=images)


def _shortfall(name: str, board: Board, small: CompressResult, out: Path) -> Shortfall:
    return Shortfall(
        model=name,
        board=board.name,
        why=small.report.why,
        validation_before=small.report.before.validation,
        validation_after=small.report.after.validation,
        memory_saving=small.report.memory_saving,
        artifacts={"checkpoint": out / CHECKPOINT},
    )


def _summary(
    name: str, small: CompressResult, manifest: Manifest, record: BenchRecord, *, accuracy_before: float, out: Path
) -> Deployment:
    if record.accuracy is None:
        raise ConfigError(f"the data have no test images for {name}. Give --data with a test split.")
    original = manifest.model.original_parameter_bytes
    figures = {key: getattr(record.latency_ms, key) for key in ("min", "mean", "max", "p50", "p90", "p95", "p99")}
    return Deployment(
        model=name,
        board=record.board,
        emulated=record.emulated,
        accuracy_before=accuracy_before,
        accuracy_after=record.accuracy.percent,
        accuracy_images=record.accuracy.count,
        validation_before=small.report.before.validation,
        validation_after=small.report.after.validation,
        memory_saving=1 - manifest.weights_bytes / original,
        operations_saving=small.report.tokens.saving if small.report.tokens else None,
        params_before=original // FLOAT32_BYTES,
        params_after=small.checkpoint.parameter_count(),
        bundle_bytes=record.bundle_bytes,
        latency_ms={key: value for key, value in figures.items() if value is not None},
        peak_rss_bytes=record.memory.vm_hwm_bytes,
        golden_match=record.golden.match,
        valid=record.valid,
        reasons=record.reasons,
        artifacts={"checkpoint": out / CHECKPOINT, "onnx": out / ONNX, "bundle": out / BUNDLE, "record": out / RECORD},
    )
