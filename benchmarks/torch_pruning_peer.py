"""Torch-Pruning (Fang et al., "DepGraph", CVPR 2023) on spiking networks: its MagnitudePruner at one uniform rate.

Its dependency graph follows autograd, and there the neurons' steps in time look like a division of the channels. So the
neurons are replaced by an elementwise function while it works, and put back afterwards. The fused projections of an
attention it couples wrongly: where the network that it leaves does not run, it is given a second chance with all layers
inside attention left out, and the report says so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from benchmarks.peers import UnavailableError, first_line
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits

MULTIPLE = 4


class _Elementwise(nn.Module):
    """Stands in for a layer of neurons."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Passes (T, ...) through a function that autograd follows element by element."""
        return torch.sigmoid(x)


def prunable_layers(model: nn.Module, x: torch.Tensor, ratio: float) -> tuple[bool, str | None]:
    """Finds out whether Torch-Pruning may touch the layers inside attention.

    Args:
        model: the network; it is not changed.
        x: (T, B, C, H, W) float32.
        ratio: fraction of channels removed in the attempt.

    Returns:
        Whether attention is left out, and why; the reason is None if it need not be.

    Raises:
        UnavailableError: Torch-Pruning is not installed, or nothing that it leaves runs.
    """
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        text = "Torch-Pruning is not installed (pip install -r benchmarks/requirements.txt)"
        raise UnavailableError(text) from None
    reason: str | None = None
    for without_attention in (False, True):
        try:
            prune_uniformly(model, x, ratio, without_attention=without_attention)
        except Exception as error:  # a peer may fail in any way
            if without_attention:
                raise UnavailableError(f"{reason}; without attention: {first_line(error)}") from error
            reason = f"with the layers inside attention: {first_line(error)}"
        else:
            break
    return without_attention, reason


def prune_uniformly(model: nn.Module, x: torch.Tensor, ratio: float, *, without_attention: bool) -> nn.Module:
    """Returns a copy of a network from which Torch-Pruning has removed a fraction of every layer's channels.

    Args:
        model: the network, in evaluation mode.
        x: (T, B, C, H, W) float32, an input of the right shape.
        ratio: fraction removed, 0..1, by the L2 norm of a group's weights.
        without_attention: leave the layers inside attention alone.

    Raises:
        Exception: whatever Torch-Pruning or the pruned network raises.
    """
    import torch_pruning as tp

    pruned = copy.deepcopy(model)
    neurons = neuron_layers(pruned)
    _replace(pruned, ((name, _Elementwise()) for name in neurons))
    ignored = [module for module in pruned.modules() if isinstance(module, nn.Linear)][-1:]  # the classifier
    if without_attention:
        ignored += [module for name, module in pruned.named_modules() if "attn" in name and hasattr(module, "weight")]
    pruner = tp.pruner.MagnitudePruner(
        pruned,
        x,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=ignored,
        round_to=MULTIPLE,
        forward_fn=forward_logits,
    )
    pruner.step()
    _replace(pruned, neurons.items())
    with torch.no_grad():
        forward_logits(pruned, x)
    return pruned.requires_grad_(True).eval()


def _replace(model: nn.Module, modules: Iterable[tuple[str, nn.Module]]) -> None:
    for name, module in list(modules):
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, module)
