"""The ways of leaving out tokens or weights that are compared.

``dense`` is the network as it is. ``token-skip``, ``token-select`` and ``lottery`` are svitkit's methods of these
names. ``skip-difference`` is the first with TP-Spikformer's score alone; ``skip-random`` keeps as many tokens in every
block as ``token-skip`` found, drawn at random once; ``select-random`` is ``token-select`` with tokens drawn at random
once, trained equally long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from benchmarks.compress_methods import Advance, Task
from svitkit.compress.evaluate import accuracy, load_batches
from svitkit.compress.options import CONFIGS, LOTTERY, SELECT, SKIP
from svitkit.compress.pipeline import compress_model
from svitkit.compress.report import REPORT_NAME, PruneReport
from svitkit.compress.token_candidates import build
from svitkit.compress.token_plan import TokenPlan
from svitkit.errors import ConfigError, unknown_name
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint

OWN: dict[str, tuple[str, dict[str, object]]] = {
    SKIP: (SKIP, {}),
    "skip-difference": (SKIP, {"criteria": "difference"}),
    SELECT: (SELECT, {}),
    "select-random": (SELECT, {"criterion": "random"}),
    LOTTERY: (LOTTERY, {}),
}
RANDOM = "skip-random"


@dataclass(frozen=True, kw_only=True)
class Spared:
    """What a method found.

    Attributes:
        checkpoint: the network.
        before, after: accuracy on the validation images, in percent.
        report: of svitkit's own methods.
    """

    checkpoint: Checkpoint
    before: float
    after: float
    report: PruneReport | None = None


def method_names() -> tuple[str, ...]:
    """Returns every name that :func:`spare_with` knows."""
    return ("dense", *OWN, RANDOM)


def spare_with(
    method: str, task: Task, settings: Mapping[str, object], advance: Advance, *, skipping: Path | None = None
) -> Spared:
    """Leaves out tokens or weights.

    Args:
        method: a name of :func:`method_names`.
        task: what is asked for.
        settings: of svitkit's own methods, each for those that know it, where they are not the defaults.
        advance: told the stage, how much of it is done, and how much there is.
        skipping: what ``token-skip`` made before; None to search again.

    Raises:
        ConfigError: the name is unknown.
    """
    if method in OWN:
        return _own(method, task, settings, advance)
    others: dict[str, Callable[[], Spared]] = {
        "dense": lambda: _as_it_is(task),
        RANDOM: lambda: _skip_randomly(task, _skipping(task, settings, advance, skipping)),
    }
    if method not in others:
        raise unknown_name("method", method, method_names())
    return others[method]()


def known_settings(name: str) -> tuple[str, ...]:
    """Returns the settings of one of svitkit's own methods."""
    return tuple(field.name for field in fields(CONFIGS[name]))


def read_made(folder: Path, original: Checkpoint) -> Spared:
    """Reads what ``svitkit compress`` made of a network.

    Raises:
        ConfigError: the folder holds no checkpoint, or one with no report, or one made of another network.
    """
    path = folder / REPORT_NAME
    if not path.is_file():
        raise ConfigError(f"'{folder}' has no {REPORT_NAME}. Name what 'svitkit compress' wrote.")
    report = from_json(path.read_bytes(), PruneReport, source=str(path))
    small = load_checkpoint(folder)
    if small.spec.original_parameter_bytes != original.spec.original_parameter_bytes:
        raise ConfigError(f"'{folder}' was made of another network than the one that it is compared with.")
    return Spared(checkpoint=small, before=report.before.validation, after=report.after.validation, report=report)


def _own(method: str, task: Task, settings: Mapping[str, object], advance: Advance) -> Spared:
    name, own = OWN[method]
    result = compress_model(
        task.checkpoint,
        task.data,
        task.work / method,
        method=name,
        max_drop=task.max_drop,
        settings={**{key: value for key, value in settings.items() if key in known_settings(name)}, **own},
        progress=advance,
    )
    report = result.report
    return Spared(
        checkpoint=result.checkpoint, before=report.before.validation, after=report.after.validation, report=report
    )


def _as_it_is(task: Task) -> Spared:
    reached = _validation(task, task.checkpoint)
    return Spared(checkpoint=task.checkpoint, before=reached, after=reached)


def _skipping(task: Task, settings: Mapping[str, object], advance: Advance, made: Path | None) -> Checkpoint:
    return (
        _own(SKIP, task, settings, advance).checkpoint if made is None else read_made(made, task.checkpoint).checkpoint
    )


def _skip_randomly(task: Task, found: Checkpoint) -> Spared:
    plan = TokenPlan(reductions=tuple(replace(each, criterion="random") for each in found.spec.tokens))
    spec = replace(task.checkpoint.spec, tokens=plan.reductions)
    small = Checkpoint(model=build(task.checkpoint.model, plan), spec=spec)
    return Spared(checkpoint=small, before=_validation(task, task.checkpoint), after=_validation(task, small))


def _validation(task: Task, checkpoint: Checkpoint) -> float:
    images = load_batches(task.data, "validation", timesteps=checkpoint.spec.timesteps)
    return accuracy(checkpoint.model, images)
