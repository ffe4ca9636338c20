"""Neurons in one autograd function compute what spikingjelly's compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

from svitkit.models.families import FAMILIES, build_family
from svitkit.models.fused_lif import can_fuse, fused_neurons
from svitkit.models.liven import liven
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits

OTHERS: list[neuron.BaseNode] = [
    neuron.IFNode(step_mode="m"),
    neuron.ParametricLIFNode(step_mode="m"),
    neuron.LIFNode(step_mode="m", detach_reset=True, v_reset=None),
    neuron.LIFNode(step_mode="m", detach_reset=True, v_reset=-0.5),
    neuron.LIFNode(step_mode="m", detach_reset=True, decay_input=False),
    neuron.LIFNode(step_mode="m", detach_reset=True, surrogate_function=surrogate.ATan()),
    neuron.LIFNode(step_mode="m", detach_reset=True, surrogate_function=surrogate.Sigmoid(spiking=False)),
    neuron.LIFNode(step_mode="m", detach_reset=False),
    neuron.LIFNode(step_mode="m", detach_reset=True, store_v_seq=True),
]


def lif(**changes: Any) -> neuron.LIFNode:
    return neuron.LIFNode(step_mode="m", detach_reset=True, **changes)


def network(family: str, timesteps: int) -> tuple[nn.Module, torch.Tensor]:
    heads = (1, 2, 4) if family == "qkformer" else 4
    told = {"T": timesteps, "in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 10}
    torch.manual_seed(0)
    model = build_family(family, {**told, "embed_dims": 32, "num_heads": heads})
    x = torch.randn(timesteps, 5, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    liven(model, x)
    return model.train(), x


def trained_step(model: nn.Module, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Returns what every layer of neurons fired, and every parameter's gradient."""
    spikes: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _m, _x, out, name=name: spikes.__setitem__(name, out.detach().clone()))
        for name, module in model.named_modules()
        if isinstance(module, neuron.LIFNode)
    ]
    model.zero_grad()
    nn.functional.cross_entropy(forward_logits(model, x), torch.arange(x.shape[1])).backward()
    for handle in handles:
        handle.remove()
    return spikes, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("timesteps", [1, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_fires_the_same_spikes_bit_for_bit_and_has_the_same_gradients(family: str, timesteps: int) -> None:
    model, x = network(family, timesteps)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    spikes, gradients = trained_step(model, x)
    model.load_state_dict(state)
    with fused_neurons(model):
        fused_spikes, fused_gradients = trained_step(model, x)
    assert len(spikes) > 8
    assert sum(bool(fired.any()) for fired in spikes.values()) >= 0.8 * len(spikes)
    assert all(torch.equal(fired, fused_spikes[name]) for name, fired in spikes.items())
    assert fused_gradients.keys() == gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_neurons_of_a_family_is_fused(family: str) -> None:
    model, _ = network(family, 2)
    assert all(can_fuse(node) for node in neuron_layers(model).values())


@pytest.mark.parametrize("shape", [(5, 3, 8), (3, 2, 4, 6, 6)])
@pytest.mark.parametrize("constants", [{}, {"tau": 4.0, "v_threshold": 0.5}, {"v_threshold": 0.7}])
def test_a_layer_leaves_the_same_potentials_behind(shape: tuple[int, ...], constants: dict[str, float]) -> None:
    node = lif(**constants)
    x = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    spikes, v = node(x), node.v
    node.reset()
    with fused_neurons(nn.Sequential(node)):
        assert torch.equal(node(x), spikes)
        assert torch.equal(node.v, v)
    assert 0.05 < float(spikes.mean()) < 0.95


def test_a_layer_that_is_called_again_before_its_reset_goes_on_from_its_potentials() -> None:
    node, x = lif(), torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = [node(x), node(x)]
    assert not torch.equal(*expected)
    functional.reset_net(node)
    with fused_neurons(nn.Sequential(node)):
        assert [torch.equal(node(x), wanted) for wanted in expected] == [True, True]
        functional.reset_net(node)
        assert torch.equal(node(x), expected[0])


def test_a_time_constant_that_is_no_power_of_two_differs_in_rounding_alone() -> None:
    node, x = lif(tau=3.0), 3 * torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    spikes, v = node(x), node.v
    node.reset()
    with fused_neurons(nn.Sequential(node)):
        same = node(x) == spikes
        assert float(same.float().mean()) > 0.999
        torch.testing.assert_close(node.v[same.all(0)], v[same.all(0)], rtol=1e-5, atol=1e-6)


def test_in_bfloat16_spikes_and_gradients_stay_close_to_those_in_float32() -> None:
    node = lif()
    x = 2 * torch.randn(4, 2000, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4, 2000, generator=torch.Generator().manual_seed(1))
    got: list[tuple[torch.Tensor, torch.Tensor]] = []
    for dtype, fused in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        node.reset()
        given = x.to(dtype, copy=True).requires_grad_()
        with fused_neurons(nn.Sequential(*([node] if fused else []))):
            spikes = node(given)
        assert spikes.dtype == dtype
        (spikes * weights.to(dtype)).sum().backward()
        assert given.grad is not None
        got.append((spikes.detach().float(), given.grad.float()))
    exact, plain, ours = got
    assert float((ours[0] == plain[0]).float().mean()) > 0.999
    assert float((ours[0] == exact[0]).float().mean()) > 0.98
    error, other = ((gradient - exact[1]).abs().mean() for gradient in (ours[1], plain[1]))
    assert error <= 1.2 * other


@pytest.mark.parametrize("node", OTHERS, ids=[f"{type(node).__name__}{at}" for at, node in enumerate(OTHERS)])
def test_neurons_with_other_dynamics_or_gradients_are_left_alone(node: neuron.BaseNode) -> None:
    assert not can_fuse(node)
    with fused_neurons(nn.Sequential(node)):
        assert "forward" not in vars(node)


def test_a_subclass_and_a_neuron_with_a_method_of_its_own_are_left_alone() -> None:
    class Doubled(neuron.LIFNode):
        def multi_step_forward(self, x_seq: torch.Tensor) -> torch.Tensor:
            return super().multi_step_forward(2 * x_seq)

    patched = lif()
    patched.multi_step_forward = lambda x: (x > 2).float()  # type: ignore[method-assign]
    assert can_fuse(lif())
    assert not can_fuse(Doubled(step_mode="m", detach_reset=True))
    assert not can_fuse(patched)


def test_the_context_restores_the_neurons_even_after_an_error() -> None:
    model = nn.Sequential(lif(), nn.ReLU())

    def fail() -> None:
        with fused_neurons(model):
            assert "forward" in vars(model[0])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert all("forward" not in vars(module) for module in model.modules())
    assert list(neuron_layers(model)) == ["0"]
