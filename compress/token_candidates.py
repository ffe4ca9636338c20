"""Candidates of a search for tokens: built, measured, and counted in operations."""

from __future__ import annotations

import copy

import torch
from spikingjelly.activation_based import functional
from torch import nn

from svitkit.compress.divergence import Reference
from svitkit.compress.evaluate import Batch, RightAnswers
from svitkit.compress.journal import Measurement, plan_key
from svitkit.compress.layer_costs import macs_costs
from svitkit.compress.token_plan import TokenPlan
from svitkit.models.tokens import reduce_tokens

PROBE = "probe"


def build(model: nn.Module, plan: TokenPlan) -> nn.Module:
    """Returns a copy of a network with fewer tokens."""
    functional.reset_net(model)
    small = copy.deepcopy(model)
    reduce_tokens(small, plan.reductions)
    return small


def operations(model: nn.Module, example: torch.Tensor) -> float:
    """Counts the multiply-accumulates of one inference: dense, over all time steps.

    Args:
        model: the network, in evaluation mode.
        example: (T, 1, C, H, W) float32, any input of the right shape.
    """
    return sum(cost.weights + cost.outputs for cost in macs_costs(model, example).values())


class TokenCandidates:
    """Measures the accuracy of networks with fewer tokens on the validation split."""

    def __init__(self, model: nn.Module, validation: list[Batch], *, size: int, stops: bool) -> None:
        """Keeps what all candidates share.

        Args:
            model: the network before.
            validation: batches on which decisions are made, in random order.
            size: bytes of the deployed parameters, the same for all.
            stops: whether an evaluation may end where the floor is missed.
        """
        self._model, self._size = model, size
        self._answers = RightAnswers(model, validation, stops=stops)

    def measure(self, plan: TokenPlan, *, floor: float | None = None) -> Measurement:
        """Measures a candidate; how far it is below ``floor`` percent need not be known."""
        tally = self._answers.count(build(self._model, plan), floor)
        return Measurement(
            key=plan_key(plan), accuracy=tally.accuracy(), parameter_bytes=self._size, stopped=tally.stopped()
        )

    def prepare(self) -> None:
        """Finds out which images the whole network gets right."""
        self._answers.prepare()


class TokenProbes:
    """Measures how far the answers of networks with fewer tokens are from the whole network's, on a few images."""

    def __init__(self, model: nn.Module, batches: list[Batch], *, size: int) -> None:
        """Runs the whole network once.

        Args:
            model: the network before.
            batches: images of the validation split, with labels.
            size: bytes of the deployed parameters.
        """
        self._model, self._size = model, size
        self._reference = Reference(model, batches)

    def measure(self, plan: TokenPlan, *, floor: float | None = None) -> Measurement:
        """Measures a candidate whole, whatever ``floor`` is."""
        divergence, accuracy = self._reference.compare(build(self._model, plan))
        key = plan_key(plan, PROBE)
        return Measurement(key=key, accuracy=accuracy, parameter_bytes=self._size, divergence=divergence)

    def prepare(self) -> None:
        """Has everything already."""
