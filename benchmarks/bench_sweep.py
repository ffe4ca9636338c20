"""What the fast sweep saves beside the plain one, and whether both decide the same.

    python benchmarks/bench_sweep.py --network digits-spikformer [--data digits] [--limit N] [--bn-images 0]
        [--max-drop 3] [--min-saving 0.25] [--rates 0.1,0.3,0.5] [--json]

PrimeSVT's search (:mod:`svitkit.compress.primesvt`) runs twice in one process, first with ``--sweep fast``, then with
``--sweep plain``. Seconds are processor time from the first candidate to the last, on one thread, so that other
programs on the machine count little. Decisions are the same if plan, candidates, the rates that count as robust, the
scores and all reasons are, and every accuracy that was measured to the end. The exit code is 3 if they are not.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import typer

from svitkit.compress.options import WorkOptions
from svitkit.compress.pipeline import compress_model
from svitkit.compress.run import CompressResult
from svitkit.data.dataset import Dataset
from svitkit.data.load import load_data
from svitkit.errors import SvitError
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.resolve import resolve_model
from svitkit.presets import PRESETS, data_of

DIFFERENT = 3


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was measured.

    Attributes:
        network: its name.
        images: validation images that decisions were taken on.
        candidates: how many were measured.
        stopped: how many of them the fast sweep did not measure to the end.
        fast_s, plain_s: processor time of the searches, in seconds.
        ratio: fast over plain.
        same_decisions: whether both decided the same.
    """

    network: str
    images: int
    candidates: int
    stopped: int
    fast_s: float
    plain_s: float
    ratio: float
    same_decisions: bool


class Stopwatch:
    """Processor time between the first and the last word of a search's progress."""

    def __init__(self) -> None:
        self._began: float | None = None
        self.seconds = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Looks at the clock."""
        if stage.startswith(("sweep", "prune")):
            now = time.process_time()
            self._began = now if self._began is None else self._began
            self.seconds = now - self._began


def compare(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    name: str,
    limit: int | None,
    bn_images: int,
    max_drop: float,
    min_saving: float,
    rates: tuple[float, ...] | None,
) -> Comparison:
    """Searches twice.

    Args:
        checkpoint: the network.
        dataset: data that it was trained on.
        name: of the network.
        limit: at most that many images of every split.
        bn_images: training images on which every candidate's batch norms are estimated again.
        max_drop: accuracy that may be lost, in points.
        min_saving: fraction of the parameter bytes that must go.
        rates: pruning ratios that are tried; None for the method's own.
    """
    results: dict[str, CompressResult] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for sweep in ("fast", "plain"):
            watch = Stopwatch()
            results[sweep] = compress_model(
                checkpoint,
                dataset,
                Path(folder) / sweep,
                method="primesvt",
                max_drop=max_drop,
                min_saving=min_saving,
                bn_recalibration=bn_images,
                limit=limit,
                settings={"rates": rates} if rates else {},
                work=WorkOptions(sweep=sweep),
                progress=watch,
            )
            seconds[sweep] = watch.seconds
        lines = (Path(folder) / "fast" / "search.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    entries = [json.loads(line) for line in lines]
    measured = [entry for entry in entries if entry["key"].startswith("validation, ")]
    return Comparison(
        network=name,
        images=min(limit or len(dataset.validation), len(dataset.validation)),
        candidates=len({entry["key"] for entry in measured}),
        stopped=sum(entry["stopped"] is not None for entry in measured),
        fast_s=seconds["fast"],
        plain_s=seconds["plain"],
        ratio=seconds["fast"] / seconds["plain"],
        same_decisions=decides_alike(results["fast"], results["plain"]),
    )


def decides_alike(fast: CompressResult, plain: CompressResult) -> bool:
    """Whether two searches decided the same; a rate whose evaluation stopped has an estimate instead of an accuracy."""
    ours, theirs = fast.report, plain.report
    if (
        replace(ours, groups=()) != replace(theirs, groups=())
        or fast.checkpoint.spec.plan != plain.checkpoint.spec.plan
    ):
        return False
    for group, other in zip(ours.groups, theirs.groups, strict=True):
        if replace(group, sweep=()) != replace(other, sweep=()):
            return False
        for point, exact in zip(group.sweep, other.sweep, strict=True):
            known = (
                exact
                if point.images is None
                else replace(exact, accuracy=point.accuracy, images=point.images, score=point.score)
            )
            if point != known:
                return False
    return True


def main(
    network: Annotated[str, typer.Option(help="A name of the zoo, or a checkpoint directory.")] = "digits-spikformer",
    data: Annotated[str | None, typer.Option(help="As svitkit takes it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Images of a split at most.")] = None,
    bn_images: Annotated[int, typer.Option(min=0, help="Training images for the statistics of batch norms.")] = 0,
    max_drop: Annotated[float, typer.Option(min=0, help="Points of validation accuracy that may be lost.")] = 3.0,
    min_saving: Annotated[float, typer.Option(min=0, max=1, help="Share of the parameter bytes to save.")] = 0.25,
    rates: Annotated[str, typer.Option(help="Pruning ratios, divided by commas; all of the method's if empty.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare the fast sweep with the plain one."""
    torch.set_num_threads(1)
    try:
        checkpoint = resolve_model(network)
        made_for = checkpoint.spec.provenance.get("architecture")
        wanted = data_of(made_for, data) if made_for in PRESETS else data or "digits"
        comparison = compare(
            checkpoint,
            load_data(wanted, timesteps=checkpoint.spec.timesteps),
            name=Path(network).name,
            limit=limit,
            bn_images=bn_images,
            max_drop=max_drop,
            min_saving=min_saving,
            rates=tuple(float(rate) for rate in rates.split(",")) if rates else None,
        )
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(asdict(comparison)))
    else:
        for key, value in asdict(comparison).items():
            print(f"{key:>15}: {value:.3g}" if isinstance(value, float) else f"{key:>15}: {value}")
    if not comparison.same_decisions:
        raise typer.Exit(DIFFERENT)


if __name__ == "__main__":
    typer.run(main)
