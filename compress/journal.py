"""The search's memory on disk: one line a measurement, so that a killed search goes on where it was.

The file is append-only. Its first line says what the search is about; a journal of another network, other data or other
settings is refused. A last line torn by a kill is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic.dataclasses import dataclass

from svitkit.append_only import append_line, drop_torn_line, read_lines
from svitkit.compress.bits import BitPlan
from svitkit.compress.token_plan import TokenPlan
from svitkit.errors import ConfigError
from svitkit.manifest import STRICT, from_json, to_json
from svitkit.models.plan import PrunePlan, plan_sha256

JOURNAL_NAME = "search.jsonl"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Subject:
    """What a search is about: the first line of its journal.

    Attributes:
        checkpoint_sha256: hash of the network's weights and description.
        data_sha256: hash of every split and the normalization.
        settings_sha256: hash of the method and everything it was told.
    """

    svitkit_search: int = 1
    checkpoint_sha256: str
    data_sha256: str
    settings_sha256: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stopped:
    """How far an evaluation came that ended once the wanted accuracy was out of reach.

    Attributes:
        images: how many images were looked at.
        accuracy: estimate for the whole split, in percent: that of the network before the search, and the mean
            difference to it on these images.
        certain: whether the wanted accuracy would be missed even if all other images were classified correctly; if not,
            it is missed by all practical odds (:mod:`svitkit.compress.tally`).
    """

    images: int
    accuracy: float
    certain: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Measurement:
    """One evaluated candidate.

    Attributes:
        key: what was evaluated, unique within the search.
        accuracy: percent of the split's images that were classified correctly; at most, if the evaluation was stopped.
        parameter_bytes: bytes of the candidate's deployed float32 parameters.
        stopped: where the evaluation ended; None if it saw every image.
        divergence: mean Kullback-Leibler divergence from the network before the search, in nats, where it was measured.
        drift: of the membrane potentials, where it was measured (:mod:`svitkit.compress.drift`).
    """

    key: str
    accuracy: float
    parameter_bytes: int
    stopped: Stopped | None = None
    divergence: float | None = None
    drift: float | None = None

    @property
    def estimate(self) -> float:
        """The accuracy, or where the evaluation stopped early that of the images it had seen, in percent."""
        return self.accuracy if self.stopped is None else self.stopped.accuracy

    def answers(self, floor: float | None) -> bool:
        """Whether this is all one need know: the accuracy, or that it is below ``floor`` percent."""
        return self.stopped is None or (floor is not None and self.accuracy < floor)


def plan_key(plan: PrunePlan | BitPlan | TokenPlan, stage: str = "validation") -> str:
    """Names a candidate within a search; a plan may be measured in several stages."""
    if isinstance(plan, BitPlan | TokenPlan):
        return f"{stage}, {plan.label()}"
    names = " ".join(f"{p.group.name}={len(p.kept)}/{p.group.channels}" for p in plan.groups)
    return f"{stage}, {names or 'whole'}, {plan_sha256(plan)[:16]}"


class Journal:
    """Measurements by key; what is new is appended to the file at once."""

    def __init__(self, path: Path, subject: Subject, *, resume: bool) -> None:
        """Opens a journal; a new one is written with its first measurement.

        Args:
            path: the file.
            subject: what the search is about.
            resume: use the measurements that the file holds; without it the file must not exist.

        Raises:
            ConfigError: the file is another search's, is damaged, or exists and ``resume`` is not set.
        """
        self.path, self.subject = path, subject
        self._known: dict[str, Measurement] = {}
        if path.exists():
            if not resume:
                raise ConfigError(
                    f"'{path}' is the journal of a search that did not finish. "
                    f"Go on with it (--resume), or choose another output directory."
                )
            self._read()

    def measure(self, key: str, compute: Callable[[], tuple[float, int]]) -> Measurement:
        """Returns what is known about a candidate, and finds it out first if nothing is.

        Args:
            key: names the candidate.
            compute: returns accuracy in percent and parameter bytes.
        """
        known = self.find(key)
        if known is None:
            accuracy, size = compute()
            known = Measurement(key=key, accuracy=accuracy, parameter_bytes=size)
            self.add(known)
        return known

    def find(self, key: str, floor: float | None = None) -> Measurement | None:
        """Returns what is known about a candidate, if it is enough.

        Args:
            key: names the candidate.
            floor: percent; a stopped evaluation is enough if it says that accuracy is below. None: it never is.
        """
        known = self._known.get(key)
        return known if known is not None and known.answers(floor) else None

    def add(self, measurement: Measurement) -> None:
        """Appends a measurement to the file, unless the candidate's accuracy is known already."""
        if not self._learn(measurement):
            return
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, to_json(self.subject, Subject))
        append_line(self.path, to_json(measurement, Measurement))

    def _learn(self, measurement: Measurement) -> bool:
        known = self._known.get(measurement.key)
        if known is not None and (
            known.stopped is None or (measurement.stopped and known.accuracy <= measurement.accuracy)
        ):
            return False
        self._known[measurement.key] = measurement
        return True

    def _read(self) -> None:
        lines = read_lines(self.path)
        if not lines:
            self.path.unlink()
            return
        found = from_json(lines[0], Subject, source=f"line 1 of '{self.path}'")
        for what, name in (("network", "checkpoint"), ("data", "data"), ("settings", "settings")):
            got, wanted = (getattr(side, f"{name}_sha256") for side in (found, self.subject))
            if got != wanted:
                raise ConfigError(
                    f"'{self.path}' belongs to a search with other {what} ({got[:12]}..., now {wanted[:12]}...). "
                    f"Repeat the command it was begun with, or choose another output directory."
                )
        for number, line in enumerate(lines[1:], start=2):
            self._learn(from_json(line, Measurement, source=f"line {number} of '{self.path}'"))
        drop_torn_line(self.path)
