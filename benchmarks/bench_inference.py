"""One inference, batch 1, one thread: torch eager, ONNX Runtime and the svitkit bundle side by side in one process.

    python benchmarks/bench_inference.py [--network NAME] [--data DATA] [--images 60] [--rounds 5]
        [--plot SVG] [--json]

Every round runs every image through every runtime in turn, so a disturbance hits all of them. Reported are medians
over all inferences and the ratio to ONNX Runtime, which executes the very file that the bundle was built from.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from svitkit.boards.board import load_board
from svitkit.data import batches, load_data
from svitkit.export.pipeline import export_onnx
from svitkit.export.reference import ReferenceSession
from svitkit.models.checkpoint import Checkpoint, resolve_model
from svitkit.models.run import forward_logits
from svitkit.models.spec import match_dataset
from svitkit.runtime.build import build_bundle
from svitkit.runtime.device_state import read_device_name
from svitkit.runtime.session import Session

PEER = "ONNX Runtime"
GOLDEN = 8
Frames = NDArray[np.float32]
Runtime = Callable[[Frames], NDArray[np.float32]]


def runtimes(checkpoint: Checkpoint, frames: Frames, work: Path) -> dict[str, Runtime]:
    """Prepares every runtime; each takes the (T, C, H, W) frames of one input."""
    onnx = work / "model.onnx"
    metadata = export_onnx(checkpoint, onnx, calibration=torch.from_numpy(frames[:, :GOLDEN]))
    golden = frames[0, :GOLDEN, None] if metadata.static_input else frames[:, :GOLDEN].swapaxes(0, 1)[:, :, None]
    build_bundle(onnx, load_board("host"), work / "bundle", golden=np.ascontiguousarray(golden))
    reference, session = ReferenceSession(onnx), Session(work / "bundle")

    def bundle(x: Frames) -> NDArray[np.float32]:
        return session.run(x[:1] if metadata.static_input else x[:, None])

    def eager(x: Frames) -> NDArray[np.float32]:
        with torch.inference_mode():
            return forward_logits(checkpoint.model, torch.from_numpy(x[:, None])).numpy()

    return {"torch eager": eager, PEER: lambda x: reference.run(x).logits, "svitkit bundle": bundle}


def measure(peers: dict[str, Runtime], frames: Frames, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Returns each runtime's median in ms, and the share of images in percent whose class is that of ONNX Runtime."""
    samples: dict[str, list[float]] = {name: [] for name in peers}
    classes: dict[str, list[int]] = {name: [] for name in peers}
    for turn in range(rounds + 1):  # the first round warms up
        for image in range(frames.shape[1]):
            x = np.ascontiguousarray(frames[:, image])
            for name, run in peers.items():
                start = time.perf_counter_ns()
                logits = run(x)
                elapsed = (time.perf_counter_ns() - start) / 1e6
                if turn:
                    samples[name].append(elapsed)
                else:
                    classes[name].append(int(logits.argmax()))
    agreement = {name: 100 * float(np.mean(np.equal(found, classes[PEER]))) for name, found in classes.items()}
    return {name: float(np.median(values)) for name, values in samples.items()}, agreement


def plot(path: Path, title: str, medians: dict[str, float]) -> None:
    """Draws the medians as bars, with the ratio to the peer written on them."""
    figure = Figure(figsize=(7, 1.9), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(medians), list(medians.values()), color=["#b8b8b8"] * (len(medians) - 1) + ["#2a7f62"])
    labels = [f"{median:.2f} ms, {medians[PEER] / median:.1f}x" for median in medians.values()]
    axes.bar_label(bars, labels, padding=4)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=f"median of one inference in ms; x: times as fast as {PEER}")
    axes.set_xlim(right=1.25 * max(medians.values()))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main(
    network: Annotated[str, typer.Option(help="A zoo name or a checkpoint directory.")] = "digits-spikformer",
    data: str = "digits",
    images: int = 60,
    rounds: int = 5,
    picture: Annotated[Path | None, typer.Option("--plot", help="Also draws the medians into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Runs the comparison and prints a table, or one JSON object."""
    torch.set_num_threads(1)
    checkpoint = resolve_model(network)
    spec = checkpoint.spec
    dataset = match_dataset(load_data(data, timesteps=spec.timesteps), spec)
    x, _ = next(batches(dataset, "test", batch_size=images, timesteps=spec.timesteps, limit=images))
    with tempfile.TemporaryDirectory() as work:
        medians, agreement = measure(runtimes(checkpoint, x.numpy(), Path(work)), x.numpy(), rounds)
    ratios = {name: medians[PEER] / median for name, median in medians.items()}
    title = f"{network} on {read_device_name()}, one thread, batch 1"
    if picture is not None:
        plot(picture, title, medians)
    if as_json:
        print(json.dumps({"network": network, "p50_ms": medians, "speed_up": ratios, "same_class_percent": agreement}))
        return
    table = Table("runtime", "p50 ms", f"times as fast as {PEER}", "same class", title=title)
    for name, median in medians.items():
        table.add_row(name, f"{median:.3f}", f"{ratios[name]:.2f}", f"{agreement[name]:.1f} %")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
