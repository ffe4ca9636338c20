"""Where candidates are measured, and what the search sees of it.

The search asks for many plans at once and gets measurements in that order, one by one; what it does not wait for need
not be measured. An executor measures: in this process one after the other as they are asked for, or on a cluster
several at once and ahead of the search (:mod:`svitkit.compress.ray_executor`). Whatever is measured goes through the
journal first, so nothing is measured twice, and a stopped search goes on where it was.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from svitkit.compress.bits import BitPlan
from svitkit.compress.journal import Journal, Measurement, plan_key
from svitkit.compress.token_plan import TokenPlan
from svitkit.models.plan import PrunePlan

if TYPE_CHECKING:
    from svitkit.compress.options import WorkOptions


Plan = TypeVar("Plan", bound=PrunePlan | BitPlan | TokenPlan)
Plan_contra = TypeVar("Plan_contra", bound=PrunePlan | BitPlan | TokenPlan, contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Wanted(Generic[Plan]):
    """A candidate to measure.

    Attributes:
        plan: what it lacks.
        floor: percent; how far below it the accuracy is need not be known. None to know it in any case.
        stage: of the search.
    """

    plan: Plan
    floor: float | None
    stage: str = "validation"

    @property
    def key(self) -> str:
        """The candidate's name within the search."""
        return plan_key(self.plan, self.stage)


class Measures(Protocol[Plan_contra]):
    """Measures a plan: :class:`svitkit.compress.evaluate.Candidates`, for example."""

    def measure(self, plan: Plan_contra, *, floor: float | None = None) -> Measurement:
        """Measures a candidate; how far it is below ``floor`` percent need not be known."""

    def prepare(self) -> None:
        """Finds out what every candidate is compared with; copies made afterwards know it."""


class Executor(Protocol[Plan]):
    """Measures candidates."""

    def measure(self, wanted: Sequence[Wanted[Plan]]) -> Generator[Measurement, None, None]:
        """Yields a measurement of every candidate, in any order.

        Others may be among them that an earlier call had begun. What is not asked for need not be measured.
        """

    def close(self) -> None:
        """Stops what still runs, and frees what was held."""


class LocalExecutor(Generic[Plan]):
    """Measures in this process, one candidate after the other."""

    def __init__(self, candidates: Measures[Plan]) -> None:
        self._candidates = candidates

    def measure(self, wanted: Sequence[Wanted[Plan]]) -> Generator[Measurement, None, None]:
        """Yields the measurements in order."""
        for one in wanted:
            yield self._candidates.measure(one.plan, floor=one.floor)

    def close(self) -> None:
        """Holds nothing."""


class Evaluates(Protocol[Plan_contra]):
    """Measures candidates for a search, as :class:`Evaluator` does."""

    def each(self, plans: Sequence[Plan_contra], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        """Yields measurements in order; below ``floor`` percent they may be bounds that are below it too."""
        ...


class Evaluator(Generic[Plan]):
    """Measures plans, each at most once: the search's view of journal and executor."""

    def __init__(
        self, journal: Journal, executor: Executor[Plan], *, exact: bool = False, stage: str = "validation"
    ) -> None:
        """Begins with what the journal knows.

        Args:
            journal: the search's memory.
            executor: measures what is not in it.
            exact: measure every accuracy to the end, whatever the floor.
            stage: of the search; the executor's measurements have it in their keys.
        """
        self._journal, self._executor, self._exact, self._stage = journal, executor, exact, stage

    def evaluate(self, plan: Plan, *, floor: float | None = None) -> Measurement:
        """Measures one plan; for ``floor`` see :meth:`each`."""
        return self.evaluate_all([plan], floor=floor)[0]

    def evaluate_all(self, plans: Sequence[Plan], *, floor: float | None = None) -> list[Measurement]:
        """Measures plans, and returns the measurements in the same order; for ``floor`` see :meth:`each`."""
        return list(self.each(plans, floor=floor))

    def each(self, plans: Sequence[Plan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        """Yields the plans' measurements in order. Close it where the rest does not matter.

        Plans in a row are measured fastest if they differ in their last groups alone.

        Args:
            plans: what the candidates lack.
            floor: accuracy in percent. Of a candidate below it, the measurement may say no more than that: then
                ``stopped`` is set, and ``accuracy`` is a bound that is below the floor too.
        """
        floor = None if self._exact else floor
        wanted = {one.key: one for one in (Wanted(plan=plan, floor=floor, stage=self._stage) for plan in plans)}
        missing = [one for key, one in wanted.items() if self._journal.find(key, floor) is None]
        with closing(self._executor.measure(missing)) as measured:
            for plan in plans:
                key = plan_key(plan, self._stage)
                while (known := self._journal.find(key, floor)) is None:
                    self._journal.add(next(measured))
                yield known


@contextmanager
def open_executor(work: WorkOptions, candidates: Measures[Plan]) -> Iterator[Executor[Plan]]:
    """Yields an executor that is closed in the end.

    Args:
        work: which one.
        candidates: measures a plan.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at that address.
    """
    executor: Executor[Plan]
    if work.executor == "ray":
        from svitkit.compress.ray_executor import RayExecutor

        executor = RayExecutor(candidates, address=work.ray_address)
    else:
        executor = LocalExecutor(candidates)
    try:
        yield executor
    finally:
        executor.close()
