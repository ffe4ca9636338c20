"""Whole networks that the costs of work are fitted to: several families, sizes, firing rates and types of weights.

In a whole network every call finds the caches as the calls before it leave them. Some are pruned, so that widths are
no multiples of a vector. A network with one wide head has an attention that no kernel takes as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.networks import BenchNetwork, integer_network, random_network
from benchmarks.pruned import prune

FLOAT = "fp32"
_FASHION = {"T": 4, "in_channels": 1, "img_size_h": 28, "img_size_w": 28, "num_classes": 10}
_DIGITS = {**_FASHION, "img_size_h": 16, "img_size_w": 16}


@dataclass(frozen=True, kw_only=True)
class CostNetwork:
    """A network to observe.

    Attributes:
        name: unique; also of its folder.
        family, arguments: what is built.
        rate: spikes per neuron and time step of every layer.
        ratio: fraction of every prunable group that is removed.
        precision: of the weights: ``fp32``, ``int8`` or ``int4``.
    """

    name: str
    family: str
    arguments: dict[str, Any]
    rate: float
    ratio: float = 0.0
    precision: str = FLOAT

    def load(self) -> BenchNetwork:
        """Builds it; its inputs are random images."""
        network = random_network(self.name, self.family, self.arguments, rate=self.rate)
        if self.ratio:
            network = replace(network, checkpoint=prune(network.checkpoint, self.ratio, network.inputs))
        return network if self.precision == FLOAT else integer_network(network, self.precision)


def _spikformer(width: int, *, depths: int = 1, heads: int = 8, frames: dict[str, Any] = _FASHION) -> dict[str, Any]:
    return {**frames, "patch_size": 4, "embed_dims": width, "num_heads": heads, "depths": depths}


_SDT = {**_FASHION, "embed_dims": 192, "num_heads": 8, "mlp_ratio": 4.0, "depths": 2, "pooling_stat": "0110"}
_QKFORMER = {**_FASHION, "embed_dims": 192, "num_heads": (3, 6, 6), "mlp_ratio": 4.0, "depths": (1, 1, 1)}
COST_NETWORKS = (
    CostNetwork(name="s192", family="spikformer", arguments=_spikformer(192, depths=2), rate=0.1),
    CostNetwork(name="s192-30", family="spikformer", arguments=_spikformer(192, depths=2), rate=0.15, ratio=0.3),
    CostNetwork(name="s192-busy", family="spikformer", arguments=_spikformer(192), rate=0.4),
    CostNetwork(name="s96", family="spikformer", arguments=_spikformer(96), rate=0.2),
    CostNetwork(name="s96-45", family="spikformer", arguments=_spikformer(96), rate=0.08, ratio=0.45),
    CostNetwork(name="s320-37", family="spikformer", arguments=_spikformer(320), rate=0.08, ratio=0.37),
    CostNetwork(name="s96-small", family="spikformer", arguments=_spikformer(96, heads=6, frames=_DIGITS), rate=0.1),
    CostNetwork(name="one-head", family="spikformer", arguments=_spikformer(144, heads=1, frames=_DIGITS), rate=0.05),
    CostNetwork(name="sdt", family="spike-driven-transformer", arguments=_SDT, rate=0.1),
    CostNetwork(name="sdt-30", family="spike-driven-transformer", arguments=_SDT, rate=0.06, ratio=0.3),
    CostNetwork(name="qkformer-40", family="qkformer", arguments=_QKFORMER, rate=0.1, ratio=0.4),
    CostNetwork(name="s192-int8", family="spikformer", arguments=_spikformer(192), rate=0.05, precision="int8"),
    CostNetwork(
        name="s192-30-int8",
        family="spikformer",
        arguments=_spikformer(192),
        rate=0.15,
        ratio=0.3,
        precision="int8",
    ),
    CostNetwork(
        name="s96-20-int4",
        family="spikformer",
        arguments=_spikformer(96, heads=6, frames=_DIGITS),
        rate=0.2,
        ratio=0.2,
        precision="int4",
    ),
    CostNetwork(name="s192-int4", family="spikformer", arguments=_spikformer(192), rate=0.1, precision="int4"),
)
# For cores that are not here: small, because emulators are slow.
SMALL_NETWORKS = (
    CostNetwork(name="s32", family="spikformer", arguments=_spikformer(32, heads=4, frames=_DIGITS), rate=0.15),
    CostNetwork(name="s48", family="spikformer", arguments=_spikformer(48, heads=2, frames=_DIGITS), rate=0.1),
    CostNetwork(name="s40", family="spikformer", arguments=_spikformer(40, heads=4, frames=_DIGITS), rate=0.1),
    CostNetwork(name="s72", family="spikformer", arguments=_spikformer(72, heads=8, frames=_DIGITS), rate=0.1),
    CostNetwork(name="one-head", family="spikformer", arguments=_spikformer(144, heads=1, frames=_DIGITS), rate=0.1),
    CostNetwork(
        name="sdt",
        family="spike-driven-transformer",
        arguments={**_SDT, **_DIGITS, "embed_dims": 32, "num_heads": 4, "depths": 1},
        rate=0.1,
    ),
    CostNetwork(
        name="s32-int8",
        family="spikformer",
        arguments=_spikformer(32, heads=4, frames=_DIGITS),
        rate=0.15,
        precision="int8",
    ),
)
