from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from svitkit.compress.executor import Evaluator, LocalExecutor, Wanted, open_executor
from svitkit.compress.journal import Journal, Measurement, Stopped, Subject
from svitkit.compress.options import WorkOptions
from svitkit.errors import ConfigError
from svitkit.models.plan import PrunedGroup, PruneGroup, PrunePlan

SUBJECT = Subject(checkpoint_sha256="a" * 64, data_sha256="b" * 64, settings_sha256="c" * 64)


def plan(kept: int) -> PrunePlan:
    return PrunePlan(groups=(PrunedGroup(group=PruneGroup(name="g", channels=9, members=()), kept=tuple(range(kept))),))


class Imaginary:
    """Accuracy is ten times the channels kept; tells of every candidate that it measures."""

    def __init__(self, *, backwards: bool = False) -> None:
        self.backwards = backwards
        self.asked: list[int] = []
        self.closed = 0

    def measure(self, wanted: Sequence[Wanted]) -> Generator[Measurement, None, None]:
        try:
            for one in sorted(wanted, key=lambda one: one.key) if self.backwards else wanted:
                kept = len(one.plan.groups[0].kept)
                self.asked.append(kept)
                low = one.floor is not None and 10.0 * kept < one.floor
                yield Measurement(
                    key=one.key,
                    accuracy=(one.floor or 0) - 1 if low else 10.0 * kept,
                    parameter_bytes=kept,
                    stopped=Stopped(images=3, accuracy=10.0 * kept, certain=True) if low else None,
                )
        finally:
            self.closed += 1

    def close(self) -> None:
        pass


def evaluator(path: Path, executor: Imaginary, *, exact: bool = False, resume: bool = False) -> Evaluator:
    return Evaluator(Journal(path / "j", SUBJECT, resume=resume), executor, exact=exact)


@pytest.mark.parametrize("backwards", [False, True])
def test_measurements_come_in_the_order_of_the_plans_and_once_each(tmp_path: Path, backwards: bool) -> None:
    executor = Imaginary(backwards=backwards)
    found = evaluator(tmp_path, executor).evaluate_all([plan(7), plan(3), plan(7), plan(5)])
    assert [one.parameter_bytes for one in found] == [7, 3, 7, 5]
    assert sorted(executor.asked) == [3, 5, 7]
    assert len((tmp_path / "j").read_text().splitlines()) == 4


def test_what_the_search_does_not_wait_for_is_not_measured(tmp_path: Path) -> None:
    executor = Imaginary()
    stream = evaluator(tmp_path, executor).each([plan(7), plan(3), plan(5)])
    next(stream)
    stream.close()
    assert executor.asked == [7]
    assert executor.closed == 1


def test_what_the_journal_knows_is_not_measured_again_even_by_another_process(tmp_path: Path) -> None:
    evaluator(tmp_path, Imaginary()).evaluate_all([plan(7), plan(3)])
    executor = Imaginary()
    again = evaluator(tmp_path, executor, resume=True)
    assert [one.accuracy for one in again.evaluate_all([plan(3), plan(5), plan(7)])] == [30.0, 50.0, 70.0]
    assert executor.asked == [5]


def test_a_bound_below_one_floor_is_measured_again_for_a_lower_one(tmp_path: Path) -> None:
    executor = Imaginary()
    measure = evaluator(tmp_path, executor)
    assert measure.evaluate(plan(3), floor=60.0).accuracy == 59.0
    assert measure.evaluate(plan(3), floor=80.0).accuracy == 59.0
    assert executor.asked == [3]
    assert measure.evaluate(plan(3), floor=40.0).accuracy == 39.0
    assert measure.evaluate(plan(3), floor=20.0).accuracy == 30.0
    assert measure.evaluate(plan(3)).stopped is None
    assert executor.asked == [3, 3, 3]


def test_the_plain_way_knows_no_floor(tmp_path: Path) -> None:
    executor = Imaginary()
    assert evaluator(tmp_path, executor, exact=True).evaluate(plan(3), floor=60.0).accuracy == 30.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweep": "quick"}, "sweep 'quick'"),
        ({"executor": "rays"}, "Did you mean 'ray'"),
        ({"ray_address": "auto"}, "leave the address out"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorkOptions(**options)


def test_the_local_executor_measures_here() -> None:
    class Candidates:
        def measure(self, plan: PrunePlan, *, floor: float | None) -> Measurement:
            return Measurement(key="here", accuracy=floor or 0.0, parameter_bytes=len(plan.groups))

    with open_executor(WorkOptions(), Candidates()) as executor:  # type: ignore[arg-type]
        assert isinstance(executor, LocalExecutor)
        assert [one.accuracy for one in executor.measure([Wanted(plan=plan(3), floor=60.0)])] == [60.0]
