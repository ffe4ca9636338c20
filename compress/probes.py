"""Candidates on a few images, measured by how far their answers are from the whole network's."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from svitkit.compress.divergence import Reference
from svitkit.compress.evaluate import Batch, Repair
from svitkit.compress.journal import Measurement, plan_key
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.size import parameter_bytes


class Probes:
    """Builds pruned versions of one network and measures their divergence."""

    def __init__(self, model: nn.Module, batches: Sequence[Batch], repair: Repair, *, stage: str) -> None:
        """Keeps what all candidates share.

        Args:
            model: the network before this search; it is not changed.
            batches: images of the validation split, with labels.
            repair: what is done to a network after channels were removed.
            stage: of the search, for the measurements' keys.
        """
        self._model, self._repair, self._stage = model, repair, stage
        self._example = batches[0][0][:, :1]
        self._reference = Reference(model, batches)

    def measure(self, plan: PrunePlan, *, floor: float | None = None) -> Measurement:
        """Measures a candidate whole, whatever ``floor`` is."""
        model = copy.deepcopy(self._model)
        if plan.groups:
            apply_plan(model, plan)
            self._repair(model, plan)
        divergence, accuracy = self._reference.compare(model)
        size = parameter_bytes(model, self._example)
        key = plan_key(plan, self._stage)
        return Measurement(key=key, accuracy=accuracy, parameter_bytes=size, divergence=divergence)

    def prepare(self) -> None:
        """Has everything already."""
