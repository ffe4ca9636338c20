"""What compression saves and costs: svitkit's methods beside PrimeSVT's policy, uniform pruning and Torch-Pruning.

    python benchmarks/bench_compress.py --network digits-spikformer --methods primesvt,uniform [--data digits]
        [--max-drop 3] [--min-saving 0.2668] [--finetune 0] [--limit N] [--plot SVG] [--markdown] [--json]
    python benchmarks/bench_compress.py --read FILE [--plot SVG] [--markdown]

Every method (:mod:`benchmarks.compress_methods`) gets the same trained network, the same validation images to decide on
and the same constraint: at most ``--max-drop`` points less on them. Accuracies that are reported are those of the test
split, which no method sees. ``--finetune`` trains what a method left for some more epochs, with the training split. The
bundle of the smaller network is built for this machine and timed in turn with that of the original, batch 1, one
thread; peak memory is ``VmHWM`` of svit-run, each in a process of its own. A method that cannot compress the network
has null and a reason.

``--json`` prints one object a line for every method, as soon as it is done; ``--read`` draws and tabulates such lines.
The curves of the picture are what the searches measured on the validation images, without what another point beats.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import typer

from benchmarks.compress_costs import measure_costs
from benchmarks.compress_methods import Advance, Compressed, Task, compress_with, method_names
from benchmarks.compress_subject import Bench, prepare
from benchmarks.compress_views import markdown, plot, print_table
from benchmarks.compressions import Compression, from_dict, read_lines
from benchmarks.peers import UnavailableError, first_line
from svitkit.cli.output import progress
from svitkit.compress.evaluate import load_batches
from svitkit.compress.finetune import finetune, finetune_options
from svitkit.compress.options import INTEGER_METHODS
from svitkit.errors import SvitError, unknown_name
from svitkit.models.checkpoint import Checkpoint
from svitkit.runtime.bench.device_state import read_device_name

PAPER_SAVING = 0.2668
"""Of PrimeSVT's abstract, arXiv 2606.03428."""
SEED = 0


class Told(Protocol):
    """A report of one method."""

    def to_dict(self) -> dict[str, Any]:
        """Returns its JSON object."""
        ...


Report = TypeVar("Report", bound=Told)


def measure(method: str, advance: Advance, *, bench: Bench) -> Compression:
    """Compresses with one method and measures what came of it.

    Raises:
        SvitError: one of svitkit's own methods failed.
    """
    with tempfile.TemporaryDirectory(dir=bench.work) as name:
        task = bench.task(Path(name))
        told = Compression(
            network=bench.network,
            data=bench.data.name,
            method=method,
            device=read_device_name(),
            max_drop=bench.max_drop,
            min_saving=bench.min_saving,
            validation_images=len(task.data.validation),
            test_images=len(bench.data.test),
            reasons={},
        )
        begun, begun_cpu = time.monotonic(), time.process_time()
        try:
            found = compress_with(method, task, advance)
        except UnavailableError as error:
            return replace(told, reasons={"memory_saving": first_line(error)})
        told = replace(told, search_s=time.monotonic() - begun, search_cpu_s=time.process_time() - begun_cpu)
        return _measured(told, found, bench, task, advance)


def _measured(told: Compression, found: Compressed, bench: Bench, task: Task, advance: Advance) -> Compression:
    original, smaller = bench.checkpoint, found.checkpoint
    advance("build and time", 0, 1)
    folders = (bench.work / "before", task.work / "after")
    before, after, reasons = measure_costs(original, smaller, bench.data, folders, rounds=bench.rounds)
    advance("build and time", 1, 1)
    tuned, seconds = None, None
    if bench.epochs and found.trainable:
        begun = time.monotonic()
        tuned = bench.test_accuracy(finetuned(found, bench, task, advance))
        seconds = time.monotonic() - begun
    size = original.spec.original_parameter_bytes or before.parameter_bytes
    saving = 1 - after.parameter_bytes / size
    lost = found.before - found.after
    return replace(
        told,
        memory_saving=saving,
        accuracy_before=bench.accuracy,
        accuracy_after=bench.test_accuracy(smaller),
        accuracy_finetuned=tuned,
        validation_before=found.before,
        validation_after=found.after,
        satisfied=lost <= bench.max_drop and saving >= bench.min_saving,
        predicted_speedup=found.predicted_speedup,
        before=before,
        after=after,
        finetune_epochs=bench.epochs if tuned is not None else 0,
        finetune_s=seconds,
        points=found.points,
        reasons={**found.reasons, **reasons},
    )


def finetuned(found: Compressed, bench: Bench, task: Task, advance: Advance) -> Checkpoint:
    """Returns the network that a method found, trained for some more epochs."""
    spec, model = bench.checkpoint.spec, copy.deepcopy(found.checkpoint.model)
    finetune(
        model,
        task.data,
        load_batches(task.data, "validation", timesteps=spec.timesteps),
        teacher=bench.checkpoint.model,
        options=finetune_options(bench.epochs, spec=spec, seed=SEED, samples=len(task.data.train)),
        state=task.work / "finetune.training.pt",
        progress=advance,
    )
    return replace(found.checkpoint, model=model)


def check_names(methods: str | None) -> list[str]:
    """Returns the methods that the user names, or those that prune.

    Raises:
        ConfigError: a name is unknown.
    """
    if methods is None:
        return [name for name in method_names() if name not in INTEGER_METHODS]
    return known_names(methods, method_names())


def known_names(methods: str, known: Sequence[str]) -> list[str]:
    """Divides names at their commas.

    Raises:
        ConfigError: a name is unknown.
    """
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        if name not in known:
            raise unknown_name("method", name, known)
    return names


def run_all(names: list[str], measured: Callable[[str, Advance], Report], *, as_json: bool) -> Iterator[Report]:
    """Measures one method after the other, and prints what came of each if that is asked for."""
    for name in names:
        with progress() as advance:
            result = measured(name, advance)
        if as_json:
            print(json.dumps(result.to_dict()), flush=True)
        yield result


def main(
    network: Annotated[str, typer.Option(help="A name of 'svitkit models' or a checkpoint.")] = "digits-spikformer",
    data: Annotated[str | None, typer.Option(help="As for svitkit; what the network is made for if not given.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help=f"Some of {', '.join(method_names())}; those that prune if not given."),
    ] = None,
    max_drop: Annotated[float, typer.Option(min=0, max=100, help="Points of validation accuracy to lose.")] = 3.0,
    min_saving: Annotated[float, typer.Option(min=0, max=1, help="Share of the bytes to save.")] = PAPER_SAVING,
    finetune_epochs: Annotated[int, typer.Option("--finetune", min=0, help="Epochs of training at the end.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Validation images of a search; all if not given.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often every image is timed.")] = 10,
    read: Annotated[Path | None, typer.Option(help="Shows the lines of an earlier --json instead.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draws accuracy over memory saved.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Prints a table in Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints a JSON object a line for every method.")] = False,
) -> None:
    """Compresses one network with several methods and prints a table, or JSON objects."""
    torch.set_num_threads(1)
    try:
        if read is not None:
            results = read_lines(read, from_dict)
        else:
            names = check_names(methods)
            with tempfile.TemporaryDirectory(prefix="svitkit-") as work:
                bench = prepare(
                    network,
                    data,
                    max_drop=max_drop,
                    min_saving=min_saving,
                    limit=limit,
                    epochs=finetune_epochs,
                    rounds=rounds,
                    work=Path(work),
                )
                results = list(run_all(names, partial(measure, bench=bench), as_json=as_json))
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
