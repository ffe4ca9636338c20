"""What left out tokens and weights save and cost: svitkit's methods beside random choices.

    python benchmarks/bench_tokens.py --network fashion-sdt --methods token-skip,skip-random [--data fashion-mnist:PATH]
        [--max-drop 1] [--set margin=0] [--limit N] [--made lottery=DIR] [--plot SVG] [--markdown] [--json]
    python benchmarks/bench_tokens.py --read FILE [--plot SVG] [--markdown]

Every method (:mod:`benchmarks.token_methods`) gets the same trained network and the same validation images to decide
on. Accuracies that are reported are those of the test split, which no method sees. ``--made`` measures what ``svitkit
compress`` made before, for methods that train for hours. The bundle is built for this machine and timed in turn with
that of the original, batch 1, one thread. Bytes of weights are those that the bundle stores.

``--json`` prints one object a line for every method, as soon as it is done; ``--read`` draws and tabulates such lines.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import typer

from benchmarks.bench_compress import known_names, run_all
from benchmarks.compress_costs import run_in_turn, static_cost
from benchmarks.compress_methods import Advance
from benchmarks.compress_subject import Bench, prepare
from benchmarks.compressions import read_lines
from benchmarks.peers import first_line
from benchmarks.token_methods import OWN, Spared, known_settings, method_names, read_made, spare_with
from benchmarks.token_results import Sparing, from_dict
from benchmarks.token_views import markdown, plot, print_table
from svitkit.compress.options import LOTTERY, SKIP
from svitkit.compress.settings import told_settings
from svitkit.compress.token_candidates import operations
from svitkit.errors import ConfigError, SvitError, unknown_name
from svitkit.manifest import read_manifest
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters
from svitkit.runtime.bench.device_state import read_device_name


def measure(
    method: str, advance: Advance, *, bench: Bench, settings: dict[str, object], made: dict[str, Path]
) -> Sparing:
    """Leaves out tokens or weights with one method and measures what came of it.

    Raises:
        SvitError: a method failed.
    """
    with tempfile.TemporaryDirectory(dir=bench.work) as name:
        task = bench.task(Path(name))
        told = Sparing(
            network=bench.network,
            data=bench.data.name,
            method=method,
            device=read_device_name(),
            max_drop=bench.max_drop,
            validation_images=len(task.data.validation),
            test_images=len(bench.data.test),
            reasons={},
        )
        begun, begun_cpu = time.monotonic(), time.process_time()
        if method in made:
            found = read_made(made[method], bench.checkpoint)
        else:
            found = spare_with(method, task, settings, advance, skipping=made.get(SKIP))
            told = replace(told, search_s=time.monotonic() - begun, search_cpu_s=time.process_time() - begun_cpu)
        advance("build and time", 0, 1)
        told = _with_bundle(_with_network(told, found, bench), found.checkpoint, bench, task.work / "after")
        advance("build and time", 1, 1)
        return told


def _with_network(told: Sparing, found: Spared, bench: Bench) -> Sparing:
    """Adds what is known of the network before it is built."""
    original, small = bench.checkpoint, found.checkpoint
    example = example_input(original.spec)
    before, after = operations(original.model, example), operations(small.model, example)
    tickets = found.report.tickets if found.report else None
    return replace(
        told,
        accuracy_before=bench.accuracy,
        accuracy_after=bench.test_accuracy(small),
        validation_before=found.before,
        validation_after=found.after,
        satisfied=found.before - found.after <= bench.max_drop,
        operations_before=before,
        operations=after,
        operations_saving=1 - after / before,
        synaptic_operations_before=static_cost(original, bench.data).synaptic_operations,
        synaptic_operations=static_cost(small, bench.data).synaptic_operations,
        sparsity=1 - _weights(small) / _weights(original),
        tokens=tuple((each.block, each.tokens, each.kept, each.criterion) for each in small.spec.tokens),
        ladder=tuple((each.sparsity, each.validation) for each in tickets.rounds) if tickets else (),
        controls=tuple((each.name, each.sparsity, each.validation, each.test) for each in tickets.controls)
        if tickets
        else (),
    )


def _weights(checkpoint: Checkpoint) -> int:
    """Counts the weights of convolutions and linear layers that are not 0."""
    layers = layer_parameters(checkpoint.model, example_input(checkpoint.spec))
    weights = [getattr(checkpoint.model.get_submodule(name), "weight", None) for name in layers]
    return sum(int(weight.count_nonzero()) for weight in weights if weight is not None and weight.ndim > 1)


def _with_bundle(told: Sparing, small: Checkpoint, bench: Bench, folder: Path) -> Sparing:
    """Adds what the bundle takes and costs."""
    before = bench.work / "before"
    networks, folders = (bench.checkpoint, small), (before, before if small is bench.checkpoint else folder)
    try:
        reference, ran = run_in_turn(networks, bench.data, folders, rounds=bench.rounds)
    except SvitError as error:
        return replace(told, reasons={"weights_bytes": first_line(error)})
    whole, spared = (read_manifest(each.bundle).weights_bytes for each in (reference, ran))
    return replace(
        told,
        weights_bytes_before=whole,
        weights_bytes=spared,
        artifact_saving=1 - spared / whole,
        bundle_bytes=sum(path.stat().st_size for path in ran.bundle.rglob("*") if path.is_file()),
        latency_before_ms=reference.latency_ms,
        latency_ms=ran.latency_ms,
        latency_saving=1 - ran.latency_ms / reference.latency_ms,
    )


def read_folders(made: list[str]) -> dict[str, Path]:
    """Reads ``METHOD=DIR`` of the command line.

    Raises:
        ConfigError: one has no equals sign.
    """
    pairs = [text.partition("=") for text in made]
    for name, sign, folder in pairs:
        if not (name and sign and folder):
            raise ConfigError(f"--made {name}{sign}{folder}: wanted METHOD=DIR.")
    return {name: Path(folder) for name, _, folder in pairs}


def check_settings(texts: list[str]) -> dict[str, object]:
    """Reads settings.

    Raises:
        ConfigError: no method knows one of them.
    """
    settings = told_settings(texts)
    known = sorted({name for method, _ in OWN.values() for name in known_settings(method)})
    for name in settings:
        if name not in known:
            raise unknown_name("setting", name, known)
    return settings


def main(
    network: Annotated[str, typer.Option(help="A name of 'svitkit models' or a checkpoint.")] = "digits-spikformer",
    data: Annotated[str | None, typer.Option(help="As for svitkit; what the network is made for if not given.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help=f"Some of {', '.join(method_names())}; all but {LOTTERY} if not given."),
    ] = None,
    max_drop: Annotated[float, typer.Option(min=0, max=100, help="Points of validation accuracy to lose.")] = 1.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Of svitkit's methods.")
    ] = None,
    made: Annotated[list[str] | None, typer.Option(metavar="METHOD=DIR", help="Measures what was made before.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Validation images of a search; all if not given.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often every image is timed.")] = 30,
    read: Annotated[Path | None, typer.Option(help="Shows the lines of an earlier --json instead.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draws accuracy over what is saved.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Prints tables in Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints a JSON object a line for every method.")] = False,
) -> None:
    """Leaves out tokens or weights with several methods and prints a table, or JSON objects."""
    torch.set_num_threads(1)
    try:
        if read is not None:
            results = read_lines(read, from_dict)
        else:
            folders = read_folders(made or [])
            asked = known_names(methods, method_names()) if methods else []
            names = [*asked, *folders] if methods or folders else [each for each in method_names() if each != LOTTERY]
            with tempfile.TemporaryDirectory(prefix="svitkit-") as work:
                bench = prepare(
                    network,
                    data,
                    max_drop=max_drop,
                    min_saving=0.0,
                    limit=limit,
                    epochs=0,
                    rounds=rounds,
                    work=Path(work),
                )
                one = partial(measure, bench=bench, settings=check_settings(settings or []), made=folders)
                results = list(run_all(names, one, as_json=as_json))
    except SvitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if picture is not None:
        plot(picture, results)
    if as_markdown:
        print(markdown(results))
    elif not as_json:
        print_table(results)


if __name__ == "__main__":
    typer.run(main)
