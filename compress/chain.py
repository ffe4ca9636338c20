"""Several methods one after the other under one budget of accuracy: pruning first, integers last.

The methods share ``max_drop``: the pruning may spend a part of it, and the search for bits what is left. A search for
bits that ends with the fewest everywhere leaves nothing to gain, so the pruning gets all of the budget at first, and
only where layers keep more bits less of it, ``SHARES`` one after the other. The smallest network within the limits is
taken. ``lottery`` trains a ladder of networks, so that a chain with it has one attempt only. Every step is a search of
its own with a journal, in a folder beside the result while the work is under way.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from svitkit.compress.directory import prepare_directory
from svitkit.compress.options import CONFIGS, INTEGER_METHODS, LOTTERY, METHODS, SELECT, SKIP
from svitkit.compress.report import REPORT_NAME, PruneReport, StepReport, outcome_text
from svitkit.errors import ConfigError, unknown_name
from svitkit.files import staged_directory
from svitkit.manifest import to_json
from svitkit.models.checkpoint import Checkpoint

SHARES = (1.0, 0.5, 0.25)
PRUNING = ("svitkit", "primesvt")
"""Methods that remove channels; they may be followed by fine-tuning of their own."""
TOKENS = (SKIP, SELECT)
"""Methods that reduce tokens."""
FLOAT = (*PRUNING, LOTTERY, *TOKENS)
"""Methods that another one may follow."""
STEPS_SUFFIX = ".steps"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one method of several made."""

    checkpoint: Checkpoint
    report: PruneReport
    folder: Path


Run = Callable[..., tuple[Checkpoint, PruneReport]]
"""Runs one method: checkpoint, folder, method, max_drop, min_saving, settings."""


def method_chain(text: str) -> tuple[str, ...]:
    """Reads the names of methods, divided by commas.

    Raises:
        ConfigError: a name is unknown or stands twice, a method that gives integers is not the last one, one that
            removes channels follows ``lottery``, or one that prunes follows one that reduces tokens.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
        if names.count(name) > 1:
            raise ConfigError(f"method '{name}' stands twice in '{text}'. Name it once.")
    for name in names[:-1]:
        if name not in FLOAT:
            raise ConfigError(
                f"method '{name}' makes the weights integers, and no other method can follow it. "
                f"Put it last, and others ({', '.join(FLOAT)}) before it."
            )
    if LOTTERY in names[:-1] and names[names.index(LOTTERY) + 1] in PRUNING:
        raise ConfigError(
            f"method '{names[names.index(LOTTERY) + 1]}' would fill weights again that '{LOTTERY}' made 0. "
            f"Put '{LOTTERY}' behind it."
        )
    reducing = [at for at, name in enumerate(names) if name in TOKENS]
    if len(reducing) > 1 or any(name in (*PRUNING, LOTTERY) for at in reducing for name in names[at + 1 :]):
        raise ConfigError(
            f"'{text}': channels and weights are removed from the network with all its tokens, and tokens are reduced "
            f"once. Name one of {', '.join(TOKENS)}, behind the methods that prune."
        )
    return names


def run_chain(
    checkpoint: Checkpoint,
    out: Path,
    methods: Sequence[str],
    run: Run,
    *,
    max_drop: float,
    min_saving: float,
    settings: Mapping[str, object],
    resume: bool,
) -> tuple[Checkpoint, PruneReport]:
    """Runs methods one after the other, and writes the smallest network within the limits.

    Args:
        checkpoint: the network.
        out: the directory to write.
        methods: two or more.
        run: runs one of them.
        max_drop: points of accuracy on the validation split that all of them together may lose.
        min_saving: fraction of the original parameter bytes that must go.
        settings: of any of the methods.
        resume: go on with what a stopped run left.

    Raises:
        ConfigError: a setting is of none of the methods, or the directories hold something else.
    """
    told = {method: _settings_of(method, settings) for method in methods}
    unused = set(settings).difference(*told.values())
    if unused:
        known = sorted({name for method in methods for name in _names(method)})
        raise unknown_name("setting", sorted(unused)[0], known)
    prepare_directory(out, resume=resume)
    work = out.with_name(f"{out.name}{STEPS_SUFFIX}")
    if work.exists() and not resume:
        raise ConfigError(f"'{work}' was left by a run that did not finish. Go on with it (--resume), or remove it.")
    attempts: list[list[Step]] = []
    for at, share in enumerate(SHARES[:1] if LOTTERY in methods else SHARES):
        steps = _attempt(checkpoint, work / str(at), methods, run, told, share=share, max_drop=max_drop)
        attempts.append(steps)
        if _cannot_gain(steps[-1].report):
            break
    first = attempts[0][0].report
    best = min(attempts, key=lambda steps: _rank(steps[-1].report, first, max_drop))
    report = _joined(best, methods, max_drop=max_drop, min_saving=min_saving)
    with staged_directory(out) as staged:
        shutil.copytree(best[-1].folder, staged, dirs_exist_ok=True)
        (staged / REPORT_NAME).write_text(to_json(report, PruneReport), encoding="utf-8")
    shutil.rmtree(work)
    return best[-1].checkpoint, report


def _attempt(
    checkpoint: Checkpoint,
    folder: Path,
    methods: Sequence[str],
    run: Run,
    told: Mapping[str, Mapping[str, object]],
    *,
    share: float,
    max_drop: float,
) -> list[Step]:
    """Runs all methods; those before the last may spend a share of what is left, the last one all of it."""
    steps: list[Step] = []
    left = max_drop
    for at, method in enumerate(methods):
        budget = left if at == len(methods) - 1 else share * left
        target = folder / f"{at}-{method}"
        before = steps[-1].checkpoint if steps else checkpoint
        aim = None if method == "primesvt" else 0.0  # it prunes no farther than it must
        small, report = run(before, target, method, max_drop=max(0.0, budget), min_saving=aim, settings=told[method])
        steps.append(Step(checkpoint=small, report=report, folder=target))
        left -= report.before.validation - report.after.validation
    return steps


def _cannot_gain(report: PruneReport) -> bool:
    """Whether no layer but the first and the last could have had fewer bits."""
    inner = [layer.bits for layer in report.layers[1:-1]]
    widths: tuple[int, ...] = getattr(report.settings, "widths", ())
    return not inner or not widths or max(inner) == min(widths)


def _rank(report: PruneReport, first: PruneReport, max_drop: float) -> tuple[bool, int]:
    drop = first.before.validation - report.after.validation
    return drop > max_drop, report.parameter_bytes_after


def _joined(steps: Sequence[Step], methods: Sequence[str], *, max_drop: float, min_saving: float) -> PruneReport:
    first, last = steps[0].report, steps[-1].report
    drop = first.before.validation - last.after.validation
    original = last.original_parameter_bytes
    sizes = [first.parameter_bytes_before, *(step.report.parameter_bytes_after for step in steps)]
    return replace(
        last,
        method=",".join(methods),
        satisfied=drop <= max_drop and last.memory_saving >= min_saving,
        why=outcome_text(last.memory_saving, drop, min_saving=min_saving, max_drop=max_drop),
        finetune_epochs=first.finetune_epochs,
        before=first.before,
        parameter_bytes_before=first.parameter_bytes_before,
        groups=first.groups,
        tickets=next((step.report.tickets for step in steps if step.report.tickets), None),
        tokens=next((step.report.tokens for step in steps if step.report.tokens), None),
        steps=tuple(
            StepReport(
                method=step.report.method,
                validation=step.report.after.validation,
                parameter_bytes=step.report.parameter_bytes_after,
                share=(before - step.report.parameter_bytes_after) / original,
            )
            for before, step in zip(sizes, steps, strict=False)
        ),
    )


def _names(method: str) -> list[str]:
    return [] if method in INTEGER_METHODS else [field.name for field in fields(CONFIGS[method])]


def _settings_of(method: str, settings: Mapping[str, object]) -> dict[str, Any]:
    known = _names(method)
    return {name: value for name, value in settings.items() if name in known}
