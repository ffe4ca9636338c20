"""The verbs that bring a network to a board: export, build, deploy; bench has a module of its own."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from svitkit.cli.options import (
    FINDING,
    Arguments,
    AsJson,
    BatchNormImages,
    BeamWidth,
    BoardName,
    Data,
    DeviceChoice,
    Finetune,
    Host,
    Limit,
    MaxDrop,
    Method,
    MinSaving,
    Model,
    Objective,
    Resume,
    Settings,
    SingleFile,
    Threads,
    Timesteps,
    Wait,
    Weights,
)
from svitkit.cli.output import answer, kibibytes, progress, table
from svitkit.cli.sources import load_network
from svitkit.manifest import Mode

if TYPE_CHECKING:
    from svitkit.deploy import Deployment, Shortfall


def export(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The ONNX file to write.")],
    mode: Annotated[
        Mode, typer.Option(help="sequence: all time steps inside; step: one, with states outside.")
    ] = "sequence",
    data: Data = "digits",
    weights: Weights = None,
    arguments: Arguments = None,
    timesteps: Timesteps = None,
    as_json: AsJson = False,
) -> None:
    """Write a network as ONNX with explicit neurons, and prove in ONNX Runtime that it computes the same."""
    from svitkit.cli.views import view_onnx
    from svitkit.proven import export_proven

    with answer(as_json) as show:
        checkpoint, dataset = load_network(
            model, weights=weights, data=data, timesteps=timesteps, arguments=arguments or ()
        )
        with progress() as advance:
            advance("export and verify", 0)
            export_proven(checkpoint, out, dataset=dataset, mode=mode)
            advance("export and verify", 1)
        result, readable = view_onnx(out)
        show({"onnx": out, **result}, *readable)


def build(
    onnx: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file of 'svitkit export'.")],
    board: BoardName,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The bundle, or the program, to write.")],
    device: DeviceChoice = None,
    single_file: SingleFile = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DATA", help="Where the inputs of the golden check are from; random if not given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile an ONNX file for a board: a folder, or one program, that runs there with nothing installed."""
    from svitkit.boards.board import load_board
    from svitkit.boards.devices import choose_device
    from svitkit.cli.bundle_view import view_bundle
    from svitkit.evaluate import load_for
    from svitkit.export.metadata import read_metadata
    from svitkit.proven import build_proven

    with answer(as_json) as show:
        target = load_board(board)
        chosen = choose_device(target, device)
        dataset = None if data is None else load_for(read_metadata(onnx), data)
        with progress() as advance:
            advance("build", 0)
            build_proven(onnx, target, out, dataset, single_file=single_file, device=chosen)
            advance("build", 1)
        result, readable = view_bundle(out)
        show({"bundle": out, **result}, *readable)


def sdk(
    board: BoardName,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Write what a C or C++ program needs to run bundles on a board: svit.h, libsvit, a CMake package, examples."""
    from svitkit.boards.board import load_board
    from svitkit.runtime.sdk import write_sdk

    with answer(as_json) as show:
        target = load_board(board)
        with progress() as advance:
            advance("build libsvit", 0)
            write_sdk(target, out)
            advance("build libsvit", 1)
        show(
            {"sdk": out, "triple": target.triple},
            f"{out}: libsvit for {target.triple}; {out}/examples says how to use it",
        )


def deploy(
    model: Model,
    board: BoardName,
    device: DeviceChoice = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Artefacts; svitkit-out/MODEL-BOARD if not given.")
    ] = None,
    host: Host = None,
    wait: Wait = 0,
    data: Data = "digits",
    method: Method = "svitkit",
    objective: Objective = None,
    max_drop: MaxDrop = None,
    min_saving: MinSaving = None,
    beam_width: BeamWidth = None,
    finetune: Finetune = 0,
    bn_images: BatchNormImages = 0,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fine-tuning.")] = 0,
    limit: Limit = None,
    threads: Threads = None,
    single_file: SingleFile = False,
    weights: Weights = None,
    arguments: Arguments = None,
    timesteps: Timesteps = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Compress, export, build and bench in one go; exit with 3 if a limit is missed or the run is not valid."""
    from svitkit.boards.board import load_board
    from svitkit.boards.devices import choose_device
    from svitkit.compress.settings import told_settings
    from svitkit.deploy import DeployOptions, Shortfall, default_folder
    from svitkit.deploy import deploy as run
    from svitkit.runtime.bench.record_table import render_record

    options = DeployOptions(
        method=method,
        max_drop=max_drop,
        min_saving=min_saving,
        finetune_epochs=finetune,
        bn_recalibration=bn_images,
        settings=told_settings(settings or [], beam_width=beam_width),
        seed=seed,
        limit=limit,
        threads=threads,
        single_file=single_file,
        resume=resume,
        objective=objective,
        host=host,
        wait_s=wait,
    )
    with answer(as_json) as show:
        where = load_board(board)
        options = replace(options, device=choose_device(where, device))
        checkpoint, dataset = load_network(
            model, weights=weights, data=data, timesteps=timesteps, arguments=arguments or ()
        )
        folder = out or default_folder(model, where, options.device)
        with progress() as advance:
            outcome = run(model, checkpoint, dataset, where, folder, options=options, advance=advance)
        if isinstance(outcome, Shortfall):
            show(asdict(outcome), _shortfall_table(outcome))
            raise typer.Exit(FINDING)
        deployment, record = outcome
        show(asdict(deployment), _deployment_table(deployment), render_record(record))
    if not deployment.valid:
        raise typer.Exit(FINDING)


def _shortfall_table(shortfall: Shortfall) -> RenderableType:
    rows = [
        ("outcome", shortfall.why),
        ("accuracy on validation", f"{shortfall.validation_before:.2f} % -> {shortfall.validation_after:.2f} %"),
        ("memory saving", f"{shortfall.memory_saving:.1%}"),
        ("best found", str(shortfall.artifacts["checkpoint"])),
    ]
    return table(f"{shortfall.model}: the limits were NOT met, nothing was built", ("what", "value"), rows)


def _deployment_table(done: Deployment) -> RenderableType:
    original, saved = kibibytes(4 * done.params_before), done.operations_saving
    rows = [
        (
            "accuracy on test",
            f"{done.accuracy_before:.2f} % -> {done.accuracy_after:.2f} % ({done.accuracy_images} images)",
        ),
        ("accuracy on validation", f"{done.validation_before:.2f} % -> {done.validation_after:.2f} %"),
        ("parameters", f"{done.params_before:,} -> {done.params_after:,}"),
        ("memory saving", f"{done.memory_saving:.1%} of {original} (weights in the bundle against fp32)"),
        *([("operations saving", f"{saved:.1%} of the dense multiply-accumulates")] if saved is not None else []),
        *((name, str(path)) for name, path in done.artifacts.items()),
    ]
    return table(f"{done.model} on {done.board}", ("what", "value"), rows)
