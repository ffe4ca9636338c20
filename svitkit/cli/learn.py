"""The verbs that work on networks in torch: train, evaluate, compress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from svitkit.cli.options import (
    FINDING,
    Arguments,
    AsJson,
    BatchNormImages,
    BeamWidth,
    Data,
    ExecutorName,
    Finetune,
    Host,
    Limit,
    MaxDrop,
    Method,
    MinSaving,
    Model,
    Objective,
    RayAddress,
    Resume,
    Settings,
    Sweep,
    Threads,
    Timesteps,
    Wait,
    Weights,
)
from svitkit.cli.output import answer, kibibytes, progress, table
from svitkit.cli.sources import load_network
from svitkit.errors import ConfigError


def train(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="What to train: see 'svitkit models'.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The checkpoint to write.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="As for the other verbs; if not given, what ARCH is made for."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training split.")] = None,
    lr: Annotated[float | None, typer.Option(metavar="RATE", help="Highest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=2, help="Samples per step.")] = None,
    timesteps: Timesteps = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    device: Annotated[str, typer.Option(help="Where torch computes: cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a network; started again with the same options after a stop, it goes on."""
    from svitkit.data.load import load_data
    from svitkit.presets import data_of, fit_options
    from svitkit.training import train as train_network
    from svitkit.training_bar import training_bar

    with answer(as_json) as show:
        given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "timesteps": timesteps, "seed": seed}
        options = fit_options(arch, **{name: value for name, value in given.items() if value is not None})
        dataset = load_data(data_of(arch, data), timesteps=options.timesteps)
        with training_bar(f"training {arch}") as report:
            checkpoint = train_network(arch, dataset, out, options=options, report=report, device=device)
        result = {
            "checkpoint": out,
            "parameter_bytes": checkpoint.parameter_bytes(),
            "test_accuracy_percent": checkpoint.spec.provenance["test_accuracy_percent"],
            "validation_accuracy_percent": checkpoint.spec.provenance["validation_accuracy_percent"],
        }
        rows = [
            ("checkpoint", str(out)),
            ("weights", kibibytes(checkpoint.parameter_bytes())),
            ("accuracy on validation", f"{result['validation_accuracy_percent']:.2f} %"),
            ("accuracy on test", f"{result['test_accuracy_percent']:.2f} %"),
        ]
        show(result, table(f"Trained {arch} on {dataset.name}", ("what", "value"), rows))


def evaluate(
    what: Annotated[str, typer.Argument(metavar="CKPT|ONNX|BUNDLE", help="A model, an ONNX file or a bundle.")],
    data: Data = "digits",
    split: Annotated[str, typer.Option(help="train, validation or test; a bundle is measured on test.")] = "test",
    board: Annotated[
        str | None, typer.Option(help="Where a bundle runs; the board it was built for if not given.")
    ] = None,
    host: Host = None,
    wait: Wait = 0,
    threads: Threads = None,
    weights: Weights = None,
    arguments: Arguments = None,
    timesteps: Timesteps = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of a checkpoint in torch, an ONNX file in ONNX Runtime, or a bundle on its board."""
    from svitkit.evaluate import evaluate_bundle, evaluate_checkpoint, evaluate_onnx
    from svitkit.kinds import kind_of

    with answer(as_json) as show:
        kind, path = kind_of(what), Path(what)
        if kind == "record":
            raise ConfigError(
                f"'{what}' is a record, which holds no network. Look at it with 'svitkit inspect {what}'."
            )
        with progress() as advance:
            if kind == "bundle":
                found = evaluate_bundle(
                    path,
                    board,
                    data,
                    split,
                    limit=limit,
                    advance=advance,
                    host=host,
                    wait_s=wait,
                    threads=threads,
                )
            elif kind == "onnx":
                found = evaluate_onnx(path, data, split, limit=limit, advance=advance)
            else:
                checkpoint, dataset = load_network(
                    what, weights=weights, data=data, timesteps=timesteps, arguments=arguments or ()
                )
                found = evaluate_checkpoint(checkpoint, dataset, split, limit=limit)
        row = (found.runtime, found.dataset, found.split, str(found.images), f"{found.accuracy_percent:.2f} %")
        show({"evaluation": found}, table(what, ("computed by", "data", "split", "images", "accuracy"), [row]))


def compress(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The checkpoint to write.")],
    data: Data = "digits",
    method: Method = "svitkit",
    objective: Objective = None,
    board: Annotated[
        str | None, typer.Option("--board", metavar="NAME", help="The board that --objective latency is for.")
    ] = None,
    max_drop: MaxDrop = None,
    min_saving: MinSaving = None,
    beam_width: BeamWidth = None,
    finetune: Finetune = 0,
    bn_images: BatchNormImages = 0,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fine-tuning.")] = 0,
    limit: Limit = None,
    weights: Weights = None,
    arguments: Arguments = None,
    timesteps: Timesteps = None,
    resume: Resume = False,
    sweep: Sweep = "fast",
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a network smaller within limits on accuracy; exit with 3 if the limits cannot be met."""
    from svitkit.boards.board import load_board
    from svitkit.compress.options import WorkOptions
    from svitkit.compress.pipeline import compress_model
    from svitkit.compress.report_table import report_table
    from svitkit.compress.settings import told_settings
    from svitkit.predict import latency_costs

    with answer(as_json) as show:
        checkpoint, dataset = load_network(
            model, weights=weights, data=data, timesteps=timesteps, arguments=arguments or ()
        )
        costs = None
        if objective == "latency":
            if board is None:
                raise ConfigError("objective 'latency' is the time on a board. Name it with --board, for example host.")
            costs = latency_costs(checkpoint, dataset, load_board(board))
        with progress() as advance:
            result = compress_model(
                checkpoint,
                dataset,
                out,
                method=method,
                max_drop=max_drop,
                min_saving=min_saving,
                finetune_epochs=finetune,
                bn_recalibration=bn_images,
                seed=seed,
                limit=limit,
                settings=told_settings(settings or [], beam_width=beam_width),
                objective=objective,
                costs=costs,
                resume=resume,
                work=WorkOptions(sweep=sweep, executor=executor, ray_address=ray_address),
                progress=advance,
            )
        show({"checkpoint": out, "report": result.report}, report_table(result.report), f"checkpoint: {out}")
    if not result.satisfied:
        raise typer.Exit(FINDING)
