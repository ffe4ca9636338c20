"""What is exported of a pruned network is dense and smaller: no mask, no identity, no dead node."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from svitkit.compress.groups import find_groups
from svitkit.export.pipeline import export_onnx, parameter_initializer_bytes
from svitkit.export.verify import verify
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.neurons import neuron_layers
from svitkit.models.plan import PrunedGroup, PrunePlan, apply_plan
from svitkit.models.run import example_input

FAMILIES = ("spikformer", "spike-driven-transformer", "qkformer")


def prune(checkpoint: Checkpoint) -> Checkpoint:
    """Removes by turns every second or every fourth channel of every group, streams and heads too."""
    model = copy.deepcopy(checkpoint.model)
    found = find_groups(model, example_input(checkpoint.spec), residual_widths=True, heads=True)
    groups = [entry.group for entry in found if entry.prunable]
    assert groups
    chosen = []
    for at, group in enumerate(groups):
        size, step = group.channels // group.blocks, (2, 4)[at % 2]
        kept = tuple(channel for channel in range(group.channels) if channel % size % step or size == 1)
        chosen.append(PrunedGroup(group=group, kept=kept))
    plan = PrunePlan(groups=tuple(chosen))
    apply_plan(model, plan)
    return Checkpoint(model=model, spec=dataclasses.replace(checkpoint.spec, plan=plan))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_network_exports_dense_and_smaller(
    network: Callable[[str], Checkpoint], tmp_path: Path, family: str
) -> None:
    original = network(family)
    pruned = prune(original)
    path = tmp_path / "pruned.onnx"
    metadata = export_onnx(pruned, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert parameter_initializer_bytes(model) == pruned.parameter_bytes() == metadata.parameter_bytes
    assert pruned.parameter_bytes() < 0.9 * original.parameter_bytes()
    neurons = sorted(node.name for node in model.graph.node if node.op_type == "LIF")
    assert neurons == sorted(neuron_layers(pruned.model))
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    dead = [node.name for node in model.graph.node if not used & set(node.output)]
    assert not dead
    assert not {"Identity", "Dropout", "BatchNormalization", "Where", "Cast"} & {n.op_type for n in model.graph.node}
    assert not [tensor.name for tensor in model.graph.initializer if tensor.name not in used]
    shape = (pruned.spec.timesteps, 8, *pruned.spec.input_shape)
    images = np.broadcast_to(np.random.default_rng(0).standard_normal(shape[1:], np.float32), shape)
    assert verify(path, pruned, np.ascontiguousarray(images)).argmax_agreement == 1.0
