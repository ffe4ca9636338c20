"""Which neurons svitkit can express, and how it refuses the others."""

import pytest
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams, lif
from svitkit.models.neurons import lif_params, neuron_layers


class Renamed(neuron.LIFNode):
    """A subclass that changes only its defaults."""

    def __init__(self) -> None:
        super().__init__(tau=3.0, v_reset=None, decay_input=False, step_mode="m")


class Doubled(neuron.LIFNode):
    """A subclass whose dynamics differ."""

    def multi_step_forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        return super().multi_step_forward(2 * x_seq)


def test_constants_are_read_from_the_node() -> None:
    node = neuron.LIFNode(tau=2.5, v_threshold=0.5, v_reset=-0.25, decay_input=False, step_mode="m")
    assert lif_params(node) == LIFParams(tau=2.5, v_threshold=0.5, v_reset=-0.25, decay_input=False)


def test_a_subclass_with_the_same_dynamics_is_a_lif_neuron() -> None:
    assert lif_params(Renamed()) == LIFParams(tau=3.0, v_reset=None, decay_input=False)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, -0.5, None])
def test_the_node_fires_as_the_operator_says(v_reset: float | None, decay_input: bool) -> None:
    node = neuron.LIFNode(tau=2.0, v_threshold=0.75, v_reset=v_reset, decay_input=decay_input, step_mode="m")
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 2
    spikes, _ = lif(x.numpy(), lif_params(node))
    assert 0.05 < spikes.mean() < 0.95
    assert torch.equal(node(x), torch.from_numpy(spikes))


@pytest.mark.parametrize(
    "node",
    [
        neuron.ParametricLIFNode(step_mode="m"),
        neuron.IFNode(step_mode="m"),
        neuron.PSN(T=4),
        neuron.NonSpikingLIFNode(),
        neuron.SimpleLIFNode(tau=2.0, decay_input=True, step_mode="m"),
        Doubled(step_mode="m"),
        layer.SynapseFilter(),
        neuron.LIFNode(step_mode="s"),
        neuron.LIFNode(step_mode="m", surrogate_function=surrogate.Sigmoid(spiking=False)),
    ],
    ids=lambda node: type(node).__name__,
)
def test_other_neurons_are_refused_with_layer_and_class(node: nn.Module) -> None:
    model = nn.Sequential(nn.Identity(), node)
    with pytest.raises(UnsupportedError, match=f"layer '1' \\({type(node).__name__}\\)"):
        neuron_layers(model)


def test_a_replaced_method_of_one_node_is_noticed() -> None:
    node = neuron.LIFNode(step_mode="m")
    node.multi_step_forward = lambda x: x
    with pytest.raises(UnsupportedError, match="multi_step_forward"):
        lif_params(node)


def test_layers_are_found_by_qualified_name_and_dropout_is_no_neuron() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(neuron.LIFNode(step_mode="m"), layer.Dropout()), "b": Renamed()})
    assert list(neuron_layers(model)) == ["a.0", "b"]
