"""Whether pruning makes a network as much faster as the cost model says: predicted speed-ups against measured ones.

    python benchmarks/bench_prediction.py --model digits-spikformer [--data digits] [--ways mlp,qkv,stem,all-30,all-50]
        [--multiple 1] [--rounds 9] [--method int8] [--json]

The network is pruned in several ways by L2 norm. Each result is predicted as the search of ``svitkit compress
--objective latency`` does it, from images of the training split, and built for this machine. Then svit-run plays all
bundles in turn, on one thread and on images of the test split, round after round. A round's speed-up is the median time
of the unpruned network by that of the pruned one; reported is the median over the rounds. Where others use the machine
the medians say little, and ``speedup_of_fastest`` says more: the ratio of the times that the images take at best.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.program_files import time_inferences
from benchmarks.pruned import prune
from svitkit.boards.board import Board, load_board
from svitkit.compress.options import INTEGER_METHODS
from svitkit.compress.quantize import quantize_network, uniform_bits
from svitkit.data import Dataset, load_data
from svitkit.errors import SvitError, unknown_name
from svitkit.export.pipeline import export_onnx
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.resolve import resolve_model
from svitkit.models.run import example_input
from svitkit.models.spec import match_dataset
from svitkit.predict import predict_latency
from svitkit.proven import calibration_images, samples
from svitkit.runtime.bench.device_state import read_device_name
from svitkit.runtime.build import build_bundle

UNPRUNED = "unpruned"
TIMED_IMAGES = 16
MIN_TIME_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to prune: the fraction that is removed of every group whose name fits."""

    ratio: float
    fits: Callable[[str], bool] = lambda name: True


def _is_stem(name: str) -> bool:
    return not any(part in name for part in ("mlp", "attn"))


WAYS = {
    "mlp": Way(ratio=0.5, fits=lambda name: "mlp" in name),
    "qkv": Way(ratio=0.5, fits=lambda name: "attn" in name),
    "stem": Way(ratio=0.5, fits=_is_stem),
    "all-30": Way(ratio=0.3),
    "all-50": Way(ratio=0.5),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One pruned network against the unpruned one.

    Attributes:
        way: how it was pruned; ``unpruned`` for the network itself.
        predicted_ms: of an inference.
        measured_ms: median over rounds of the median of a round.
        fastest_ms: mean over the images of the fastest inference of each.
        predicted_speedup, measured_speedup: times as fast as the unpruned network.
        speedup_of_fastest: the same from ``fastest_ms``.
    """

    way: str
    predicted_ms: float
    measured_ms: float
    fastest_ms: float
    predicted_speedup: float
    measured_speedup: float
    speedup_of_fastest: float

    @property
    def error(self) -> float:
        """By how much the predicted speed-up is off, as a share of the measured one."""
        return self.predicted_speedup / self.measured_speedup - 1.0

    @property
    def error_of_fastest(self) -> float:
        """The same as a share of ``speedup_of_fastest``."""
        return self.predicted_speedup / self.speedup_of_fastest - 1.0


def measure(checkpoint: Checkpoint, dataset: Dataset, ways: Sequence[str], *, rounds: int, make: Make) -> list[Outcome]:
    """Predicts, builds and times a network pruned in several ways.

    Args:
        checkpoint: the network.
        dataset: data that fit it.
        ways: of ``WAYS``.
        rounds: how often every bundle is timed.
        make: makes the network that is deployed out of the unpruned one.
    """
    board = load_board("host")
    calibration = calibration_images(checkpoint, dataset)
    predicted: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="svitkit-") as work:
        bundles = {way: Path(work) / way for way in (UNPRUNED, *ways)}
        for way, bundle in bundles.items():
            made = make(checkpoint, WAYS.get(way), calibration)
            estimate = predict_latency(made, board, calibration)
            predicted[way] = estimate.total_cycles / (estimate.clock_mhz or 1.0) / 1e3
            _build(made, dataset, board, bundle, calibration)
            print(f"built {way}", file=sys.stderr)
        samples = [[_time(bundle) for bundle in bundles.values()] for _ in range(rounds)]
    medians = np.array([[np.median(each) for each in turn] for turn in samples]) / 1e6
    fastest = np.min([[each.min(axis=0) for each in turn] for turn in samples], axis=0).mean(axis=1) / 1e6
    return [
        Outcome(
            way=way,
            predicted_ms=predicted[way],
            measured_ms=float(np.median(medians[:, column])),
            fastest_ms=float(fastest[column]),
            predicted_speedup=predicted[UNPRUNED] / predicted[way],
            measured_speedup=float(np.median(medians[:, 0] / medians[:, column])),
            speedup_of_fastest=float(fastest[0] / fastest[column]),
        )
        for column, way in enumerate(bundles)
    ]


Make = Callable[[Checkpoint, Way | None, torch.Tensor], Checkpoint]


def maker(multiple: int, method: str | None) -> Make:
    """Returns what prunes a network, to multiples of so many channels, and then makes its weights integers."""

    def make(checkpoint: Checkpoint, way: Way | None, inputs: torch.Tensor) -> Checkpoint:
        made = checkpoint
        if way is not None:
            made = prune(checkpoint, way.ratio, inputs, chosen=way.fits, multiple=multiple)
        return made if method is None else _quantize(made, method)

    return make


def _quantize(checkpoint: Checkpoint, method: str) -> Checkpoint:
    spec = checkpoint.spec
    bits = uniform_bits(checkpoint.model, example_input(spec), INTEGER_METHODS[method])
    small = quantize_network(checkpoint.model, bits, spec.normalization, static=spec.static_input)
    return Checkpoint(model=small.model, spec=replace(spec, quantization=small.spec), quantized=small.weights)


def _build(checkpoint: Checkpoint, dataset: Dataset, board: Board, bundle: Path, calibration: torch.Tensor) -> None:
    exported = bundle.with_suffix(".onnx")
    metadata = export_onnx(checkpoint, exported, calibration=calibration)
    build_bundle(exported, board, bundle, golden=samples(dataset, "test", metadata, limit=TIMED_IMAGES))


def _time(bundle: Path) -> NDArray[np.float64]:
    return time_inferences(bundle, bundle / "golden_input.bin", count=TIMED_IMAGES, min_time_s=MIN_TIME_S)


def print_table(title: str, outcomes: Sequence[Outcome]) -> None:
    """Prints one row a way."""
    table = Table(title=title)
    for head in ("pruned", "predicted ms", "p50 ms", "fastest ms", "predicted", "p50", "error", "fastest", "error"):
        table.add_column(head, justify="left" if head == "pruned" else "right")
    for each in outcomes:
        times = [f"{cell:.3f}" for cell in (each.predicted_ms, each.measured_ms, each.fastest_ms)]
        medians = [f"{each.predicted_speedup:.3f}x", f"{each.measured_speedup:.3f}x", f"{each.error:+.1%}"]
        table.add_row(each.way, *times, *medians, f"{each.speedup_of_fastest:.3f}x", f"{each.error_of_fastest:+.1%}")
    Console(width=120).print(table)


def main(
    model: Annotated[str, typer.Option(help="Name of the zoo or checkpoint directory.")] = "digits-spikformer",
    data: Annotated[str, typer.Option(help="Its data.")] = "digits",
    ways: Annotated[str, typer.Option(help="How to prune.")] = ",".join(WAYS),
    multiple: Annotated[int, typer.Option(help="Channels that are left divide by it.", min=1)] = 1,
    method: Annotated[str | None, typer.Option(help="Makes the weights integers: int8 or int4.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each bundle is timed.", min=1)] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Prints predicted and measured speed-ups."""
    torch.set_num_threads(1)
    try:
        for way in ways.split(","):
            if way not in WAYS:
                raise unknown_name("way to prune", way, WAYS)
        if method is not None and method not in INTEGER_METHODS:
            raise unknown_name("method", method, INTEGER_METHODS)
        checkpoint = resolve_model(model)
        dataset = match_dataset(load_data(data, timesteps=checkpoint.spec.timesteps), checkpoint.spec)
        outcomes = measure(checkpoint, dataset, ways.split(","), rounds=rounds, make=maker(multiple, method))
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    device = read_device_name()
    if as_json:
        errors = [{"error": each.error, "error_of_fastest": each.error_of_fastest} for each in outcomes]
        rows = [{**asdict(each), **error} for each, error in zip(outcomes, errors, strict=True)]
        print(json.dumps({"model": model, "device": device, "method": method, "outcomes": rows}))
        return
    print_table(f"{model}, {method or 'fp32'}, one thread of {device}", outcomes)


if __name__ == "__main__":
    typer.run(main)
