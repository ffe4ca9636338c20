"""What bits save and cost: svitkit's searches for bits beside uniform widths, float32 and the best assignment.

    python benchmarks/bench_quantize.py --network digits-spikformer --methods int8,aq4svit-greedy [--data digits]
        [--max-drop 1.5] [--min-saving 0] [--limit N] [--rounds 10] [--plot SVG] [--markdown] [--json]
    python benchmarks/bench_quantize.py --read FILE [--plot SVG] [--markdown]

Every method (:mod:`benchmarks.quantize_methods`) gets the same trained network, the same validation images to decide on
and the same constraint: at most ``--max-drop`` points less on them. Accuracies that are reported are those of the test
split, which no method sees. Bytes of weights are those of the bundle that is built for this machine, beside what the
bit widths promise. The bundle is timed in turn with that of the original, batch 1, one thread; peak memory is ``VmHWM``
of svit-run, each in a process of its own. What does not come to an end has null and a reason.

``--json`` prints one object a line for every method, as soon as it is done; ``--read`` draws and tabulates such lines.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import typer

from benchmarks.bench_compress import known_names, run_all
from benchmarks.compress_costs import run_in_turn
from benchmarks.compress_methods import Advance
from benchmarks.compress_subject import Bench, prepare
from benchmarks.compressions import read_lines
from benchmarks.peers import UnavailableError, first_line
from benchmarks.quantizations import Quantization, from_dict
from benchmarks.quantize_methods import PATIENT, Quantized, method_names, quantize_with
from benchmarks.quantize_views import markdown, plot, print_table
from svitkit.compress.quantize import PROTECTED_BITS, uniform_bits
from svitkit.errors import SvitError
from svitkit.manifest import read_manifest
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.run import example_input
from svitkit.runtime.bench.device_state import read_device_name

FLOAT32_BITS = 32


def measure(method: str, advance: Advance, *, bench: Bench) -> Quantization:
    """Quantizes with one method and measures what came of it.

    Raises:
        SvitError: one of svitkit's own methods failed.
    """
    with tempfile.TemporaryDirectory(dir=bench.work) as name:
        task = bench.task(Path(name))
        told = Quantization(
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
            found = quantize_with(method, task, advance)
        except UnavailableError as error:
            found = None
            told = replace(told, reasons={"memory_saving": first_line(error)})
        told = replace(told, search_s=time.monotonic() - begun, search_cpu_s=time.process_time() - begun_cpu)
        if found is None:
            return told
        advance("build and time", 0, 1)
        told = _with_bundle(_with_network(told, found, bench), found.checkpoint, bench, task.work / "after")
        advance("build and time", 1, 1)
        return told


def _with_network(told: Quantization, found: Quantized, bench: Bench) -> Quantization:
    """Adds what is known of the network before it is built."""
    original, small, search = bench.checkpoint, found.checkpoint, found.search
    promised = small.parameter_bytes()
    saving = 1 - promised / (original.spec.original_parameter_bytes or original.parameter_bytes())
    told = replace(
        told,
        memory_saving=saving,
        accuracy_before=bench.accuracy,
        accuracy_after=bench.test_accuracy(small),
        validation_before=found.before,
        validation_after=found.after,
        satisfied=found.before - found.after <= bench.max_drop and saving >= bench.min_saving,
        promised_bytes=promised,
        bits=count_bits(small),
        full_evaluations=search.full_evaluations if search else 1,
    )
    if search is None:
        return told
    return replace(
        told,
        gated=search.gated,
        rank_correlation=search.rank_correlation,
        audited=search.audited,
        wrongly_rejected=search.wrongly_rejected,
        membranes=search.membranes,
    )


def _with_bundle(told: Quantization, small: Checkpoint, bench: Bench, folder: Path) -> Quantization:
    """Adds what the bundle takes and costs."""
    before = bench.work / "before"
    networks, folders = (bench.checkpoint, small), (before, before if small is bench.checkpoint else folder)
    try:
        reference, ran = run_in_turn(networks, bench.data, folders, rounds=bench.rounds)
    except SvitError as error:
        return replace(told, reasons={"weights_bytes": first_line(error)})
    manifest = read_manifest(ran.bundle)
    return replace(
        told,
        weights_bytes=manifest.weights_bytes,
        bundle_bytes=sum(path.stat().st_size for path in ran.bundle.rglob("*") if path.is_file()),
        peak_bytes=ran.peak_bytes,
        latency_before_ms=reference.latency_ms,
        latency_ms=ran.latency_ms,
        floating_point=manifest.floating_point,
    )


def count_bits(checkpoint: Checkpoint) -> dict[str, int]:
    """Returns how many layers with weights have how many bits, the fewest bits first."""
    layers = uniform_bits(checkpoint.model, example_input(checkpoint.spec), PROTECTED_BITS)
    quantized = checkpoint.spec.quantization.layers if checkpoint.spec.quantization else {}
    counts = Counter(quantized.get(name, FLOAT32_BITS) for name in layers)
    return {str(bits): counts[bits] for bits in sorted(counts)}


def check_names(methods: str | None) -> list[str]:
    """Returns the methods that the user names, or those that do not measure very many candidates.

    Raises:
        ConfigError: a name is unknown.
    """
    if methods is None:
        return [name for name in method_names() if name not in PATIENT]
    return known_names(methods, method_names())


def main(
    network: Annotated[str, typer.Option(help="A name of 'svitkit models' or a checkpoint.")] = "digits-spikformer",
    data: Annotated[str | None, typer.Option(help="As for svitkit; what the network is made for if not given.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help=f"Some of {', '.join(method_names())}; all but {' and '.join(PATIENT)} if not given."
        ),
    ] = None,
    max_drop: Annotated[float, typer.Option(min=0, max=100, help="Points of validation accuracy to lose.")] = 1.5,
    min_saving: Annotated[float, typer.Option(min=0, max=1, help="Share of the bytes to save.")] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Validation images of a search; all if not given.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often every image is timed.")] = 10,
    read: Annotated[Path | None, typer.Option(help="Shows the lines of an earlier --json instead.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draws accuracy over bytes of weights.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Prints a table in Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints a JSON object a line for every method.")] = False,
) -> None:
    """Quantizes one network with several methods and prints a table, or JSON objects."""
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
                    epochs=0,
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
