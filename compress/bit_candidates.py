"""Candidates of a search for bits: quantized with calibration images, and measured."""

from __future__ import annotations

from torch import nn

from svitkit.compress.bits import BitPlan
from svitkit.compress.drift import DriftGauge
from svitkit.compress.evaluate import Batch, RightAnswers
from svitkit.compress.journal import Measurement, plan_key
from svitkit.compress.membranes import membrane_grids, with_membranes
from svitkit.compress.quantize import CalibratedRounding, QuantizedNetwork
from svitkit.models.size import parameter_bytes

GATE = "gate"


def build(rounding: CalibratedRounding, plan: BitPlan) -> QuantizedNetwork:
    """Returns the network with the bits of a plan."""
    return with_plan_membranes(rounding.quantize(plan.bits()), rounding, plan)


def with_plan_membranes(network: QuantizedNetwork, rounding: CalibratedRounding, plan: BitPlan) -> QuantizedNetwork:
    """Returns a network with the membranes of a plan."""
    if plan.membranes is None:
        return network
    grids = membrane_grids(network.model, plan.membranes)
    return with_membranes(network, list(rounding.layers.values()), grids)


class BitCandidates:
    """Measures the accuracy of quantized networks on the validation split."""

    def __init__(
        self,
        model: nn.Module,
        rounding: CalibratedRounding,
        validation: list[Batch],
        *,
        stops: bool,
        sparse: bool = False,
    ) -> None:
        """Keeps what all candidates share.

        Args:
            model: the network before.
            rounding: makes a candidate of it.
            validation: batches on which decisions are made, in random order.
            stops: whether an evaluation may end where the floor is missed.
            sparse: whether layers are stored without zeros where that is smaller.
        """
        self._rounding, self._example, self._sparse = rounding, validation[0][0][:, :1], sparse
        self._answers = RightAnswers(model, validation, stops=stops)

    def measure(self, plan: BitPlan, *, floor: float | None = None) -> Measurement:
        """Measures a candidate; how far it is below ``floor`` percent need not be known."""
        small = build(self._rounding, plan)
        tally = self._answers.count(small.model, floor)
        size = parameter_bytes(small.model, self._example, small.spec, sparse=self._sparse)
        return Measurement(key=plan_key(plan), accuracy=tally.accuracy(), parameter_bytes=size, stopped=tally.stopped())

    def prepare(self) -> None:
        """Finds out which images the whole network gets right."""
        self._answers.prepare()


class DriftProbes:
    """Measures how far the membrane potentials of quantized networks drift, on a few images."""

    def __init__(self, model: nn.Module, rounding: CalibratedRounding, images: Batch, *, sparse: bool = False) -> None:
        """Runs the network before once.

        Args:
            model: the network before.
            rounding: makes a candidate of it.
            images: (T, N, C, H, W) float32 of the validation split, and labels.
            sparse: whether layers are stored without zeros where that is smaller.
        """
        self._rounding, self._example, self._sparse = rounding, images[0][:, :1], sparse
        self._gauge = DriftGauge(model, images)

    def measure(self, plan: BitPlan, *, floor: float | None = None) -> Measurement:
        """Measures a candidate whole, whatever ``floor`` is."""
        small = build(self._rounding, plan)
        drift = self._gauge.compare(small.model)
        size = parameter_bytes(small.model, self._example, small.spec, sparse=self._sparse)
        key = plan_key(plan, GATE)
        return Measurement(key=key, accuracy=drift.accuracy, parameter_bytes=size, drift=drift.potentials)

    def prepare(self) -> None:
        """Has everything already."""
