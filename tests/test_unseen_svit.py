"""A class that svitkit has never seen, from the groups to the bundle; see :mod:`tests.unseen_svit`."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from svitkit.boards.board import load_board
from svitkit.compress.groups import FoundGroup, find_groups
from svitkit.compress.mask import silence
from svitkit.compress.pipeline import compress_model
from svitkit.compress.quantize import quantize_network, uniform_bits
from svitkit.data import load_data
from svitkit.export.pipeline import export_onnx, parameter_initializer_bytes
from svitkit.inspect_model import inspect_network
from svitkit.manifest import Mode
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.liven import liven
from svitkit.models.plan import PrunedGroup, PrunePlan, apply_plan
from svitkit.models.resolve import resolve_model
from svitkit.models.run import example_input, forward_logits, forward_spikes
from svitkit.runtime.build import build_bundle
from tests.runtime.recordings import Recording, assert_lively, by_onnx_runtime, by_session

NAME = "tests.unseen_svit:Kestrel"
IMAGES = torch.rand(48, 1, 16, 16, generator=torch.Generator().manual_seed(1))
FRAMES = IMAGES.expand(4, *IMAGES.shape).contiguous()


@cache
def lively() -> Checkpoint:
    """The class with weights at which every layer fires."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checkpoint = resolve_model(NAME, dataset=load_data("digits"))
    liven(checkpoint.model, FRAMES)
    logits, _ = forward_spikes(checkpoint.model, FRAMES)
    checkpoint.model.classify.bias.data -= logits.mean(0)
    return checkpoint


@cache
def groups() -> dict[str, FoundGroup]:
    checkpoint = lively()
    found = find_groups(checkpoint.model, example_input(checkpoint.spec), residual_widths=True, heads=True)
    return {entry.group.name: entry for entry in found}


def everything() -> PrunePlan:
    """A third of the channels of every group that can be pruned, and a third of the heads."""
    chosen = []
    for entry in groups().values():
        if entry.prunable:
            size = entry.group.channels // entry.group.blocks
            kept = tuple(c for c in range(entry.group.channels) if c % size % 3 != 1)
            chosen.append(PrunedGroup(group=entry.group, kept=kept))
    return PrunePlan(groups=tuple(chosen))


def pruned() -> Checkpoint:
    checkpoint, plan = lively(), everything()
    model = copy.deepcopy(checkpoint.model)
    apply_plan(model, plan)
    liven(model, FRAMES)
    return Checkpoint(model=model, spec=dataclasses.replace(checkpoint.spec, plan=plan))


def recorded(checkpoint: Checkpoint) -> Recording:
    logits, spikes = forward_spikes(checkpoint.model, FRAMES)
    return Recording(logits.numpy(), {name: s.transpose(0, 1).flatten(1).numpy() for name, s in spikes.items()})


def test_streams_heads_widths_inside_them_and_hidden_layers_are_groups() -> None:
    prunable = {name: (g.group.channels, g.group.blocks) for name, g in groups().items() if g.prunable}
    assert prunable == {
        "first.grow": (16, 1),
        "first.attend.to_qkv heads": (2, 1),
        "first.attend.to_qkv": (24, 2),
        "first.mixer.up": (32, 1),
        "second.grow": (32, 1),
        "second.attend.to_qkv heads": (4, 1),
        "second.attend.to_qkv": (32, 4),
        "second.mixer.up": (64, 1),
    }
    assert {name for name, g in groups().items() if g.residual} == {"first.grow", "second.grow"}
    assert "first.place" in {member.tensor for member in groups()["first.grow"].producers}
    assert "first.mixer.local.weight" in {member.tensor for member in groups()["first.mixer.up"].producers}


def test_what_cannot_be_pruned_is_listed_with_the_reason() -> None:
    left = {name: found.reason for name, found in groups().items() if not found.prunable}
    assert left == dict.fromkeys(("look", "pairs"), "its width is fixed: a grouped convolution divides it")


def test_all_groups_at_once_fire_as_where_they_are_silent() -> None:
    model, plan = copy.deepcopy(lively().model).double(), everything()
    silent, smaller, x = model, copy.deepcopy(model), FRAMES.double()
    for entry in plan.groups:
        silent = silence(silent, groups()[entry.group.name].producers, entry.removed())
    apply_plan(smaller, plan)
    wanted, quiet = forward_spikes(silent, x)
    got, spikes = forward_spikes(smaller, x)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    assert (wanted - forward_spikes(model, x)[0]).abs().max() > 0.1
    for name, fired in spikes.items():
        assert torch.equal(fired.flatten(2).sum(2), quiet[name].flatten(2).sum(2))


@pytest.mark.parametrize("mode", ["sequence", "step"])
def test_the_pruned_network_computes_the_same_in_torch_in_onnx_runtime_and_in_a_bundle(
    tmp_path: Path, mode: Mode
) -> None:
    checkpoint, path, bundle = pruned(), tmp_path / "model.onnx", tmp_path / "bundle"
    wanted, images = recorded(checkpoint), IMAGES[:, None].numpy()
    assert_lively(wanted)
    export_onnx(checkpoint, path, mode=mode)
    assert parameter_initializer_bytes(onnx.load(path)) == checkpoint.parameter_bytes()
    build_bundle(path, load_board("host"), bundle, golden=images[:4])
    runs = [by_session(bundle, images)]
    if mode == "sequence":
        runs.append(by_onnx_runtime(path, images))
    for got in runs:
        assert (got.logits.argmax(1) == wanted.logits.argmax(1)).all()
        assert set(got.spikes) == set(wanted.spikes)
        for name, spikes in wanted.spikes.items():
            assert (got.spikes[name].reshape(spikes.shape) == spikes).mean() >= 0.999


def test_the_pruned_network_in_integers_gives_the_same_bits_in_onnx_runtime_and_in_a_bundle(tmp_path: Path) -> None:
    network, path, bundle = pruned(), tmp_path / "model.onnx", tmp_path / "bundle"
    images = IMAGES[:, None].numpy()
    bits = uniform_bits(network.model, example_input(network.spec), 8)
    small = quantize_network(network.model, bits, network.spec.normalization, static=True)
    spec = dataclasses.replace(network.spec, quantization=small.spec)
    export_onnx(Checkpoint(model=small.model, spec=spec, quantized=small.weights), path)
    build_bundle(path, load_board("host"), bundle, golden=images[:4])
    wanted, got = by_onnx_runtime(path, images), by_session(bundle, images)
    np.testing.assert_array_equal(got.logits, wanted.logits)
    for name, spikes in wanted.spikes.items():
        np.testing.assert_array_equal(got.spikes[name].reshape(-1), spikes.reshape(-1))


def test_its_layers_are_listed_with_all_of_its_parameters() -> None:
    rows = {row.layer: row for row in inspect_network(lively(), FRAMES[:, :4])}
    assert (rows["first"].parameters, rows["first"].macs) == (64 * 16, 0)
    assert sum(row.parameters for row in rows.values()) == lively().parameter_count()


def test_the_search_prunes_it_and_its_checkpoint_is_read_again(tmp_path: Path) -> None:
    result = compress_model(
        lively(),
        load_data("digits"),
        tmp_path / "out",
        method="primesvt",
        max_drop=100.0,
        min_saving=0.3,
        limit=16,
        bn_recalibration=16,
        settings={"rates": (0.5,), "residual_widths": True},
    )
    assert result.satisfied
    decisions = {group.name: group.decision for group in result.report.groups}
    assert decisions["look"] == decisions["pairs"] == "not prunable"
    assert "pruned" in decisions.values()
    again = load_checkpoint(tmp_path / "out")
    assert again.parameter_bytes() < 0.75 * lively().parameter_bytes()
    x = FRAMES[:, :4]
    with torch.no_grad():
        assert torch.equal(forward_logits(again.model, x), forward_logits(result.checkpoint.model, x))
