"""Blocks of a network that compute some of their tokens only.

A block that *skips* tokens computes the others, and those that it skipped come back behind it as they were. A block
that *drops* tokens has none of the others behind it. How many are kept is fixed, so that all shapes are; one choice
holds for all time steps. A choice is made from spikes: from the block's input where that holds spikes or their counts,
else from the spikes of a layer of neurons of its own on that input.

Sources: TP-Spikformer (arXiv 2603.00527) for skipping; SparseSpikformer (arXiv 2311.08806) for dropping by learned
scores.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from spikingjelly.activation_based import layer
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn

from svitkit.errors import ConfigError
from svitkit.models.neurons import neuron_layers
from svitkit.models.spec import TokenReduction
from svitkit.models.token_ops import choose_tokens, put_tokens, take_tokens, top_tokens

GATE = "tokens"
"""Name under which a block holds what chooses its tokens."""
TEMPERATURE = 1.0
STEPS = 1 << 10
"""In a unit of a learned score: that fine are its weights in the end."""
WOBBLE, FIRST_AND_LAST, SPREAD = 0.5, (-1.0, 2.0), 8.0
"""Of a learned score at the start: noise of the weights, biases of hidden neurons in standard deviations, and how far
apart the scores of silent and of busy tokens are."""
GOLDEN = (0.7548776662466927, 0.5698402909980532)
"""Steps of the low-discrepancy sequence R2 (M. Roberts, 2018) along height and width."""


class TokenGate(nn.Module):
    """Chooses the tokens that a block computes.

    Attributes:
        reduction: what is chosen, and how.
        share: (,) float32, of the tokens that a learned score would keep, if the last forward pass was one of a
            training.
    """

    def __init__(self, reduction: TokenReduction, neurons: LIFNode) -> None:
        """Makes a gate with fresh weights, if it has any.

        Args:
            reduction: what is chosen, and how.
            neurons: a layer of neurons whose constants those of the gate have.
        """
        super().__init__()
        self.reduction = reduction
        self.share: torch.Tensor | None = None
        if reduction.currents and reduction.looks:
            self.lif = copy.deepcopy(neurons)
        if reduction.criterion == "learned":
            width, hidden = reduction.channels, max(1, reduction.channels // 2)
            self.fc1 = layer.Conv1d(width, hidden, 1, bias=False, step_mode="m")
            self.bn1 = layer.BatchNorm1d(hidden, step_mode="m")
            self.lif1 = copy.deepcopy(neurons)
            self.fc2 = layer.Conv1d(hidden, 1, 1, step_mode="m")
            self._begin_with_activity()
        elif not reduction.looks:
            self.register_buffer("index", fixed_tokens(reduction)[None], persistent=False)

    def _begin_with_activity(self) -> None:
        """Sets weights so that a score grows with the number of spikes: hidden neurons fire from different numbers on.

        A selection that begins at random leaves out tokens that matter, and the network would first learn to do without
        them.
        """
        with torch.no_grad():
            width, hidden = self.fc1.in_channels, self.fc2.in_channels
            self.fc1.weight.copy_((1 + WOBBLE * torch.randn_like(self.fc1.weight)) / width)
            self.bn1.bias.copy_(torch.linspace(*FIRST_AND_LAST, hidden))
            self.fc2.weight.fill_(SPREAD / hidden)
            self.fc2.bias.zero_()

    def train(self, mode: bool = True) -> TokenGate:
        """Sets the mode; for inference, what a learned score adds up becomes multiples of a power of two.

        Sums of spikes are exact then, and tokens that look alike, an empty background for example, have the same score
        in whatever order a runtime adds; else rounding errors would choose among them.
        """
        super().train(mode)
        if not mode and self.reduction.criterion == "learned":
            with torch.no_grad():
                for parameter in self.fc2.parameters():
                    parameter.copy_((parameter * STEPS).round() / STEPS)
        return self

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Chooses tokens.

        Args:
            x: (T, B, C, H, W) float32, the input of the block.

        Returns:
            index: (B, k) int64, numbers of the kept tokens.
            weight: (B, k) float32 of ones that carry the gradient of a learned score; None in inference.
        """
        reduction, self.share = self.reduction, None
        if not reduction.looks:
            return self.get_buffer("index").expand(x.shape[1], -1), None
        spikes = self.lif(x) if reduction.currents else x
        if reduction.criterion != "learned":
            return choose_tokens(spikes, reduction.kept, reduction.criterion), None
        hidden = self.lif1(self.bn1(self.fc1(spikes.flatten(3))))
        if not self.training:  # the same order, from exact sums
            return top_tokens(self.fc2(hidden.sum(0, keepdim=True)).flatten(0, 2), reduction.kept), None
        score = self.fc2(hidden).mean(0).squeeze(1)
        self.share = score.sigmoid().mean()
        uniform = torch.rand_like(score).clamp(1e-6, 1 - 1e-6)
        noisy = score + torch.log(uniform) - torch.log1p(-uniform)  # the difference of two Gumbel variables
        index = top_tokens(noisy.detach(), reduction.kept)
        soft = (noisy / TEMPERATURE).sigmoid().gather(1, index)
        return index, 1 + soft - soft.detach()


class _Around:
    """Hooks around a block that cut its input down to the kept tokens, and make its output whole if tokens skip it."""

    def __init__(self, reduction: TokenReduction) -> None:
        self.grid, self.skip = reduction.grid, reduction.rest == "skip"
        self._whole: tuple[torch.Tensor, torch.Tensor] | None = None

    def before(self, block: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x = given[0]
        lies_in_frame = x.ndim == 5  # (T, B, C, H, W), not (T, B, C, N)
        index, weight = block.get_submodule(GATE)(x if lies_in_frame else x.reshape(*x.shape[:3], *self.grid))
        tokens = x.flatten(3)
        if self.skip:
            self._whole = x, index
        kept = take_tokens(tokens, index)
        if weight is not None:
            kept = kept * weight[None, :, None, :]
        return (kept.unsqueeze(3) if lies_in_frame else kept, *given[1:])

    def after(self, block: nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> torch.Tensor:
        if self._whole is None:
            return got
        (x, index), self._whole = self._whole, None
        whole: torch.Tensor = put_tokens(x.flatten(3), index, got.flatten(3)).reshape(x.shape)
        return whole


def reduce_tokens(model: nn.Module, reductions: Sequence[TokenReduction]) -> None:
    """Makes blocks of a network compute fewer tokens, in place; learned scores begin with fresh weights.

    Args:
        model: the network.
        reductions: at most one a block.

    Raises:
        ConfigError: a block does not exist, has no neurons, is a list of modules, or chooses its tokens already.
    """
    for reduction in reductions:
        try:
            block = model.get_submodule(reduction.block)
        except AttributeError:
            raise ConfigError(f"tokens of '{reduction.block}' are to be reduced, but there is no such block.") from None
        if GATE in dict(block.named_children()):
            raise ConfigError(f"block '{reduction.block}' reduces its tokens already. Start from the network before.")
        if isinstance(block, nn.Sequential):
            raise ConfigError(
                f"tokens of '{reduction.block}' are to be reduced, but it is a Sequential. Name its members."
            )
        neurons = neuron_layers(block)
        if not neurons:
            raise ConfigError(f"tokens of '{reduction.block}' are to be reduced, but it has no neurons.")
        around = _Around(reduction)
        block.add_module(GATE, TokenGate(reduction, next(iter(neurons.values()))).train(block.training))
        block.register_forward_pre_hook(around.before)
        block.register_forward_hook(around.after)


def token_gates(model: nn.Module) -> Iterator[TokenGate]:
    """Yields what chooses tokens in a network."""
    return (module for module in model.modules() if isinstance(module, TokenGate))


def exact_layers(model: nn.Module) -> set[str]:
    """Returns the names of the layers that stay float32, as their sums choose tokens (:meth:`TokenGate.train`)."""
    gates = {name: module for name, module in model.named_modules() if isinstance(module, TokenGate)}
    return {f"{name}.fc2" for name, gate in gates.items() if gate.reduction.criterion == "learned"}


def fixed_tokens(reduction: TokenReduction) -> torch.Tensor:
    """Returns the numbers (k,) int64, ascending, of tokens that are kept whatever the input.

    ``grid`` spreads them evenly over the frame; ``random`` draws them once.
    """
    height, width = reduction.grid
    if reduction.criterion == "random":
        order = torch.randperm(height * width, generator=torch.Generator().manual_seed(reduction.seed))
    else:
        rows, columns = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
        order = ((rows * GOLDEN[0] + columns * GOLDEN[1]) % 1.0).flatten().argsort(stable=True)
    return order[: reduction.kept].sort().values
