"""Repair of a pruned network in closed form: every layer learns again to say what it said before.

For each layer behind the first cut, in the order of execution, the weights that remain become the ridge regression of
what the original network's layer gave out on what the pruned network's layer now reads::

    W = argmin |Y - X W^T - b|^2 / rows + damping * mean(diag(cov X)) * |W - W0|^2

(damped more where there are fewer than ``SCARCE`` rows a feature).

No labels and no gradients are needed; errors of earlier layers are seen and partly undone by later ones. A regression
gives out less variance than it was asked for; the batch norm behind the layer restores the share ``restored`` of it, so
that neurons go on firing as often as before.

The layer-wise regression is that of channel pruning (He et al., ICCV 2017, equation 3, with the pruned network's own
inputs); for spiking layers the variance matters, because a threshold follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from svitkit.compress.eliminate import member_features
from svitkit.compress.groups import FoundGroup
from svitkit.compress.layer_rows import (
    ROWS,
    LinearLayer,
    chooser,
    hooked,
    input_rows,
    linear_layers,
    output_rows,
    run_once,
)
from svitkit.compress.moments import Moments
from svitkit.compress.recalibrate import follow
from svitkit.models.plan import PrunePlan

DAMPING = 1e-2
SCARCE = 10
RESTORED = 1.0
LEAST_VARIANCE = 1e-3


class Reconstruction:
    """Fits a pruned network's layers to the original's outputs; a repair of candidates."""

    def __init__(self, model: nn.Module, inputs: torch.Tensor, *, rows: int = ROWS) -> None:
        """Runs the original network once.

        Args:
            model: the network before the search, in evaluation mode; it is not kept.
            inputs: (T, N, C, H, W) float32, images of the training split; they run as one batch.
            rows: so many rows are fitted in each layer.
        """
        self.inputs, self.rows = inputs, rows
        self.layers = {layer.name: layer for layer in linear_layers(model, inputs[:, :1])}
        self.wanted: dict[str, torch.Tensor] = {}

        def watch(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> None:
                self.wanted[name] = output_rows(module, got, chooser(name, rows))

            return model.get_submodule(name).register_forward_hook(hook)

        with hooked(watch(name) for name in self.layers):
            run_once(model, inputs)

    def __call__(self, model: nn.Module, plan: PrunePlan) -> None:
        """Repairs a network in place, in one forward pass: each layer is fitted when its input arrives.

        Args:
            model: the original network without the channels that ``plan`` removes.
            plan: what was removed, in the original's numbering.
        """
        removed = removed_outputs(plan)
        read = {member.tensor for pruned in plan.groups for member in pruned.group.members if member.dim == 1}
        names = list(self.layers)
        first = next((at for at, name in enumerate(names) if f"{name}.weight" in read), len(names))

        def watch(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
                rows = input_rows(module, given[0], chooser(name, self.rows))
                self._fit(model, self.layers[name], rows, removed.get(f"{name}.weight", set()))

            return model.get_submodule(name).register_forward_pre_hook(hook)

        with hooked(watch(name) for name in names[first:]):
            run_once(model, self.inputs)

    def _fit(self, model: nn.Module, layer: LinearLayer, x: torch.Tensor, removed: set[int]) -> None:
        wanted = self.wanted[layer.name]
        kept = [channel for channel in range(wanted.shape[1]) if channel not in removed]
        y = wanted[:, kept].double()
        mean_x, mean_y = x.mean(0).double(), y.mean(0)
        x = x - mean_x.float()
        second = (x.T @ x).double() / len(x)
        mixed = (x.T @ (y - mean_y).float()).double() / len(x)
        variance = y.var(0, correction=0)
        regression = _Regression(
            second=second, mixed=mixed, mean_x=mean_x, mean_y=mean_y, variance=variance, rows=len(x)
        )
        regression.solve_into(model, layer)


class Compensation:
    """The same regression for the layers that read the cut groups alone, from moments of the original network.

    It runs no image, and does not see errors add up: for candidates in which little is removed.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, LinearLayer], moments: Mapping[str, Moments]) -> None:
        """Keeps the original.

        Args:
            model: the network before the search.
            layers: its convolutions and linear layers, by name.
            moments: of the inputs of the layers that read groups, by name.
        """
        self.model, self.layers, self.moments = model, layers, moments

    def __call__(self, model: nn.Module, plan: PrunePlan) -> None:
        """Repairs a network in place, see :class:`Reconstruction`."""
        removed = removed_outputs(plan)
        gone: dict[str, set[int]] = {}
        for pruned in plan.groups:
            for member in pruned.group.members:
                name, _, leaf = member.tensor.rpartition(".")
                if member.dim == 1 and leaf == "weight" and name in self.moments:
                    kernel = self.model.get_submodule(name).get_parameter("weight")[0, 0].numel()
                    owned = member_features(member, pruned.group.channels, kernel)
                    gone.setdefault(name, set()).update(owned[list(pruned.removed())].flatten().tolist())
        for name, features in gone.items():
            self._fit(model, self.layers[name], features, removed.get(f"{name}.weight", set()))

    def _fit(self, model: nn.Module, layer: LinearLayer, gone: set[int], removed: set[int]) -> None:
        weight = self.model.get_submodule(layer.name).get_parameter("weight").detach().double().flatten(1)
        moments = self.moments[layer.name]
        stay = torch.tensor([feature for feature in range(weight.shape[1]) if feature not in gone])
        weight = weight[[channel for channel in range(len(weight)) if channel not in removed]]
        regression = _Regression(
            second=moments.covariance[stay][:, stay],
            mixed=moments.covariance[stay] @ weight.T,
            mean_x=moments.mean[stay],
            mean_y=weight @ moments.mean,
            variance=(weight @ moments.covariance * weight).sum(1),
            rows=moments.rows,
            biased=True,
        )
        regression.solve_into(model, layer)


def removed_outputs(plan: PrunePlan) -> dict[str, set[int]]:
    """Returns which outputs of which weights a plan removes, in the original's numbering."""
    removed: dict[str, set[int]] = {}
    for pruned in plan.groups:
        for member in pruned.group.members:
            if member.dim == 0:
                removed.setdefault(member.tensor, set()).update(
                    offset + channel * member.inner + i
                    for offset in member.offsets
                    for channel in pruned.removed()
                    for i in range(member.inner)
                )
    return removed


def readers(groups: Sequence[FoundGroup]) -> set[str]:
    """Returns the layers that read any of these groups."""
    return {member.tensor.rpartition(".")[0] for found in groups for member in found.consumers}


@dataclass(frozen=True, kw_only=True)
class _Regression:
    """What a layer's fit is computed from; all float64.

    Attributes:
        second: (features, features) covariance of the inputs.
        mixed: (features, outputs) covariance of inputs and wanted outputs.
        mean_x: (features,).
        mean_y: (outputs,), of the wanted outputs; without the layer's bias if ``biased``.
        variance: (outputs,), of the wanted outputs.
        rows: how many rows all this was measured on.
        biased: whether the layer's own bias is to be added to ``mean_y``.
    """

    second: torch.Tensor
    mixed: torch.Tensor
    mean_x: torch.Tensor
    mean_y: torch.Tensor
    variance: torch.Tensor
    rows: int
    biased: bool = False

    def solve_into(self, model: nn.Module, layer: LinearLayer) -> None:
        """Gives a layer its fitted weights, and its intercept to its bias or batch norm."""
        module = model.get_submodule(layer.name)
        old = module.get_parameter("weight").detach().double()
        norm = model.get_submodule(layer.norm) if layer.norm is not None else None
        bias = getattr(module, "bias", None)
        second, mixed = self.second, self.mixed
        if norm is None and bias is None:  # no place for an intercept: fit the products, not the deviations
            second = second + torch.outer(self.mean_x, self.mean_x)
            mixed = mixed + torch.outer(self.mean_x, self.mean_y)
        damping = DAMPING * max(1.0, SCARCE * len(second) / self.rows) * second.diagonal().mean().clamp_min(1e-12)
        ridge = second + damping * torch.eye(len(second), dtype=torch.float64)
        weight = torch.linalg.solve(ridge, mixed + damping * old.flatten(1).T).T
        intercept = self.mean_y - weight @ self.mean_x
        with torch.no_grad():
            module.get_parameter("weight").copy_(weight.reshape(old.shape))
            if bias is not None:
                bias.copy_(intercept + (bias if self.biased else 0))
            if norm is not None:
                self._renormalize(norm, weight, intercept if bias is None else torch.zeros_like(intercept))

    def _renormalize(self, norm: nn.Module, weight: torch.Tensor, intercept: torch.Tensor) -> None:
        """Moves a batch norm's mean by the intercept, and restores the variance that the regression lost."""
        given = (weight @ self.second * weight).sum(1)
        share = (given / self.variance.clamp_min(1e-12)).clamp(LEAST_VARIANCE, 1.0) ** RESTORED
        follow(norm, self.mean_y, intercept, share)
