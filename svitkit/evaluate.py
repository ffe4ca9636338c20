"""Accuracy of a network in any of its forms: checkpoint, ONNX file or bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from svitkit.errors import ConfigError
from svitkit.manifest import ModelMetadata, read_manifest
from svitkit.progress import Advance

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset
    from svitkit.models.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Top-1 accuracy.

    Attributes:
        runtime: what computed it: ``torch``, ``onnxruntime``, or the name of the board.
        dataset: name of the data.
        split: ``train``, ``validation`` or ``test``.
        images: how many were classified.
        accuracy_percent: 0..100.
    """

    runtime: str
    dataset: str
    split: str
    images: int
    accuracy_percent: float


def evaluate_checkpoint(checkpoint: Checkpoint, dataset: Dataset, split: str, *, limit: int | None) -> Evaluation:
    """Measures a network in torch.

    Args:
        checkpoint: the network.
        dataset: data that fit it (``match_dataset``).
        split: ``train``, ``validation`` or ``test``.
        limit: images at most; all if None.
    """
    from svitkit.accuracy import accuracy

    percent = accuracy(checkpoint.model, dataset, split, timesteps=checkpoint.spec.timesteps, limit=limit)
    return _evaluation("torch", dataset, split, limit, percent)


def evaluate_onnx(path: Path, data: str, split: str, *, limit: int | None, advance: Advance) -> Evaluation:
    """Measures an exported file in ONNX Runtime.

    Args:
        path: the file.
        data: kind of data, and path.
        split: ``train``, ``validation`` or ``test``.
        limit: images at most; all if None.
        advance: told how far it is.

    Raises:
        SvitError: the file is not what ``svitkit export`` writes, or the data do not fit.
    """
    from svitkit.data.dataset import sample_order, sequence
    from svitkit.onnx_reference import ReferenceSession

    session = ReferenceSession(path)
    model = session.metadata
    dataset = load_for(model, data)
    chosen, order = dataset.split(split), sample_order(dataset, split, seed=None, limit=limit)
    right = 0
    for done, index in enumerate(order, start=1):
        x = sequence(chosen.x[index : index + 1], dataset, timesteps=model.timesteps)[:, 0]
        right += int(session.run(x).logits.argmax() == chosen.y[index])
        advance("classifying in ONNX Runtime", done / len(order))
    return _evaluation("onnxruntime", dataset, split, limit, 100 * right / len(order))


def evaluate_bundle(
    bundle: Path,
    board: str | None,
    data: str,
    split: str,
    *,
    limit: int | None,
    advance: Advance,
    host: str | None = None,
    wait_s: int = 0,
    threads: int | None = None,
) -> Evaluation:
    """Measures a bundle on a board.

    Args:
        bundle: its directory.
        board: name of the board; the one that the bundle was built for if None.
        data: kind of data, and path.
        split: ``test``; boards are shown nothing else.
        limit: images at most; all if None.
        advance: told how far it is.
        host: ``[user@]address[:port]`` of a board that is reached by SSH; boards.toml says it if None.
        wait_s: how long to wait while somebody else uses the board.
        threads: threads of an inference; the board's own number if None.

    Raises:
        SvitError: the bundle cannot run on the board, or the data do not fit.
    """
    from svitkit.boards.board import load_board
    from svitkit.runtime.bench.measure import bench
    from svitkit.runtime.bench.options import BenchOptions

    if split != "test":
        raise ConfigError(
            f"a bundle is measured on the test split, got '{split}'. Evaluate its checkpoint on the others."
        )
    manifest = read_manifest(bundle)
    where = load_board(board or manifest.board)
    dataset = load_for(manifest.model, data)
    count = limit or len(dataset.test)
    record = bench(
        bundle,
        where,
        host=host,
        wait_s=wait_s,
        dataset=dataset,
        options=BenchOptions(limit=count, warmup=0, warmup_s=0.0, repeat=1, min_time_s=0.0, threads=threads),
        progress=advance,
    )
    if record.accuracy is None:
        raise ConfigError(f"data '{dataset.name}' have no test images. Give --data with a test split.")
    return _evaluation(where.name, dataset, split, limit, record.accuracy.percent)


def load_for(model: ModelMetadata, data: str) -> Dataset:
    """Loads data as an exported network wants to see them.

    Raises:
        ConfigError: the data are missing or wrong, or do not fit the network.
    """
    from svitkit.data.load import load_data

    return _seen_by(model, load_data(data, timesteps=model.timesteps))


def load_for_each(models: Mapping[str, ModelMetadata], data: str) -> dict[str, Dataset]:
    """Loads data as each of several networks wants to see them; see :func:`load_for`.

    Args:
        models: the networks by name, which errors tell.
        data: kind of data, and path.
    """
    from svitkit.data.load import load_data

    loaded = {steps: load_data(data, timesteps=steps) for steps in {model.timesteps for model in models.values()}}
    seen = {}
    for name, model in models.items():
        try:
            seen[name] = _seen_by(model, loaded[model.timesteps])
        except ConfigError as error:
            raise ConfigError(f"bundle {name}: {error}") from None
    return seen


def _seen_by(model: ModelMetadata, dataset: Dataset) -> Dataset:
    from svitkit.runtime.bench.device_checks import check_data

    check_data(dataset, model)
    return replace(dataset, normalization=model.normalization)


def _evaluation(runtime: str, dataset: Dataset, split: str, limit: int | None, percent: float) -> Evaluation:
    count = len(dataset.split(split))
    return Evaluation(
        runtime=runtime,
        dataset=dataset.name,
        split=split,
        images=count if limit is None else min(limit, count),
        accuracy_percent=percent,
    )
