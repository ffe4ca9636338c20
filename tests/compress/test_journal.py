from __future__ import annotations

from pathlib import Path

import pytest

from svitkit.compress.journal import Journal, Measurement, Stopped, Subject
from svitkit.errors import ConfigError

SUBJECT = Subject(checkpoint_sha256="a" * 64, data_sha256="b" * 64, settings_sha256="c" * 64)


def never() -> tuple[float, int]:
    raise AssertionError("a known candidate was measured again")


def write(path: Path) -> None:
    journal = Journal(path, SUBJECT, resume=False)
    journal.measure("one", lambda: (90.0, 100))
    journal.measure("two", lambda: (80.0, 50))


def test_the_file_has_one_line_for_the_subject_and_one_a_measurement(tmp_path: Path) -> None:
    write(tmp_path / "j")
    lines = (tmp_path / "j").read_text().splitlines()
    assert len(lines) == 3
    assert (
        lines[1] == '{"key":"one","accuracy":90.0,"parameter_bytes":100,"stopped":null,"divergence":null,"drift":null}'
    )


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    write(tmp_path / "j")
    journal = Journal(tmp_path / "j", SUBJECT, resume=True)
    assert journal.measure("two", never).accuracy == 80.0


def test_a_torn_last_line_is_dropped_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    journal = Journal(path, SUBJECT, resume=True)
    assert journal.measure("one", never).accuracy == 90.0
    journal.measure("two", lambda: (80.0, 50))
    assert path.read_bytes() == whole


def test_a_first_line_torn_by_a_kill_begins_the_journal_anew(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"svitkit_search":1,"check')
    Journal(path, SUBJECT, resume=True).measure("one", lambda: (90.0, 100))
    assert path.read_bytes().count(b"\n") == 2


def test_an_unfinished_journal_is_neither_used_nor_lost_without_resume(tmp_path: Path) -> None:
    write(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(ConfigError, match="--resume"):
        Journal(tmp_path / "j", SUBJECT, resume=False)
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "word"), [("checkpoint_sha256", "network"), ("data_sha256", "data"), ("settings_sha256", "settings")]
)
def test_the_journal_of_another_search_is_refused(tmp_path: Path, field: str, word: str) -> None:
    write(tmp_path / "j")
    values = {name: getattr(SUBJECT, name) for name in ("checkpoint_sha256", "data_sha256", "settings_sha256")}
    with pytest.raises(ConfigError, match=f"other {word}"):
        Journal(tmp_path / "j", Subject(**{**values, field: "d" * 64}), resume=True)


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path)
    path.write_text(path.read_text().replace('"one"', "one"))
    with pytest.raises(ConfigError, match="line 2"):
        Journal(path, SUBJECT, resume=True)


def stopped(accuracy: float) -> Measurement:
    return Measurement(
        key="one", accuracy=accuracy, parameter_bytes=100, stopped=Stopped(images=64, accuracy=41.0, certain=False)
    )


def test_a_stopped_evaluation_answers_only_whether_the_floor_is_missed(tmp_path: Path) -> None:
    Journal(tmp_path / "j", SUBJECT, resume=False).add(stopped(83.5))
    journal = Journal(tmp_path / "j", SUBJECT, resume=True)
    assert journal.find("one", 84.0) == stopped(83.5)
    assert journal.find("one", 83.5) is None
    assert journal.find("one") is None
    assert journal.measure("one", lambda: (41.5, 100)).accuracy == 41.5
    assert journal.find("one", 84.0) == journal.find("one")


@pytest.mark.parametrize("resumed", [False, True])
def test_what_says_less_never_replaces_what_says_more(tmp_path: Path, resumed: bool) -> None:
    journal = Journal(tmp_path / "j", SUBJECT, resume=False)
    journal.add(stopped(80.0))
    journal.add(stopped(83.5))
    assert journal.find("one", 81.0) == stopped(80.0)
    exact = Measurement(key="one", accuracy=41.5, parameter_bytes=100)
    journal.add(exact)
    journal.add(stopped(70.0))
    if resumed:
        journal = Journal(tmp_path / "j", SUBJECT, resume=True)
    assert journal.find("one") == exact
    assert len((tmp_path / "j").read_text().splitlines()) == 3
