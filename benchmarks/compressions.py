"""The report of one method of compression on one network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from svitkit.errors import ConfigError

Report = TypeVar("Report")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A network that a search has measured.

    Attributes:
        saving: fraction of the original parameter bytes.
        lost: points of accuracy on the validation split, against the network before.
    """

    saving: float
    lost: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one inference of a network costs, batch 1, one thread, in the bundle built for this machine.

    Attributes:
        parameter_bytes: deployed parameters.
        macs: multiply-accumulates over all time steps, if nothing were skipped.
        synaptic_operations: additions that the spikes of 16 validation images ask for, the mean of an image.
        latency_ms: median.
        peak_bytes: ``VmHWM`` of svit-run.
    """

    parameter_bytes: int
    macs: int
    synaptic_operations: float
    latency_ms: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What a method made of a network. Accuracies are percent, of the test split where nothing else is said.

    Attributes:
        network, data, method, device: what was compressed with what, and where it was timed.
        max_drop: points that the search might lose on the validation images.
        min_saving: fraction of the parameter bytes that was to be saved at least.
        validation_images: on which the search decided.
        test_images: on which accuracies were measured, once each.
        memory_saving: fraction of the original parameter bytes.
        accuracy_before, accuracy_after: before any fine-tuning.
        accuracy_finetuned: after ``finetune_epochs`` epochs; None without, or where the method allows none.
        validation_before, validation_after: the accuracies that the search saw.
        satisfied: whether both constraints hold on the validation images.
        predicted_speedup: times as fast as before, by the search's own account; None if it predicts no time.
        before, after: what an inference costs; the two bundles were timed in turn.
        search_s, finetune_s: seconds on one thread.
        search_cpu_s: processor time of the search; on a machine that others use, believe this one.
        points: what the search measured, without what another point beats in both respects.
        reasons: key -> why there is no figure, or what was done to get one.
    """

    network: str
    data: str
    method: str
    device: str | None
    max_drop: float
    min_saving: float
    validation_images: int
    test_images: int
    memory_saving: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    accuracy_finetuned: float | None = None
    validation_before: float | None = None
    validation_after: float | None = None
    satisfied: bool | None = None
    predicted_speedup: float | None = None
    before: Cost | None = None
    after: Cost | None = None
    finetune_epochs: int = 0
    search_s: float | None = None
    search_cpu_s: float | None = None
    finetune_s: float | None = None
    points: tuple[Point, ...] = ()
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report's JSON object; the costs stand at its top, those of the original as ``..._before``."""
        content = asdict(self)
        for when, suffix in (("before", "_before"), ("after", "")):
            costs = content.pop(when) or {}
            content |= {f"{key}{suffix}": value for key, value in costs.items()}
        return content


def from_dict(content: dict[str, Any]) -> Compression:
    """Reads what :meth:`Compression.to_dict` returns."""
    content = dict(content)
    costs: dict[str, Cost | None] = {}
    for when, suffix in (("before", "_before"), ("after", "")):
        keys = [key for key in Cost.__annotations__ if f"{key}{suffix}" in content]
        costs[when] = Cost(**{key: content.pop(f"{key}{suffix}") for key in keys}) if keys else None
    points = tuple(Point(**point) for point in content.pop("points"))
    return Compression(**content, **costs, points=points)


def read_lines(path: Path, read: Callable[[dict[str, Any]], Report]) -> list[Report]:
    """Reads what a benchmark printed with ``--json``.

    Args:
        path: the file.
        read: makes a report of one line's object.

    Raises:
        ConfigError: the file is missing or empty, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [read(json.loads(line)) for line in lines]
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"'{path}' holds other lines than --json of this benchmark prints ({type(error).__name__}: {error})."
        ) from None
    if not found:
        raise ConfigError(f"'{path}' is empty.")
    return found


def pareto(points: list[Point]) -> tuple[Point, ...]:
    """Returns the points that no other beats in saving and accuracy, by saving."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.saving, point.lost)):
        if not best or point.lost < best[-1].lost:
            best.append(point)
    return tuple(reversed(best))
