"""How many kernels a GPU has to launch for one inference: svitkit's plan beside the operators of torch.

    python benchmarks/bench_launches.py [--network spikformer-4-384 ...] [--board jetson-orin-nano] [--json]

svitkit's launches are those of the bundle's plan. Those of torch are an estimate that needs no GPU: every operator that
computes or copies something, at the innermost level that torch's profiler sees on a CPU, counts as one launch; views
count as none. Nothing here is a time.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.network_files import file_inputs
from benchmarks.networks import NETWORKS, BenchNetwork, load_network
from svitkit.boards.board import Board, load_board
from svitkit.boards.devices import with_gpu
from svitkit.errors import SvitError
from svitkit.export.pipeline import export_onnx
from svitkit.models.run import forward_logits
from svitkit.runtime.gpu_build import compile_for_gpu

_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "resize_", "set_")


@dataclass(frozen=True, kw_only=True)
class Launches:
    """One network.

    Attributes:
        network, board: what was counted, and for what.
        precision: of the weights, as a build chooses it for these random weights and inputs.
        svitkit: launches of one inference of all time steps.
        torch_operators: operators of one inference in torch that are no views: an estimate of its launches.
        bytes_moved: estimate: bytes of all buffers of svitkit's launches.
        device_bytes: planned memory on the device.
    """

    network: str
    board: str
    precision: str
    svitkit: int
    torch_operators: int
    bytes_moved: int
    device_bytes: int


def count_operators(network: BenchNetwork) -> int:
    """Operators of one inference in torch that compute or copy, by its profiler: the innermost ones, without views."""
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        forward_logits(network.checkpoint.model, network.inputs[:, :1])
    innermost = [event.name for event in profile.events() or () if not event.cpu_children]
    return sum(_is_launched(name) for name in innermost)


def _is_launched(operator: str) -> bool:
    namespace, _, name = operator.partition("::")
    if namespace != "aten" or name in _ALLOCATIONS:
        return False
    packet = getattr(torch.ops.aten, name)
    return not any(getattr(packet, overload).is_view for overload in packet.overloads())


def count_launches(name: str, board: Board) -> Launches:
    """Builds a network of the benchmarks for a board's GPU, and counts."""
    network = load_network(name)
    with tempfile.TemporaryDirectory(prefix="svitkit-") as folder:
        work = Path(folder)
        metadata = export_onnx(network.checkpoint, work / "model.onnx", calibration=network.inputs)
        inputs = file_inputs(network, metadata)
        built = compile_for_gpu(work / "model.onnx", board, work, inputs=inputs, scratch=work)
    plan = built.compiled.plan
    return Launches(
        network=name,
        board=board.name,
        precision=built.plan.precision,
        svitkit=built.plan.launches,
        torch_operators=count_operators(network),
        bytes_moved=built.plan.bytes_moved,
        device_bytes=plan.weights_bytes + plan.states_bytes + plan.workspace_bytes,
    )


def _table(rows: Sequence[Launches]) -> Table:
    table = Table(
        "network", "svitkit: launches", "torch: operators", "ratio", "weights", "bytes moved", "device memory"
    )
    for row in rows:
        ratio = f"{row.torch_operators / row.svitkit:.1f}"
        sizes = [f"{size / 2**20:.1f} MiB" for size in (row.bytes_moved, row.device_bytes)]
        table.add_row(row.network, str(row.svitkit), str(row.torch_operators), ratio, row.precision, *sizes)
    return table


def main(
    network: Annotated[list[str] | None, typer.Option(help="A network of the benchmarks; may be repeated.")] = None,
    board: Annotated[str, typer.Option(help="A board with a GPU.")] = "jetson-orin-nano",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Print the launches of one inference by svitkit beside the operators of torch."""
    try:
        target = with_gpu(load_board(board))
        rows = [count_launches(name, target) for name in network or NETWORKS]
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        Console().print(_table(rows))


if __name__ == "__main__":
    typer.run(main)
