"""The verbs that only look: models, doctor, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from svitkit.cli.options import FINDING, Arguments, AsJson, Data, Host, Model, Timesteps, Weights
from svitkit.cli.output import answer, kibibytes, table
from svitkit.cli.sources import load_network
from svitkit.errors import ConfigError

if TYPE_CHECKING:
    from svitkit.models.checkpoint import Checkpoint


def models(as_json: AsJson = False) -> None:
    """List the trained networks that come with svitkit, and what can be trained."""
    from svitkit.models.checkpoint import load_checkpoint
    from svitkit.presets import PRESETS
    from svitkit.zoo import ZOO

    with answer(as_json) as show:
        found = [(name, load_checkpoint(path)) for name, path in ZOO.items()]
        columns = ("name", "family", "T", "input", "classes", "weights", "test accuracy")
        show(
            {"models": [_model_facts(name, checkpoint) for name, checkpoint in found], "trainable": sorted(PRESETS)},
            table("Trained networks", columns, [_model_row(name, checkpoint) for name, checkpoint in found]),
            f"To train your own: svitkit train {'|'.join(sorted(PRESETS))}",
        )


def _model_facts(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    spec = checkpoint.spec
    return {
        "name": name,
        "family": spec.family,
        "timesteps": spec.timesteps,
        "input_shape": spec.input_shape,
        "classes": len(spec.class_names),
        "parameter_bytes": checkpoint.parameter_bytes(),
        "test_accuracy_percent": spec.provenance.get("test_accuracy_percent"),
    }


def _model_row(name: str, checkpoint: Checkpoint) -> tuple[str, ...]:
    facts = _model_facts(name, checkpoint)
    accuracy = facts["test_accuracy_percent"]
    return (
        name,
        facts["family"],
        str(facts["timesteps"]),
        "x".join(map(str, facts["input_shape"])),
        str(facts["classes"]),
        kibibytes(facts["parameter_bytes"]),
        "" if accuracy is None else f"{accuracy:.2f} %",
    )


def doctor(
    board: Annotated[
        str | None, typer.Option("--board", metavar="NAME", help="Look at this board, over SSH if it is elsewhere.")
    ] = None,
    host: Host = None,
    as_json: AsJson = False,
) -> None:
    """Look whether this machine, and a board, have what the stages need; exit with 3 if not."""
    from svitkit.doctor import examine, is_ready

    if host is not None and board is None:
        raise ConfigError(f"--host {host} says where a board is, but not which one. Name it with --board.")
    with answer(as_json) as show:
        checks = examine(board, host)
        ready = is_ready(checks)
        rows = [(_mark(check.ok, check.required), check.stage, check.name, check.found) for check in checks]
        verdict = "Everything that svitkit needs is here." if ready else "Something is missing: see the lines with NO."
        show({"ready": ready, "checks": checks}, table("Doctor", ("", "for", "what", "found"), rows), verdict)
    if not ready:
        raise typer.Exit(FINDING)


def _mark(ok: bool, required: bool) -> str:
    return "ok" if ok else "NO" if required else "-"


def inspect(
    anything: Model,
    weights: Weights = None,
    arguments: Arguments = None,
    data: Data = "digits",
    timesteps: Timesteps = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", help="Of a bundle: whose profile to show; else record.json beside it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a network, an ONNX file, a bundle or a record holds, layer by layer."""
    from svitkit.cli.bundle_view import view_bundle
    from svitkit.cli.views import View, view_model, view_onnx, view_record
    from svitkit.kinds import kind_of

    def look() -> View:
        kind = kind_of(anything)
        if record is not None and kind != "bundle":
            raise ConfigError(f"--record belongs to a bundle, and '{anything}' is none. Leave the option out.")
        if kind == "model":
            checkpoint, dataset = load_network(
                anything, weights=weights, data=data, timesteps=timesteps, arguments=arguments or ()
            )
            return view_model(checkpoint, anything, dataset)
        if kind == "bundle":
            return view_bundle(Path(anything), record)
        return {"onnx": view_onnx, "record": view_record}[kind](Path(anything))

    with answer(as_json) as show:
        result, readable = look()
        show(result, *readable)
