"""Single weights that are 0 and stay 0: pruning by magnitude, and training of what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the weights that may become 0, by name: those with more than one axis.

    Biases, batch norms and what has no name ``weight`` are left alone (Liu et al., SparseSpikformer, section 3.2).
    """
    return {n: p for n, p in model.named_parameters() if p.ndim > 1 and n.rpartition(".")[2] == "weight"}


def zeros_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns for every prunable weight a bool tensor of its shape: where it is exactly 0."""
    return {name: weight.detach() == 0 for name, weight in prunable_weights(model).items()}


def sparsity(model: nn.Module) -> float:
    """Returns the fraction of the prunable weights that are 0."""
    zeros = zeros_of(model).values()
    return sum(int(each.sum()) for each in zeros) / max(1, sum(each.numel() for each in zeros))


def smallest(model: nn.Module, share: float) -> dict[str, torch.Tensor]:
    """Chooses the weights of least magnitude, of all layers together, beside those that are 0 already.

    Args:
        model: the network.
        share: of the weights that are not 0, 0..1; rounded to a whole number of weights.

    Returns:
        For every prunable weight a bool tensor of its shape: where it is to be 0.
    """
    weights = prunable_weights(model)
    every = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    alive = int(every.count_nonzero())
    going = torch.zeros(len(every), dtype=torch.bool)
    going[every.argsort(stable=True)[: len(every) - alive + round(share * alive)]] = True
    parts = torch.split(going, [weight.numel() for weight in weights.values()])
    return {name: part.reshape(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def set_to_zero(model: nn.Module, zeros: Mapping[str, torch.Tensor]) -> None:
    """Makes weights 0 where told, in place."""
    with torch.no_grad():
        for name, where in zeros.items():
            model.get_parameter(name).masked_fill_(where, 0.0)


@contextmanager
def held_at_zero(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Takes gradients away from weights that are 0 now, so that an optimizer that starts inside leaves them there.

    AdamW moves a weight by its gradients' means and by a share of the weight, and both are 0.

    Args:
        pairs: a parameter, and a bool tensor of its shape: where it is to stay as it is.
    """
    handles = [_hold(parameter, where) for parameter, where in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hold(parameter: torch.Tensor, where: torch.Tensor) -> RemovableHandle:
    handle: RemovableHandle = parameter.register_hook(partial(_without, where))  # type: ignore[no-untyped-call]
    return handle


def _without(where: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.masked_fill(where, 0.0)
