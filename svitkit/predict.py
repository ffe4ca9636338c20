"""How long a network will take on a board, before it is built: what a search for speed asks for every candidate.

The network is exported and lowered as a build would do it, with the firing rates of calibration inputs; then the cost
model of the board's CPU adds up the kernel calls. No machine code is made. :func:`predict_latency` takes seconds, most
of them for the export; a :class:`PlanPredictor` exports once, and then takes a hundredth of that for a prune plan.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svitkit.boards.board import Board
from svitkit.boards.devices import check_predictable
from svitkit.errors import UnsupportedError
from svitkit.models.attention import free_widths, separate_widths
from svitkit.models.plan import PrunedGroup, PruneGroup, PrunePlan, apply_plan, removed_indices
from svitkit.proven import calibration_images

if TYPE_CHECKING:
    import torch

    from svitkit.data.dataset import Dataset
    from svitkit.models.checkpoint import Checkpoint
    from svitkit.runtime.cost_model import CostModel
    from svitkit.runtime.import_onnx import Graph
    from svitkit.runtime.prediction import CallPrediction
    from svitkit.runtime.program import Program

LIST = "list"
"""The kernel that lists events."""


@dataclass(frozen=True, kw_only=True)
class LatencyEstimate:
    """The predicted time of one inference on one thread.

    Attributes:
        board: where.
        source: where the costs are from: ``measured on ...`` or ``estimated by ...``.
        clock_mhz: of the core; None where it is not known, as under an emulator.
        calls: every kernel call, in the order of execution.
    """

    board: str
    source: str
    clock_mhz: float | None
    calls: tuple[CallPrediction, ...]

    @property
    def total_cycles(self) -> float:
        """Cycles of all calls: what estimates of one board are compared by, whether its clock is known or not."""
        return sum(call.cycles for call in self.calls)

    @property
    def per_layer_cycles(self) -> Mapping[str, float]:
        """Cycles by layer, in the order of execution.

        A layer with weights has its name in the trained network; the neurons fused into it are part of it, and lists
        of events belong to the first layer that reads them. Other calls have the name of their layer of neurons, or the
        graph's own.
        """
        cycles: dict[str, float] = {}
        listed = 0.0
        for call in self.calls:
            if call.kernel == LIST:
                listed += call.cycles
            else:
                cycles[call.layer] = cycles.get(call.layer, 0.0) + listed + call.cycles
                listed = 0.0
        return cycles

    @property
    def total_ns(self) -> float | None:
        """Nanoseconds of an inference; None where the clock is not known."""
        return self._nanoseconds(self.total_cycles)

    @property
    def per_layer_ns(self) -> Mapping[str, float] | None:
        """Nanoseconds by layer, see :attr:`per_layer_cycles`; None where the clock is not known."""
        if self.clock_mhz is None:
            return None
        return {layer: cycles / self.clock_mhz * 1e3 for layer, cycles in self.per_layer_cycles.items()}

    def speedup_over(self, other: LatencyEstimate) -> float:
        """How many times as fast this network is as another one on the same board."""
        return other.total_cycles / self.total_cycles

    def _nanoseconds(self, cycles: float) -> float | None:
        return None if self.clock_mhz is None else cycles / self.clock_mhz * 1e3


def predict_latency(checkpoint: Checkpoint, board: Board, calibration: torch.Tensor) -> LatencyEstimate:
    """Predicts how long an inference of a network takes on one thread.

    Args:
        checkpoint: the network, pruned or not, with float or integer weights.
        board: where it is to run.
        calibration: (T, N, C, H, W) float32, normalized inputs on which firing rates are measured.

    Raises:
        UnsupportedError: the network cannot be exported or lowered, or nothing is known about the costs of the CPU.
    """
    from svitkit.runtime.cost_model import cost_model
    from svitkit.runtime.pipeline import lower_network

    costs = cost_model(board)
    return _estimate(lower_network(_export(checkpoint, calibration), board), board, costs)


class PlanPredictor:
    """Predicts what prune plans make of a network.

    Every plan is taken to leave firing rates as they are. Where a network's code does not follow a width by sizes alone
    the pruned network is exported, which takes as long as :func:`predict_latency`.
    """

    def __init__(self, checkpoint: Checkpoint, board: Board, calibration: torch.Tensor) -> None:
        """Exports the network; the arguments and errors are those of :func:`predict_latency`."""
        from svitkit.runtime.cost_model import cost_model
        from svitkit.runtime.pipeline import most_parts
        from svitkit.runtime.resize import template
        from svitkit.runtime.vector_unit import vector_unit

        self._checkpoint, self._board, self._calibration = checkpoint, board, calibration
        self._costs = cost_model(board)
        model = copy.deepcopy(checkpoint.model)
        free_widths(model)
        separate_widths(model)
        graph = _export(dataclasses.replace(checkpoint, model=model), calibration)
        self._template = template(graph, unit=vector_unit(board), costs=self._costs, parts=most_parts(board))

    def predict(self, plan: PrunePlan) -> LatencyEstimate:
        """Predicts the network without the channels that a plan removes.

        Args:
            plan: in the numbering of the network that the predictor was made for.

        Raises:
            UnsupportedError: the pruned network cannot be exported or lowered.
        """
        from svitkit.runtime.resize import lower_resized

        try:
            return _estimate(
                lower_resized(self._template, removed_indices(self._checkpoint.model, plan)), self._board, self._costs
            )
        except UnsupportedError:
            model = copy.deepcopy(self._checkpoint.model)
            apply_plan(model, plan)
            pruned = dataclasses.replace(self._checkpoint, model=model)
            return predict_latency(pruned, self._board, self._calibration)


class LatencyCosts:
    """What the networks of a search would take, in cycles of one thread.

    A layer's cycles follow from the widths of few groups and are predicted once for all widths of these, so that a
    search that asks for ten thousands of plans needs some hundred predictions. What a layer saves because another one
    has listed their events already is the only thing that may be taken over wrongly.

    Attributes:
        unit: names the board.
        total: cycles of the network without a plan.
    """

    def __init__(self, predictor: PlanPredictor) -> None:
        """Predicts the network as it is."""
        self._predictor = predictor
        whole = predictor.predict(PrunePlan())
        self.unit = f"cycles on {whole.board}, {whole.source}"
        self._whole = whole.per_layer_cycles
        self.total = sum(self._whole.values())
        self._moved: dict[str, set[str]] = {}
        self._cycles: dict[str, dict[tuple[tuple[str, int], ...], float]] = {}
        for layer, cycles in self._whole.items():
            self._cycles[layer] = {(): cycles}

    def of(self, plan: PrunePlan) -> float:
        """Returns the cycles of a network after a plan.

        Raises:
            UnsupportedError: the pruned network cannot be exported or lowered.
        """
        for pruned in plan.groups:
            if pruned.group.name not in self._moved:
                self._moved[pruned.group.name] = self._layers_of(pruned.group)
        keys = self._keys(plan)
        if any(key not in self._cycles[layer] for layer, key in keys.items()):
            predicted = self._predictor.predict(plan).per_layer_cycles
            for layer in set(predicted) - set(keys):
                self._admit(layer)
            keys = self._keys(plan)
            for layer, key in keys.items():
                self._cycles[layer][key] = predicted.get(layer, 0.0)
        return sum(self._cycles[layer][key] for layer, key in keys.items())

    def _layers_of(self, group: PruneGroup) -> set[str]:
        """Returns the layers whose cycles change when a group becomes as narrow as can be."""
        size = group.channels // group.blocks
        thin = PrunedGroup(group=group, kept=tuple(range(0, group.channels, size)))
        predicted = self._predictor.predict(PrunePlan(groups=(thin,))).per_layer_cycles
        for layer in set(predicted) - set(self._cycles):
            self._admit(layer)
        return {layer for layer in self._cycles if predicted.get(layer, 0.0) != self._whole.get(layer, 0.0)}

    def _admit(self, layer: str) -> None:
        """Takes in a layer that the whole network has not, a list of events for example; any group may move it."""
        self._cycles[layer] = {(): 0.0}
        for layers in self._moved.values():
            layers.add(layer)

    def _keys(self, plan: PrunePlan) -> dict[str, tuple[tuple[str, int], ...]]:
        """Returns for every layer the widths that it depends on."""
        widths = sorted((pruned.group.name, len(pruned.kept)) for pruned in plan.groups)
        return {layer: tuple(each for each in widths if layer in self._moved[each[0]]) for layer in self._cycles}


def latency_costs(checkpoint: Checkpoint, dataset: Dataset, board: Board) -> LatencyCosts:
    """Returns the costs of plans on a board, with the firing rates of training images.

    Args:
        checkpoint: the network that is to be searched.
        dataset: data that fit it.
        board: where it is to run.

    Raises:
        ConfigError: the board is none that has a CPU of its own.
        UnsupportedError: the network cannot be exported or lowered, or nothing is known about the costs of the CPU.
    """
    check_predictable(board, "cpu")
    return LatencyCosts(PlanPredictor(checkpoint, board, calibration_images(checkpoint, dataset)))


def _estimate(program: Program, board: Board, costs: CostModel) -> LatencyEstimate:
    from svitkit.runtime.prediction import predict_calls

    calls = predict_calls(program, costs)
    return LatencyEstimate(board=board.name, source=costs.table.source, clock_mhz=costs.clock_mhz, calls=calls)


def _export(checkpoint: Checkpoint, calibration: torch.Tensor) -> Graph:
    from svitkit.export.pipeline import export_onnx
    from svitkit.runtime.import_onnx import import_onnx

    with tempfile.TemporaryDirectory(prefix="svitkit-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(checkpoint, path, calibration=calibration)
        return import_onnx(path)
