"""The methods of compression that are compared: svitkit's own by name, and baselines.

``primesvt`` prunes until ``min_saving`` is reached, as the paper does, and estimates batch norms again on 512 training
images; ``primesvt-old-bn`` keeps the statistics of the whole network; ``primesvt-max`` goes on for as long as accuracy
allows. ``svitkit-latency`` is our own method with the time on this machine as its objective. ``uniform`` removes one
fraction of every group that can be pruned, the channels of the lowest L2 norm, and ``torch-pruning`` what
Torch-Pruning's MagnitudePruner removes at one fraction; both search the largest fraction within the constraint by
bisection, with batch norms estimated again. Every other name is one of ``svitkit compress --method`` with its defaults.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.compressions import Point, pareto
from benchmarks.torch_pruning_peer import prunable_layers, prune_uniformly
from svitkit.boards.board import load_board
from svitkit.compress.compose import compose
from svitkit.compress.evaluate import Candidates, accuracy, load_batches
from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.journal import JOURNAL_NAME
from svitkit.compress.options import INTEGER_METHODS, METHODS
from svitkit.compress.pipeline import compress_model
from svitkit.compress.recalibrate import Recalibration, normalize_to
from svitkit.compress.report import PruneReport
from svitkit.data.dataset import Dataset
from svitkit.errors import unknown_name
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunePlan
from svitkit.models.run import example_input
from svitkit.models.size import parameter_bytes
from svitkit.predict import latency_costs

BN_IMAGES = 512
STEPS = 6
"""Bisections: the fraction is found to 1/64."""
MULTIPLE = 4
VARIANTS: dict[str, tuple[str, int, dict[str, object]]] = {
    "primesvt": ("primesvt", BN_IMAGES, {}),
    "primesvt-old-bn": ("primesvt", 0, {}),
    "primesvt-max": ("primesvt", BN_IMAGES, {"stop_at_saving": False}),
}
LATENCY = "svitkit-latency"
BASELINES = ("uniform", "torch-pruning")
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every method is asked for.

    Attributes:
        checkpoint: the network.
        data: fitting it, with the validation images that decisions are taken on.
        max_drop: points of validation accuracy that may be lost.
        min_saving: fraction of the parameter bytes to save at least.
        work: folder for what a method writes.
    """

    checkpoint: Checkpoint
    data: Dataset
    max_drop: float
    min_saving: float
    work: Path


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """What a method found.

    Attributes:
        checkpoint: the smaller network; ``torch-pruning``'s has no plan, and can be exported but not saved.
        before, after: accuracy on the validation images, in percent.
        points: what the search measured.
        predicted_speedup: times as fast as before, by the search's own account; None if it predicts no time.
        trainable: whether it can be fine-tuned.
        reasons: what had to be done to get it.
    """

    checkpoint: Checkpoint
    before: float
    after: float
    points: tuple[Point, ...]
    predicted_speedup: float | None = None
    trainable: bool = True
    reasons: dict[str, str]


def method_names() -> tuple[str, ...]:
    """Returns every name that :func:`compress_with` knows."""
    return tuple(dict.fromkeys((*VARIANTS, *METHODS, LATENCY, *BASELINES)))


def compress_with(method: str, task: Task, advance: Advance) -> Compressed:
    """Compresses a network.

    Args:
        method: a name of :func:`method_names`.
        task: what is asked for.
        advance: told the stage, how much of it is done, and how much there is.

    Raises:
        ConfigError: the name is unknown.
        UnavailableError: a peer cannot compress this network.
    """
    if method not in method_names():
        raise unknown_name("method", method, method_names())
    if method == "uniform":
        return _uniform(task, advance)
    if method == "torch-pruning":
        return _torch_pruning(task, advance)
    return _own(method, task, advance)


def _own(method: str, task: Task, advance: Advance) -> Compressed:
    fast = method == LATENCY
    plain = "svitkit" if fast else method
    default: tuple[str, int, dict[str, object]] = (plain, BN_IMAGES if plain in INTEGER_METHODS else 0, {})
    name, bn_images, settings = VARIANTS.get(method, default)
    out = task.work / method
    result = compress_model(
        task.checkpoint,
        task.data,
        out,
        method=name,
        max_drop=task.max_drop,
        min_saving=task.min_saving,
        bn_recalibration=bn_images,
        settings=settings,
        objective="latency" if fast else None,
        costs=latency_costs(task.checkpoint, task.data, load_board("host")) if fast else None,
        progress=advance,
    )
    spent = result.report.objective
    return Compressed(
        checkpoint=result.checkpoint,
        before=result.report.before.validation,
        after=result.report.after.validation,
        points=_journal_points(out / JOURNAL_NAME, result.report),
        predicted_speedup=spent.before / spent.after if fast and spent else None,
        trainable=name not in INTEGER_METHODS,
        reasons={},
    )


def _journal_points(path: Path, report: PruneReport) -> tuple[Point, ...]:
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    # of an evaluation that was stopped one knows only that it missed its floor
    measured = [entry for entry in entries if entry["key"].startswith("validation, ") and entry.get("stopped") is None]
    size, reached = report.original_parameter_bytes, report.before.validation
    return pareto(
        [Point(saving=1 - entry["parameter_bytes"] / size, lost=reached - entry["accuracy"]) for entry in measured]
    )


def _uniform(task: Task, advance: Advance) -> Compressed:
    model, spec = task.checkpoint.model, task.checkpoint.spec
    found = [group for group in find_groups(model, example_input(spec)) if group.prunable]
    norms = [filter_norms(model, group) for group in found]
    validation = load_batches(task.data, "validation", timesteps=spec.timesteps)
    candidates = Candidates(model, validation, Recalibration(_calibration(task)))

    def plan_at(ratio: float) -> PrunePlan:
        chosen = (
            keep_strongest(group.group, norm, ratio, multiple=MULTIPLE)
            for group, norm in zip(found, norms, strict=True)
        )
        return PrunePlan(groups=tuple(pruned for pruned in chosen if pruned is not None))

    plans = {ratio: plan_at(ratio) for ratio in _fractions()}

    def measure(ratio: float) -> tuple[float, int]:
        smaller = candidates.build(plans[ratio])
        return accuracy(smaller, validation), candidates.size(smaller)

    search = _Bisection(task, accuracy(model, validation), candidates.size(model))
    ratio = search.run(measure, advance)
    plan = plans[ratio] if ratio else PrunePlan()
    spec = replace(spec, plan=compose(spec.plan, plan) if plan.groups else spec.plan)
    smaller = Checkpoint(model=candidates.build(plan), spec=spec)
    return search.result(smaller, ratio, {})


def _torch_pruning(task: Task, advance: Advance) -> Compressed:
    model, spec = task.checkpoint.model, task.checkpoint.spec
    x = example_input(spec, batch=2)
    without_attention, reason = prunable_layers(model, x, 0.5)
    validation = load_batches(task.data, "validation", timesteps=spec.timesteps)
    calibration = _calibration(task)
    made: dict[float, nn.Module] = {0.0: model}

    def measure(ratio: float) -> tuple[float, int]:
        made[ratio] = prune_uniformly(model, x, ratio, without_attention=without_attention)
        normalize_to(made[ratio], calibration)
        return accuracy(made[ratio], validation), parameter_bytes(made[ratio], x[:, :1])

    search = _Bisection(task, accuracy(model, validation), parameter_bytes(model, x[:, :1]))
    ratio = search.run(measure, advance)
    reasons = {"torch-pruning": f"layers inside attention left out; {reason}"} if reason else {}
    return search.result(Checkpoint(model=made[ratio], spec=spec), ratio, reasons)


class _Bisection:
    """The search for the largest fraction that keeps the accuracy."""

    def __init__(self, task: Task, before: float, size: int) -> None:
        self.task, self.before = task, before
        self.original = task.checkpoint.spec.original_parameter_bytes or size
        self.measured: dict[float, tuple[float, int]] = {0.0: (before, size)}

    def run(self, measure: Callable[[float], tuple[float, int]], advance: Advance) -> float:
        """Returns the fraction; 0 if even the smallest loses too much.

        Where rounding leaves a larger fraction with more channels than a smaller one, the search goes on below it.
        """
        fractions = [0.0, *_fractions()]
        low, high = 0, len(fractions)  # low keeps the accuracy; high loses it, or is not smaller
        for step in range(STEPS):
            advance("bisect", step, STEPS)
            middle = (low + high) // 2
            reached, size = self.measured[fractions[middle]] = measure(fractions[middle])
            smaller = size < self.measured[fractions[low]][1]
            if smaller and self.before - reached <= self.task.max_drop:
                low = middle
            else:
                high = middle
        advance("bisect", STEPS, STEPS)
        return fractions[low]

    def result(self, checkpoint: Checkpoint, ratio: float, reasons: dict[str, str]) -> Compressed:
        """Puts together what was found at a fraction."""
        points = [
            Point(saving=1 - size / self.original, lost=self.before - reached)
            for reached, size in self.measured.values()
        ]
        found = {**reasons, "ratio": f"{ratio:g} of the channels removed"}
        return Compressed(
            checkpoint=checkpoint,
            before=self.before,
            after=self.measured[ratio][0],
            points=pareto(points),
            reasons=found,
        )


def _fractions() -> list[float]:
    return [at / 2**STEPS for at in range(1, 2**STEPS)]


def _calibration(task: Task) -> list[torch.Tensor]:
    timesteps = task.checkpoint.spec.timesteps
    return [x for x, _ in load_batches(task.data, "train", timesteps=timesteps, limit=BN_IMAGES)]
