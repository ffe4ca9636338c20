"""Membrane potentials of few bits in a torch network: the same spikes as the neurons in integers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from svitkit.compress.membranes import membrane_grids
from svitkit.errors import ConfigError
from svitkit.lif import LIFParams, lif
from svitkit.lif_integer import CURRENT_FRACTION, IntegerLIF, Membrane, integer_lif_step
from svitkit.models.checkpoint import SPEC_NAME, Checkpoint, checkpoint_sha256, load_checkpoint, save_checkpoint
from svitkit.models.fused_lif import fused_neurons
from svitkit.models.membranes import QuantizeMembrane, membrane_of, quantize_membranes, run_neurons
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits, forward_spikes
from svitkit.models.spec import InputQuantization, QuantizationSpec
from tests.compress.test_drift import PARAMS
from tests.export.conftest import FAMILIES, build
from tests.export.quantized import quantize_neurons

GRIDS = [Membrane(bits=16, fraction=12), Membrane(bits=8, fraction=6), Membrane(bits=4, fraction=3)]
LAYER = "blocks.0.attn.attn_lif"
every_grid = pytest.mark.parametrize("membrane", GRIDS, ids=lambda grid: f"{grid.bits}")


def currents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("params", PARAMS)
def test_without_a_grid_spikes_are_those_of_the_definition_bit_for_bit(params: LIFParams) -> None:
    x = currents(6, 5000)
    wanted, _ = lif(x.numpy(), params)
    assert 0.05 < wanted.mean() < 0.95
    np.testing.assert_array_equal(run_neurons(x, params)[0].numpy(), wanted)


@every_grid
@pytest.mark.parametrize("tau", [2.0, 4.0])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("decay_input", [True, False])
def test_on_a_grid_spikes_are_those_of_integers(
    membrane: Membrane, tau: float, v_reset: float | None, decay_input: bool
) -> None:
    params = LIFParams(tau=tau, v_reset=v_reset, decay_input=decay_input)
    layer = IntegerLIF(params=params, membrane=membrane, current_fraction=CURRENT_FRACTION)
    x = currents(6, 5000)
    steps = np.floor(x.numpy().astype(np.float64) * 2**CURRENT_FRACTION + 0.5).astype(np.int64)
    v, fired = np.zeros(5000, np.int64), []
    for step in steps:
        s, v = integer_lif_step(step, v, layer)
        fired.append(s)
    got, h = run_neurons(x, params, membrane)
    np.testing.assert_array_equal(got.numpy(), np.stack(fired))
    np.testing.assert_array_equal((h >= params.v_threshold).numpy(), np.stack(fired))
    assert (run_neurons(x, params)[0] != got).any() or membrane.bits == 16  # the grid matters


class Net(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 40), neuron.LIFNode(step_mode="m", detach_reset=True, **options))
        self.head = nn.Linear(40, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.flatten(2)))


def told(**membranes: Membrane) -> QuantizationSpec:
    names = {name.replace("__", "."): membrane for name, membrane in membranes.items()}
    return QuantizationSpec(layers={"head": 8}, input=InputQuantization(scale=1.0, zero_point=0), membranes=names)


def hooks(model: nn.Module) -> list[Membrane]:
    found = [hook for node in neuron_layers(model).values() for hook in node._forward_hooks.values()]
    return [hook.membrane for hook in found if isinstance(hook, QuantizeMembrane)]


def spikes(model: nn.Module) -> torch.Tensor:
    return forward_spikes(model, currents(4, 50, 3, 1, 1))[1]["body.1"]


def test_a_layer_rounds_its_potentials_once_and_again_not_at_all() -> None:
    torch.manual_seed(0)
    model = Net().eval()
    plain = spikes(model)
    for membrane in GRIDS:
        quantize_membranes(model, told(body__1=membrane))
        assert hooks(model) == [membrane]
        assert membrane_of(model.body[1]) == membrane
        x = currents(4, 50, 3, 1, 1).flatten(2)
        with torch.no_grad():
            wanted = run_neurons(model.body[0](x), LIFParams(), membrane)[0]
        assert torch.equal(spikes(model), wanted)
    assert not torch.equal(spikes(model), plain)
    quantize_membranes(model, None)
    assert not hooks(model)
    assert membrane_of(model.body[1]) is None
    assert torch.equal(spikes(model), plain)


def test_a_description_without_membranes_takes_them_off_and_leaves_other_hooks() -> None:
    model, seen = Net().eval(), []
    model.body[1].register_forward_hook(lambda *_: seen.append(1))
    quantize_membranes(model, told(body__1=GRIDS[0]))
    quantize_membranes(model, told())
    assert not hooks(model)
    spikes(model)
    assert seen == [1]


@pytest.mark.parametrize(
    ("options", "layer", "says"),
    [
        ({}, "body__2", "the membrane of 'body.2', which is no layer of neurons"),
        ({}, "head", "the membrane of 'head', which is no layer of neurons"),
        ({"tau": 3.0}, "body__1", "but its tau is 3, which is no power of two"),
        ({"v_reset": 0.1}, "body__1", "but its v_reset is 0.1"),
    ],
)
def test_layers_that_cannot_round_their_potentials_are_refused(options: dict[str, Any], layer: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        quantize_membranes(Net(**options), told(**{layer: GRIDS[0]}))


def small(membrane_bits: int) -> Checkpoint:
    checkpoint = build("spikformer")
    spec = replace(checkpoint.spec, arguments=FAMILIES["spikformer"])
    return quantize_neurons(replace(checkpoint, spec=spec), 4, membrane_bits)


@pytest.mark.parametrize("membrane_bits", [16, 8, 4])
def test_a_network_with_membranes_comes_back_as_it_was_saved(tmp_path: Path, membrane_bits: int) -> None:
    checkpoint = small(membrane_bits)
    save_checkpoint(tmp_path / "saved", checkpoint.model, checkpoint.spec, quantized=checkpoint.quantized)
    loaded = load_checkpoint(tmp_path / "saved")
    x = currents(4, 6, 2, 16, 16)
    with torch.no_grad():
        wanted = forward_logits(checkpoint.model, x)
        assert torch.equal(forward_logits(loaded.model, x), wanted)
    assert loaded.spec == checkpoint.spec
    assert hooks(loaded.model) == list(membrane_grids(checkpoint.model, membrane_bits).values())
    assert checkpoint_sha256(loaded) == checkpoint_sha256(checkpoint)
    if membrane_bits < 16:
        quantize_membranes(loaded.model, None)
        with torch.no_grad():
            assert not torch.equal(forward_logits(loaded.model, x), wanted)


def test_neurons_that_run_faster_give_the_same_logits_on_a_grid() -> None:
    checkpoint = small(4)
    x = currents(4, 6, 2, 16, 16)
    with torch.no_grad():
        wanted = forward_logits(checkpoint.model, x)
        with fused_neurons(checkpoint.model):
            assert torch.equal(forward_logits(checkpoint.model, x), wanted)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda grids: grids.update(nothing={"bits": 8, "fraction": 6}), "'nothing', which is no layer of neurons"),
        (lambda grids: grids[LAYER].update(bits=5), "16, 8 or 4"),
        (lambda grids: grids[LAYER].update(fraction=15), "less than or equal to 14"),
        (lambda grids: grids[LAYER].update(zero=1), "Unexpected keyword"),
    ],
)
def test_membranes_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Any], Any], says: str) -> None:
    checkpoint = small(8)
    save_checkpoint(tmp_path / "saved", checkpoint.model, checkpoint.spec, quantized=checkpoint.quantized)
    spec = json.loads((tmp_path / "saved" / SPEC_NAME).read_text())
    grids = spec["quantization"]["membranes"]
    change(grids)
    (tmp_path / "saved" / SPEC_NAME).write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match=says):
        load_checkpoint(tmp_path / "saved")
