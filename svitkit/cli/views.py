"""What ``svitkit inspect`` shows of each kind of artefact: its facts, and tables of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from svitkit.cli.output import kibibytes, table
from svitkit.manifest import ModelMetadata

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset
    from svitkit.models.checkpoint import Checkpoint
    from svitkit.models.spec import TokenReduction

View = tuple[dict[str, Any], list[RenderableType]]


def view_onnx(path: Path) -> View:
    """Shows an exported file: what it says about itself, its neurons, and how often each operator stands in it."""
    from collections import Counter

    from svitkit.onnx_check import load_checked, metadata_of

    model = load_checked(path)
    metadata = metadata_of(model, source=str(path))
    operators = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    rows = [(name, str(count)) for name, count in sorted(operators.items())]
    result = {"kind": "onnx", "metadata": metadata, "operators": dict(sorted(operators.items()))}
    return result, [
        network_table(str(path), metadata),
        _neuron_table(metadata),
        table("Operators", ("name", "count"), rows),
    ]


def network_table(title: str, model: ModelMetadata) -> RenderableType:
    """Lays out what a network is."""
    shape = "x".join(map(str, model.input.shape))
    saved = 1 - model.parameter_bytes / model.original_parameter_bytes if model.original_parameter_bytes else 0.0
    rows: list[tuple[str, ...]] = [
        ("family", model.family),
        ("mode", f"{model.mode}, T = {model.timesteps}"),
        ("input", f"{model.input.name} {shape}" + (", one image at every step" if model.static_input else "")),
        ("classes", str(len(model.class_names))),
        ("parameters", f"{kibibytes(model.parameter_bytes)} ({saved:.1%} less than the original)"),
        ("neuron layers", str(len(model.lif_layers))),
    ]
    return table(title, ("fact", "value"), rows)


def _neuron_table(model: ModelMetadata) -> RenderableType:
    rows = [
        (
            layer.name,
            "x".join(map(str, layer.state_shape)),
            f"{layer.params.tau:g}",
            f"{layer.params.v_threshold:g}",
            "soft" if layer.params.v_reset is None else f"{layer.params.v_reset:g}",
            "" if layer.firing_rate is None else f"{layer.firing_rate:.3f}",
        )
        for layer in model.lif_layers
    ]
    return table("Neurons", ("layer", "state", "tau", "threshold", "reset", "firing rate"), rows)


def view_model(checkpoint: Checkpoint, name: str, dataset: Dataset, *, images: int = 16) -> View:
    """Shows a network in torch, layer by layer, measured on images of the validation split."""
    from svitkit.data.dataset import batches
    from svitkit.inspect_model import inspect_network

    x, _ = next(batches(dataset, "validation", batch_size=images, timesteps=checkpoint.spec.timesteps, limit=images))
    layers, sparse = inspect_network(checkpoint, x), bool(checkpoint.spec.sparse)
    rows = [
        (
            row.layer,
            row.kind,
            "x".join(map(str, row.output_shape)),
            f"{row.parameters:,}",
            *([f"{row.zeros:.1%}" if row.zeros else ""] if sparse else []),
            f"{row.macs:,}",
            "" if row.spike_rate is None else f"{row.spike_rate:.3f}",
            f"{row.synaptic_operations:,.0f}",
        )
        for row in layers
    ]
    totals = {
        "parameters": sum(row.parameters for row in layers),
        "macs": sum(row.macs for row in layers),
        "synaptic_operations": sum(row.synaptic_operations for row in layers),
    }
    shown = table(
        f"{name} ({checkpoint.spec.family}, T = {checkpoint.spec.timesteps}) on {x.shape[1]} validation images of "
        f"{dataset.name}; shapes hold them all, the other figures are for one"
        + (f"; stored without zeros in {kibibytes(checkpoint.parameter_bytes())}" if sparse else ""),
        (
            *("layer", "kind", "output", "parameters"),
            *["zeros"] * sparse,
            *("MACs", "spike rate", "synaptic operations"),
        ),
        [
            *rows,
            (
                "total",
                "",
                "",
                f"{totals['parameters']:,}",
                *[""] * sparse,
                f"{totals['macs']:,}",
                "",
                f"{totals['synaptic_operations']:,.0f}",
            ),
        ],
    )
    spec = {"family": checkpoint.spec.family, "timesteps": checkpoint.spec.timesteps, "images": x.shape[1]}
    reduced = checkpoint.spec.tokens
    told = {"kind": "model", "name": name, **spec, "totals": totals, "layers": layers, "tokens": reduced}
    return told, [shown, *([_tokens_table(reduced)] if reduced else [])]


def _tokens_table(reduced: tuple[TokenReduction, ...]) -> RenderableType:
    rows = [
        (
            each.block,
            str(each.tokens),
            str(each.kept),
            each.criterion,
            "skip the block" if each.rest == "skip" else "drop out",
        )
        for each in reduced
    ]
    return table(
        "Blocks that compute some of their tokens", ("block", "tokens", "computed", "chosen by", "others"), rows
    )


def view_record(path: Path) -> View:
    """Shows the record of a measurement."""
    from svitkit.runtime.bench.profile_table import render_whole
    from svitkit.runtime.bench.record import read_record, record_json

    record = read_record(path)
    return {"kind": "record", "record": json.loads(record_json(record))}, [*render_whole(record)]
