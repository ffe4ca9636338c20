"""Networks of the benchmarks with channels removed: their widths become uneven, as pruning leaves them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch

from svitkit.compress.groups import find_groups
from svitkit.compress.importance import filter_norms, keep_strongest
from svitkit.compress.recalibrate import normalize_to
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.plan import PrunePlan, apply_plan
from svitkit.models.run import example_input


def prune(
    checkpoint: Checkpoint,
    ratio: float,
    inputs: torch.Tensor,
    *,
    chosen: Callable[[str], bool] = lambda name: True,
    multiple: int = 1,
) -> Checkpoint:
    """Removes the weakest channels by L2 norm, the same fraction of every chosen group.

    Args:
        checkpoint: an unpruned network; it is not changed.
        ratio: fraction removed, 0..1.
        inputs: (T, N, C, H, W) float32, on which the batch norms are estimated again.
        chosen: whether a group of that name is pruned.
        multiple: the channels that are left divide by it.
    """
    model = copy.deepcopy(checkpoint.model)
    groups = [found for found in find_groups(model, example_input(checkpoint.spec)) if found.prunable]
    kept = [
        keep_strongest(found.group, filter_norms(model, found), ratio, multiple=multiple)
        for found in groups
        if chosen(found.group.name)
    ]
    plan = PrunePlan(groups=tuple(pruned for pruned in kept if pruned is not None))
    apply_plan(model, plan)
    normalize_to(model, [inputs])
    return Checkpoint(model=model.eval(), spec=replace(checkpoint.spec, plan=plan))
