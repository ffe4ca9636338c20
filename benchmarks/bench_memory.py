"""How much memory one inference needs at its peak: svitkit beside ONNX Runtime and torch, each in its own process.

    python benchmarks/bench_memory.py --network spikformer-4-384 [--rate 0.15] [--images 4]
        [--data KIND:PATH] [--json]

Every process reads its own ``VmHWM`` after a few inferences, batch 1, one thread. svitkit is ``svit-run`` on the
bundles with float32, int8 and int4 weights, which the figures ``weights``, ``states`` and ``workspace`` of their memory
plans should explain; ``remaining`` is the rest, to compare with the floor that the program states. ONNX Runtime and
torch run in Python processes that import nothing else; beside each peak stands that of the same process before it loads
the network, and that of an interpreter which has imported nothing. ONNX Runtime reads the exported file and the one
with unrolled neurons; the lower peak counts. For int8 it reads what its own static quantization makes of the latter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.network_files import Files, Frames, write_files
from benchmarks.networks import BenchNetwork, load_network, network_names
from benchmarks.peers import first_line, quantized
from svitkit.boards.board import load_board
from svitkit.errors import RunError, SvitError
from svitkit.models.checkpoint import save_checkpoint
from svitkit.runtime.bench.device_state import read_device_name
from svitkit.runtime.bench.runner_report import parse_report
from svitkit.runtime.build import build_bundle

PROBE = Path(__file__).parent / "memory_probe.py"
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Runner:
    """The memory of one ``svit-run``, in bytes.

    Attributes:
        peak_bytes: ``VmHWM`` of the process.
        private_bytes: private memory after the inferences.
        weights_bytes, states_bytes, workspace_bytes: the bundle's memory plan.
        explained_bytes: the sum of these three.
        remaining_bytes: the peak without that sum: the program, its libraries, its input and output.
        floor_bytes: what the program says that a network of no size would take; None if it cannot tell.
    """

    peak_bytes: int
    private_bytes: int
    weights_bytes: int
    states_bytes: int
    workspace_bytes: int
    explained_bytes: int
    remaining_bytes: int
    floor_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Memories:
    """What was measured, in bytes.

    Attributes:
        network, rate, device: what ran and where; the rate is None for a network's own.
        runners: precision of the weights -> svit-run.
        ort_peak_bytes, torch_peak_bytes: ``VmHWM`` of the process, with float32 weights.
        ort_private_bytes, torch_private_bytes: private memory after the inferences.
        ort_form: ``scan`` or ``unrolled``, the form of the neurons that the figures of ONNX Runtime are of.
        ort_peaks_bytes: form -> ``VmHWM``.
        ort_int8_peak_bytes: ``VmHWM`` with ONNX Runtime's own static quantization; None if it cannot quantize.
        ort_imports_bytes, torch_imports_bytes: ``VmHWM`` of the process when it has imported the runtime only.
        empty_interpreter_bytes: ``VmHWM`` of a Python process that has imported nothing.
        reasons: key -> why there is no figure.
    """

    network: str
    rate: float | None
    device: str | None
    runners: dict[str, Runner]
    ort_peak_bytes: int
    ort_private_bytes: int
    ort_form: str
    ort_peaks_bytes: dict[str, int]
    ort_int8_peak_bytes: int | None
    ort_imports_bytes: int
    torch_peak_bytes: int
    torch_private_bytes: int
    torch_imports_bytes: int
    empty_interpreter_bytes: int
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report's JSON object: ``svitkit_peak_bytes`` is of float32 weights, ``svitkit_int8_...`` not."""
        content = asdict(self)
        runners = content.pop("runners")
        ours = {
            "_".join(["svitkit", *([] if precision == "fp32" else [precision]), key]): value
            for precision, runner in runners.items()
            for key, value in runner.items()
        }
        return {**ours, **content}


def measure(network: BenchNetwork) -> Memories:
    """Runs every runtime in its own process.

    Raises:
        RunError: a process failed or did not say how much memory it used.
    """
    with tempfile.TemporaryDirectory(prefix="svitkit-") as name:
        work = Path(name)
        files = write_files(network, work, threads=1)
        inputs, checkpoint = work / "inputs.npy", work / "checkpoint"
        np.save(inputs, files.inputs)
        # dense runtimes need the same memory whatever fires: thresholds that a checkpoint cannot hold do not matter
        save_checkpoint(checkpoint, network.checkpoint.model, network.checkpoint.spec)
        paths = {"fp32": files.onnx, **{method: made.onnx for method, made in files.integers.items()}}
        runners = {precision: run_bundle(files, path) for precision, path in paths.items()}
        forms = {
            form: probe("ort", path, inputs) for form, path in (("scan", files.onnx), ("unrolled", files.unrolled))
        }
        form = min(forms, key=lambda name: forms[name]["vm_hwm_bytes"])
        int8_peak, reasons = quantized_peak(files, inputs)
        eager = probe("torch", checkpoint, inputs)
        imports = {
            kind: probe(kind, path, inputs, "--imports-only")
            for kind, path in (("ort", files.onnx), ("torch", checkpoint))
        }
        empty = probe("empty")
    return Memories(
        network=network.name,
        rate=network.rate,
        device=read_device_name(),
        runners=runners,
        ort_peak_bytes=forms[form]["vm_hwm_bytes"],
        ort_private_bytes=forms[form]["private_bytes"],
        ort_form=form,
        ort_peaks_bytes={name: memory["vm_hwm_bytes"] for name, memory in forms.items()},
        ort_int8_peak_bytes=int8_peak,
        ort_imports_bytes=imports["ort"]["vm_hwm_bytes"],
        torch_peak_bytes=eager["vm_hwm_bytes"],
        torch_private_bytes=eager["private_bytes"],
        torch_imports_bytes=imports["torch"]["vm_hwm_bytes"],
        empty_interpreter_bytes=empty["vm_hwm_bytes"],
        reasons=reasons,
    )


def run_bundle(files: Files, onnx: Path) -> Runner:
    """Builds the bundle of a file for this machine and runs its own program on every input.

    Raises:
        RunError: the program failed, or the kernel does not tell it how much memory it uses.
    """
    bundle = files.work / f"bundle-{onnx.stem}"
    build_bundle(onnx, load_board("host"), bundle, golden=files.inputs[:1])
    return run_program(bundle, files.inputs)


def run_program(bundle: Path, frames: Frames) -> Runner:
    """Runs a bundle's own program on inputs (N, *input shape) float32.

    Raises:
        RunError: the program failed, or the kernel does not tell it how much memory it uses.
    """
    inputs = bundle.with_name(f"{bundle.name}-input.bin")
    frames.tofile(inputs)
    count = str(len(frames))
    limits = ["--warmup", "0", "--repeat", count, "--min-time-s", "0"]
    report = parse_report(_output([bundle / "svit-run", bundle, "--input", inputs, "--count", count, *limits]))
    if report.vm_hwm_bytes is None or report.private_bytes is None:
        raise RunError("the kernel does not tell svit-run how much memory it uses. Mount /proc.")
    explained = report.weights_bytes + report.state_bytes + report.workspace_bytes
    return Runner(
        peak_bytes=report.vm_hwm_bytes,
        private_bytes=report.private_bytes,
        weights_bytes=report.weights_bytes,
        states_bytes=report.state_bytes,
        workspace_bytes=report.workspace_bytes,
        explained_bytes=explained,
        remaining_bytes=report.vm_hwm_bytes - explained,
        floor_bytes=report.floor_bytes,
    )


def quantized_peak(files: Files, inputs: Path) -> tuple[int | None, dict[str, str]]:
    """Runs the network as ONNX Runtime quantizes it; returns the peak of the process, or the reason for none."""
    try:
        path = quantized(files)
    except Exception as error:  # a peer may fail in any way; the figure is then null and this its reason
        return None, {"ort_int8_peak_bytes": first_line(error)}
    return probe("ort", path, inputs)["vm_hwm_bytes"], {}


def probe(*arguments: str | Path) -> dict[str, int]:
    """Runs ``memory_probe.py`` and returns what it says."""
    memory: dict[str, int] = json.loads(_output([sys.executable, PROBE, *arguments]))
    return memory


def _output(command: list[Any]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), "nothing")
        raise RunError(f"'{' '.join(words[:3])}' ended with exit status {done.returncode}. It said: {last}")
    return done.stdout


def print_table(result: Memories) -> None:
    """Prints the peaks, what they hold, and their ratio to that of svit-run with float32 weights."""
    asked = "its own rates" if result.rate is None else f"{result.rate:g} spikes per neuron and step"
    title = f"{result.network}, {asked}\nbatch 1, one thread, on {result.device}"
    table = Table("process", "peak MiB", "private MiB", "times svit-run fp32", "of the peak", title=title)
    base = result.runners["fp32"].peak_bytes

    def row(name: str, peak: int, private: int | None, held: list[tuple[str, int]]) -> None:
        content = " + ".join(f"{what} {size / MIB:.1f}" for what, size in held)
        own = "-" if private is None else f"{private / MIB:.1f}"
        table.add_row(name, f"{peak / MIB:.1f}", own, f"{peak / base:.2f}", content)

    for precision, runner in result.runners.items():
        parts = [("weights", runner.weights_bytes), ("states", runner.states_bytes)]
        parts += [("workspace", runner.workspace_bytes), ("remaining", runner.remaining_bytes)]
        row(f"svit-run {precision}", runner.peak_bytes, runner.private_bytes, parts)
    imports = [("imports", result.ort_imports_bytes)]
    row(f"ONNX Runtime fp32 ({result.ort_form})", result.ort_peak_bytes, result.ort_private_bytes, imports)
    if result.ort_int8_peak_bytes is not None:
        row("ONNX Runtime int8", result.ort_int8_peak_bytes, None, imports)
    row("torch eager", result.torch_peak_bytes, result.torch_private_bytes, [("imports", result.torch_imports_bytes)])
    console = Console(width=max(Console().width, 132))  # a pipe's 80 columns would break the sums
    empty = f"An interpreter that has imported nothing: {result.empty_interpreter_bytes / MIB:.1f} MiB"
    console.print(table, empty, *(f"{key}: {reason}" for key, reason in result.reasons.items()), sep="\n")


def main(
    network: Annotated[str, typer.Option(help=f"One of {', '.join(network_names())}.")] = "spikformer-4-384",
    rate: Annotated[float | None, typer.Option(help="Spikes per neuron and time step; 0.15 by default.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Different inputs, each run once.")] = 4,
    data: Annotated[str | None, typer.Option(help="Of a network of the zoo, where it needs a path.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Measures the processes and prints a table, or one JSON object."""
    torch.set_num_threads(1)
    try:
        result = measure(load_network(network, rate=rate, images=images, data=data))
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        print_table(result)


if __name__ == "__main__":
    typer.run(main)
