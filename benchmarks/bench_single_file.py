"""A bundle and the single file of one network in turn: size, start, memory, latency, and what reading bytes costs.

    python benchmarks/bench_single_file.py model.onnx [--board host] [--data KIND:PATH] [--starts 50]
        [--markdown | --json]

model.onnx is a file of ``svitkit export``. Both forms are built for the board and started in turn, each time as a new
process, one thread, batch 1. ``start`` is the whole process by the clock of this script, from its creation to its end,
with one inference; ``load`` and ``first inference`` are what the program says of itself. The files lie in the page
cache, as after a first start. Peak is ``VmHWM``, the largest resident set; the floor is what the program says that a
network of no size would take. ``latency`` is the median of 200 inferences of a process on test images as float32
tensors, ``of bytes`` that of the same images as frames of bytes. All are medians over the starts, latencies over every
fifth start. Of an emulated board only the sizes mean anything, and only they are in the table; times and memory are
those of the emulator.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer
from rich.console import Console
from rich.table import Table

from svitkit.boards.board import Board, load_board
from svitkit.boards.transports import Transport, open_transport
from svitkit.data.dataset import sample_order
from svitkit.errors import ConfigError, RunError, SvitError
from svitkit.evaluate import load_for
from svitkit.export.metadata import read_metadata
from svitkit.proven import build_proven, samples
from svitkit.runtime.bench.device_state import read_device_name
from svitkit.runtime.bench.runner_process import check_end
from svitkit.runtime.bench.runner_report import RunnerReport, parse_report

IMAGES = 8
REPEAT = 200
TIMEOUT_S = 600
COLUMNS = (
    *("form", "size KiB", "peak KiB", "private KiB", "floor KiB", "start ms"),
    *("load ms", "first inference ms", "latency ms", "of bytes ms"),
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """Medians of one form of the network.

    Attributes:
        name: ``bundle`` or ``single file``.
        size_bytes: of all its files.
        start_ms, load_ms, first_ms: see the script.
        latency_ms, bytes_ms: of tensors, and of frames of bytes.
        peak_bytes, private_bytes, floor_bytes: of a process that has run the network once.
    """

    name: str
    size_bytes: int
    start_ms: float
    load_ms: float
    first_ms: float
    latency_ms: float
    bytes_ms: float
    peak_bytes: float
    private_bytes: float
    floor_bytes: float


@dataclass(frozen=True, kw_only=True)
class Started:
    """One start of a program."""

    wall_ms: float
    report: RunnerReport


class Program:
    """A form of the network on the board."""

    def __init__(self, name: str, path: Path, transport: Transport, mode: list[str]) -> None:
        self.name = name
        self.size_bytes = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
        place = transport.push(path)
        self.command = [f"{place}/svit-run", place, *mode] if path.is_dir() else [place, *mode]
        self.transport = transport
        self.starts: list[Started] = []
        self.latencies: dict[str, list[float]] = {"tensors": [], "bytes": []}

    def run(self, inputs: str, *options: str) -> Started:
        """Runs it on a file of inputs."""
        command = [*self.command, "--input", inputs, "--count", str(IMAGES), "--warmup", "0", *options]
        begin = time.perf_counter()
        done = self.transport.run(command, TIMEOUT_S)
        wall = time.perf_counter() - begin
        check_end(done)
        return Started(wall_ms=1e3 * wall, report=parse_report(done.stdout))

    def time(self, kind: str, inputs: str, repeat: int, *options: str) -> None:
        """Adds the median of some inferences."""
        report = self.run(inputs, "--repeat", str(repeat), *options).report
        self.latencies[kind].append(statistics.median(report.samples_ns) / 1e6)

    def summary(self) -> Form:
        """Returns the medians."""
        reports = [start.report for start in self.starts]

        def median(name: str) -> float:
            values = [getattr(report, name) for report in reports]
            if None in values:
                raise RunError(f"the kernel does not tell {self.name} its {name}. Mount /proc.")
            return statistics.median(values)

        return Form(
            name=self.name,
            size_bytes=self.size_bytes,
            start_ms=statistics.median(start.wall_ms for start in self.starts),
            load_ms=median("load_ns") / 1e6,
            first_ms=median("first_ns") / 1e6,
            latency_ms=statistics.median(self.latencies["tensors"]),
            bytes_ms=statistics.median(self.latencies["bytes"]),
            peak_bytes=median("vm_hwm_bytes"),
            private_bytes=median("private_bytes"),
            floor_bytes=median("floor_bytes"),
        )


def measure(onnx: Path, board: Board, data: str, starts: int) -> list[Form]:
    """Builds both forms and starts them in turn.

    Raises:
        SvitError: the network cannot be built or run, or the data do not fit.
    """
    if board.transport == "ssh":
        raise ConfigError(f"{board.name} is elsewhere; this script starts programs here: host, or a qemu board.")
    model = read_metadata(onnx)
    dataset = load_for(model, data)
    with tempfile.TemporaryDirectory(prefix="svitkit-") as name, open_transport(board) as transport:
        work = Path(name)
        paths = {"bundle": work / "bundle", "single file": work / "program"}
        for form, path in paths.items():
            build_proven(onnx, board, path, dataset, single_file=form != "bundle")
        samples(dataset, "test", model, limit=IMAGES).tofile(work / "tensors.bin")
        dataset.test.x[sample_order(dataset, "test", seed=None, limit=IMAGES)].tofile(work / "bytes.bin")
        tensors, images = (transport.push(work / f"{kind}.bin") for kind in ("tensors", "bytes"))
        mode = ["--mode", model.mode, *(["--timesteps", str(model.timesteps)] if model.mode == "step" else [])]
        programs = [Program(form, path, transport, mode) for form, path in paths.items()]
        repeat = 2 if board.emulated else REPEAT
        for number in range(starts):
            for program in programs:
                program.starts.append(program.run(tensors, "--repeat", "0"))
                if number % 5 == 0:
                    program.time("tensors", tensors, repeat)
                    program.time("bytes", images, repeat, "--frames", "chw")
    return [program.summary() for program in programs]


def rows(forms: list[Form], *, emulated: bool) -> list[tuple[str, ...]]:
    """Returns the table's cells: of an emulated board, the sizes only."""
    if emulated:
        return [(form.name, f"{form.size_bytes / 1024:,.0f}", *["-"] * (len(COLUMNS) - 2)) for form in forms]
    return [
        (
            form.name,
            f"{form.size_bytes / 1024:,.0f}",
            f"{form.peak_bytes / 1024:,.0f}",
            f"{form.private_bytes / 1024:,.0f}",
            f"{form.floor_bytes / 1024:,.0f}",
            f"{form.start_ms:.2f}",
            f"{form.load_ms:.2f}",
            f"{form.first_ms:.2f}",
            f"{form.latency_ms:.4f}",
            f"{form.bytes_ms:.4f}",
        )
        for form in forms
    ]


def main(
    onnx: Annotated[Path, typer.Argument(help="A file of 'svitkit export'.")],
    board: Annotated[str, typer.Option(help="host, or an emulated board.")] = "host",
    data: Annotated[str, typer.Option(help="Where the images are from.")] = "digits",
    starts: Annotated[int, typer.Option(min=1, help="Starts of each form.")] = 50,
    markdown: Annotated[bool, typer.Option("--markdown", help="Prints a table in Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object.")] = False,
) -> None:
    """Measures both forms and prints a table, or one JSON object."""
    try:
        where = load_board(board)
        forms = measure(onnx, where, data, starts)
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    device = f"{where.name} on {read_device_name()}"
    title = f"{onnx.name}, medians of {starts} starts, batch 1, one thread, {device}"
    cells = rows(forms, emulated=where.emulated)
    if as_json:
        result = {"device": device, "emulated": where.emulated, "starts": starts, "forms": [asdict(f) for f in forms]}
        print(json.dumps(result))
    elif markdown:
        print(f"{title}\n\n| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}")
        print("\n".join(f"| {' | '.join(row)} |" for row in cells))
    else:
        table = Table(*COLUMNS, title=title)
        for row in cells:
            table.add_row(*row)
        Console(width=max(Console().width, 132)).print(table)


if __name__ == "__main__":
    typer.run(main)
