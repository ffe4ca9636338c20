"""Which modules of a network are blocks whose tokens can be reduced."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from svitkit.errors import UnsupportedError
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits
from svitkit.models.spec import TokenCriterion, TokenReduction


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a network.

    Attributes:
        name: qualified.
        grid: its tokens along height and width.
        channels: of its input.
        currents: whether its input holds currents, not spikes or counts.
    """

    name: str
    grid: tuple[int, int]
    channels: int
    currents: bool

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.grid[0] * self.grid[1]

    def reduced(self, kept: int, criterion: TokenCriterion, *, skip: bool = True, seed: int = 0) -> TokenReduction:
        """Returns the block with fewer tokens."""
        return TokenReduction(
            block=self.name,
            grid=self.grid,
            channels=self.channels,
            kept=kept,
            criterion=criterion,
            rest="skip" if skip else "drop",
            currents=self.currents,
            seed=seed,
        )


def find_blocks(model: nn.Module, x: torch.Tensor) -> tuple[Block, ...]:
    """Finds the blocks of a network, in the order of execution.

    A block is one of a list of modules and no such list itself, gives what it takes, (T, B, C, H, W) or (T, B, C, N),
    has neurons, and looks at no neighbours of a token but in products of activations: its convolutions have one tap.

    Args:
        model: the network, in evaluation mode.
        x: (T, B, C, H, W) float32, images that tell spikes from currents.

    Raises:
        UnsupportedError: there is none.
    """
    members = {
        f"{name}.{number}".lstrip("."): child
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for number, child in module.named_children()
        if not isinstance(child, nn.Sequential)  # it would run what chooses tokens as one of its layers
    }
    found: dict[str, Block] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], got: Any) -> None:
            if _keeps_shape(given, got) and _is_pointwise(module.modules()) and neuron_layers(module):
                found[name] = _described(name, given[0])

        return hook

    handles = [child.register_forward_hook(watch(name)) for name, child in members.items()]
    try:
        with torch.no_grad():
            forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    outermost = tuple(
        block for block in found.values() if not any(block.name.startswith(f"{other}.") for other in found)
    )
    if not outermost:
        raise UnsupportedError(
            "no block of this network can leave out tokens: wanted a list of modules (ModuleList or Sequential) that "
            "take and give (T, B, C, H, W) or (T, B, C, N), and whose convolutions have one tap."
        )
    return outermost


def _keeps_shape(given: tuple[Any, ...], got: Any) -> bool:
    if len(given) != 1 or not isinstance(given[0], torch.Tensor) or not isinstance(got, torch.Tensor):
        return False
    return given[0].ndim in (4, 5) and given[0].shape == got.shape and given[0].flatten(3).shape[3] > 1


def _is_pointwise(modules: Iterable[nn.Module]) -> bool:
    convolutions = [module for module in modules if isinstance(module, _ConvNd)]
    return bool(convolutions) and all(math.prod(module.kernel_size) == 1 for module in convolutions)


def _described(name: str, x: torch.Tensor) -> Block:
    tokens = x.flatten(3).shape[3]
    side = math.isqrt(tokens)
    grid = (x.shape[3], x.shape[4]) if x.ndim == 5 else (side, side) if side**2 == tokens else (1, tokens)
    counts = bool(((x >= 0) & (x == x.round())).all())
    return Block(name=name, grid=grid, channels=x.shape[2], currents=not counts)
