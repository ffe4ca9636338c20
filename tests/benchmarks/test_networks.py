from __future__ import annotations

import pytest
import torch

from benchmarks.networks import NETWORKS, integer_network, load_network
from svitkit.errors import ConfigError
from svitkit.export.rates import firing_rates
from svitkit.models.quantized import check_quantized
from svitkit.zoo import ZOO


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.6])
def test_every_layer_of_a_random_network_fires_at_the_rate_asked_for(tiny, rate):
    network = load_network(tiny, rate=rate, images=16)
    sums = {name: got for name, got in network.rates.items() if "attn_lif" in name}
    others = {name: got for name, got in network.rates.items() if name not in sums}
    assert len(network.rates) == 10
    assert others == pytest.approx(dict.fromkeys(others, rate), abs=0.003)
    assert sums == pytest.approx(dict.fromkeys(sums, rate), abs=0.05)


@pytest.mark.parametrize("method", ["int8", "int4"])
@pytest.mark.parametrize("rate", [0.06, 0.3])
def test_a_network_with_integer_weights_fires_at_the_rate_asked_for_too(tiny, method, rate):
    network = load_network(tiny, rate=rate, images=16)
    before = {name: value.clone() for name, value in network.checkpoint.model.state_dict().items()}
    small = integer_network(network, method)
    others = {name: got for name, got in small.rates.items() if "attn_lif" not in name}
    assert others == pytest.approx(dict.fromkeys(others, rate), abs=0.003)
    assert small.rates == firing_rates(small.checkpoint.model, network.inputs)
    check_quantized(small.checkpoint.model, small.checkpoint.spec.quantization, small.checkpoint.quantized)
    after = network.checkpoint.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_rates_are_those_of_the_inputs_that_come_with_the_network(tiny):
    network = load_network(tiny, rate=0.15)
    assert network.rates == firing_rates(network.checkpoint.model, network.inputs)


def test_a_shift_of_currents_reaches_the_residual_that_passes_the_neurons_by():
    arguments = {"T": 4, "in_channels": 3, "img_size_h": 16, "img_size_w": 16, "num_classes": 10}
    from benchmarks.networks import random_network

    blocks = {"embed_dims": 32, "num_heads": 4, "depths": 2, "pooling_stat": "0011"}
    rates = random_network("tiny", "spike-driven-transformer", {**arguments, **blocks}, rate=0.15, images=16).rates
    shifted = {name: rate for name, rate in rates.items() if "attn_lif" not in name}
    assert shifted == pytest.approx(dict.fromkeys(shifted, 0.15), abs=0.01)


def test_inputs_are_different_images_shown_at_every_step(tiny):
    inputs = load_network(tiny, rate=0.15, images=3).inputs
    assert inputs.shape == (4, 3, 3, 16, 16)
    assert torch.equal(inputs, inputs[:1].expand_as(inputs))
    assert not torch.equal(inputs[0, 0], inputs[0, 1])


def test_the_same_seed_gives_the_same_network_and_leaves_the_callers_random_state_alone(tiny):
    state = torch.get_rng_state()
    first, second = (load_network(tiny, rate=0.15).checkpoint.model.state_dict() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_of_the_zoo_fires_as_it_does():
    network = load_network("digits-spikformer", images=4)
    assert network.rate is None
    assert len({round(rate, 3) for rate in network.rates.values()}) > 5
    with pytest.raises(ConfigError, match="leave the rate away"):
        load_network("digits-spikformer", rate=0.15)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_that_no_neuron_can_have_is_refused(tiny, rate):
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        load_network(tiny, rate=rate)


def test_an_unknown_network_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="spikformer-4-384"):
        load_network("spikformer-4-348", rate=0.15)


def test_the_spikformer_has_the_published_number_of_parameters():
    from svitkit.models.families import build_family

    parameters = sum(p.numel() for p in build_family(*NETWORKS["spikformer-4-384"]).parameters())
    assert round(parameters / 1e6, 1) == 9.3


def test_a_network_of_the_zoo_asks_for_the_data_that_it_is_made_for(monkeypatch):
    monkeypatch.setitem(ZOO, "fashion-sdt", ZOO["digits-spikformer"])
    with pytest.raises(ConfigError, match=r"--data fashion-mnist:PATH"):
        load_network("fashion-sdt")
    with pytest.raises(ConfigError, match="leave the data away"):
        load_network("qkformer", data="digits")
    given, default = (load_network("digits-spikformer", images=2, data=data) for data in ("digits", None))
    assert torch.equal(given.inputs, default.inputs)
