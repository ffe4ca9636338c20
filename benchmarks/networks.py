"""The networks of the benchmarks: of published size, with random weights that fire at a rate one asks for.

How fast a spiking network runs depends on its shape and on how often its neurons fire, not on what it has learned. So
these are drawn at random and calibrated (:mod:`benchmarks.calibrate`); a network of the zoo keeps its own weights and
the rates that it has on the test images of its data. Either can be had with integer weights, as ``svitkit compress
--method int8`` and ``int4`` round them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.calibrate import fire_at_rate
from svitkit.compress.options import INTEGER_METHODS
from svitkit.compress.quantize import quantize_network, uniform_bits
from svitkit.data import batches, load_data
from svitkit.errors import ConfigError, unknown_name
from svitkit.export.rates import firing_rates
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.families import build_family
from svitkit.models.run import example_input
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import ModelSpec, match_dataset
from svitkit.presets import data_of
from svitkit.zoo import ZOO

TIMESTEPS = 4
DEFAULT_RATE = 0.15
CLASSES = 10
_CIFAR = {"T": TIMESTEPS, "in_channels": 3, "img_size_h": 32, "img_size_w": 32, "num_classes": CLASSES}

# Name -> family and its arguments; every one sees 3x32x32 frames.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    # spikingjelly's spikformer_cifar10; Zhou et al., "Spikformer", ICLR 2023, table 3 (9.3 M parameters)
    "spikformer-4-384": (
        "spikformer",
        {**_CIFAR, "patch_size": 4, "embed_dims": 384, "num_heads": 12, "mlp_ratio": 4.0, "depths": 4},
    ),
    # Yao et al., "Spike-driven Transformer", NeurIPS 2023, CIFAR: SDT-2-512
    "sdt-2-512": (
        "spike-driven-transformer",
        {**_CIFAR, "embed_dims": 512, "num_heads": 8, "mlp_ratio": 4.0, "depths": 2, "pooling_stat": "0011"},
    ),
    # Zhou et al., "QKFormer", NeurIPS 2024: width and depths of its CIFAR network, on spikingjelly's stem, which halves
    # the frame four times where the authors' CIFAR stem halves it twice: 64, 16 and 4 tokens in the three stages.
    "qkformer": (
        "qkformer",
        {**_CIFAR, "embed_dims": 384, "num_heads": (3, 6, 6), "mlp_ratio": 4.0, "depths": (1, 1, 2)},
    ),
}


@dataclass(frozen=True, kw_only=True)
class BenchNetwork:
    """A network that is ready to be timed.

    Attributes:
        name: of ``NETWORKS`` or of the zoo.
        checkpoint: the network. Thresholds of attention neurons may be calibrated; ``svit.json`` has no place for them,
            so it is exported from memory, not from a saved checkpoint.
        inputs: (T, N, C, H, W) float32, different normalized images, each shown at every time step.
        rate: spikes per neuron and time step that were asked for; None for the network's own.
        rates: layer -> spikes per neuron and time step on ``inputs``, in the order of execution.
        seed: of random weights and inputs.
    """

    name: str
    checkpoint: Checkpoint
    inputs: torch.Tensor
    rate: float | None
    rates: dict[str, float]
    seed: int = 0


def network_names() -> tuple[str, ...]:
    """Returns every name that :func:`load_network` knows."""
    return (*NETWORKS, *ZOO)


def load_network(
    name: str, *, rate: float | None = None, images: int = 8, seed: int = 0, data: str | None = None
) -> BenchNetwork:
    """Builds a network of the benchmarks.

    Args:
        name: of ``NETWORKS`` or of the zoo.
        rate: spikes per neuron and time step, above 0 and below 1, at which every layer of a network of ``NETWORKS``
            shall fire, 0.15 if None; networks of the zoo fire as they do, and take None.
        images: number of different inputs.
        seed: of weights and inputs.
        data: of a network of the zoo, as svitkit's ``--data`` takes them; None for digits.

    Raises:
        ConfigError: the name is unknown, the rate is out of range, a network of the zoo is given one or lacks data, or
            a random network is given data.
    """
    if name in ZOO:
        if rate is not None:
            raise ConfigError(f"'{name}' is trained and fires as it does: leave the rate away.")
        return _zoo_network(name, images, data_of(name, data))
    if name not in NETWORKS:
        raise unknown_name("network", name, network_names())
    if data is not None:
        raise ConfigError(f"'{name}' has random weights and sees random input: leave the data away.")
    family, arguments = NETWORKS[name]
    rate = DEFAULT_RATE if rate is None else rate
    return random_network(name, family, arguments, rate=rate, images=images, seed=seed)


def random_network(
    name: str, family: str, arguments: dict[str, Any], *, rate: float, images: int = 8, seed: int = 0
) -> BenchNetwork:
    """Builds a network of a family with random weights, whose layers fire at a rate; see :func:`load_network`."""
    spec = _spec(family, arguments)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(1, images, *spec.input_shape, generator=generator)
    inputs = frames.expand(spec.timesteps, -1, -1, -1, -1).contiguous()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_family(family, arguments).eval()
    fire_at_rate(model, inputs, rate, seed=seed)
    spec = replace(spec, original_parameter_bytes=parameter_bytes(model, example_input(spec)))
    checkpoint = Checkpoint(model=model, spec=spec)
    rates = firing_rates(model, inputs)
    return BenchNetwork(name=name, checkpoint=checkpoint, inputs=inputs, rate=rate, rates=rates, seed=seed)


def integer_network(network: BenchNetwork, method: str) -> BenchNetwork:
    """Returns a network with integer weights and an 8-bit input; the network given is not changed.

    Rounding moves currents, so that other neurons fire. A random network is therefore calibrated again, in the same way
    and with the same seed: batch norms, which are folded into scales and biases, and thresholds in attention change,
    the integers do not. A network of the zoo stays as it was rounded.

    Args:
        network: with float weights.
        method: a name of ``INTEGER_METHODS``.
    """
    checkpoint, spec = network.checkpoint, network.checkpoint.spec
    bits = uniform_bits(checkpoint.model, example_input(spec), INTEGER_METHODS[method])
    small = quantize_network(checkpoint.model, bits, spec.normalization, static=spec.static_input)
    if network.rate is not None:
        fire_at_rate(small.model, network.inputs, network.rate, seed=network.seed)
    rounded = Checkpoint(model=small.model, spec=replace(spec, quantization=small.spec), quantized=small.weights)
    return replace(network, checkpoint=rounded, rates=firing_rates(small.model, network.inputs))


def _spec(family: str, arguments: dict[str, Any]) -> ModelSpec:
    channels = arguments["in_channels"]
    return ModelSpec(
        family=family,
        arguments=arguments,
        timesteps=arguments["T"],
        input_shape=(channels, arguments["img_size_h"], arguments["img_size_w"]),
        static_input=True,
        normalization=Normalization(mean=(0.5,) * channels, std=(0.25,) * channels),
        class_names=tuple(str(label) for label in range(arguments["num_classes"])),
        original_parameter_bytes=0,
    )


def _zoo_network(name: str, images: int, data: str) -> BenchNetwork:
    checkpoint = load_checkpoint(ZOO[name])
    spec = checkpoint.spec
    dataset = match_dataset(load_data(data, timesteps=spec.timesteps), spec)
    inputs, _ = next(batches(dataset, "test", batch_size=images, timesteps=spec.timesteps, limit=images))
    rates = firing_rates(checkpoint.model, inputs)
    return BenchNetwork(name=name, checkpoint=checkpoint, inputs=inputs, rate=None, rates=rates)
