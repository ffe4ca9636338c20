"""The families build, spike and refuse arguments that make no sense."""

from typing import Any

import pytest
import torch

from svitkit.errors import ConfigError
from svitkit.models.families import FAMILIES, build_family
from svitkit.models.liven import liven
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits, forward_spikes

BASE: dict[str, Any] = {
    "T": 3,
    "in_channels": 2,
    "img_size_h": 18,
    "img_size_w": 16,
    "num_classes": 5,
    "embed_dims": 32,
}
HEADS = {"qkformer": (1, 2, 4)}


def arguments(family: str, **changes: Any) -> dict[str, Any]:
    return {**BASE, "num_heads": HEADS.get(family, 4), **changes}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_a_sequence_and_gives_one_logit_a_class(family: str) -> None:
    model = build_family(family, arguments(family)).eval()
    x = torch.rand(3, 2, 2, 18, 16)
    assert forward_logits(model, x).shape == (2, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_neuron_is_a_multi_step_lif_with_detached_reset(family: str) -> None:
    layers = neuron_layers(build_family(family, arguments(family)))
    assert len(layers) >= 10
    assert all(node.detach_reset and node.step_mode == "m" for node in layers.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_livened_network_fires_in_nearly_every_layer(family: str) -> None:
    torch.manual_seed(0)
    model = build_family(family, arguments(family, img_size_h=32, img_size_w=32))
    x = torch.rand(3, 4, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    liven(model, x)
    _, spikes = forward_spikes(model, x)
    assert set(spikes) == set(neuron_layers(model))
    silent = [name for name, fired in spikes.items() if float(fired.mean()) < 0.01]
    assert len(silent) <= len(spikes) // 8, silent
    assert all(set(fired.unique().tolist()) <= {0.0, 1.0} for fired in spikes.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_starts_from_fresh_state(family: str) -> None:
    model = build_family(family, arguments(family))
    x = torch.rand(3, 2, 2, 18, 16, generator=torch.Generator().manual_seed(0))
    liven(model, x)
    with torch.no_grad():
        first = forward_logits(model, x)
        forward_logits(model, 5 * x)
        assert torch.equal(forward_logits(model, x), first)


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("spikformer", {"embed_dims": 36}, "embed_dims is 36"),
        ("spikformer", {"num_heads": 3}, "multiple of 3"),
        ("spikformer", {"num_heads": 0}, "num_heads"),
        ("spikformer", {"patch_size": 8}, "patch_size"),
        ("spikformer", {"patch_size": 16, "img_size_h": 8}, "8x16 pixels are too small"),
        ("spikformer", {"mlp_ratio": 0.01}, "no hidden channel"),
        ("spikformer", {"depth": 2}, "'depth'"),
        ("spikformer", {"embed_dims": "wide"}, "'embed_dims'"),
        ("spikformer", {"num_classes": 1}, "num_classes"),
        ("spike-driven-transformer", {"pooling_stat": "012"}, "pooling_stat"),
        ("spike-driven-transformer", {"num_heads": 5}, "multiple of 5"),
        ("qkformer", {"num_heads": (1, 2)}, "num_heads"),
        ("qkformer", {"num_heads": (3, 2, 4)}, "width of a stage is 8"),
        ("qkformer", {"qka_type": "both"}, "qka_type"),
        ("qkformer", {"img_size_w": 8}, "too small"),
        ("qkformer", {"depths": (1, 1, -1)}, "not negative"),
        ("qkformer", {"depths": (1, 1, 65536)}, "depths.*less than or equal to 256"),
        ("spikformer", {"depths": 1 << 40}, "depths.*less than or equal to 256"),
        ("spikformer", {"embed_dims": 1 << 60}, "embed_dims.*less than or equal to 16384"),
        ("spikformer", {"embed_dims": 16384, "depths": 256}, "about .* parameters; at most 268435456 are built"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(family: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_family(family, arguments(family, **changes))


def test_a_misspelt_family_brings_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'qkformer'"):
        build_family("qkfomer", BASE)
