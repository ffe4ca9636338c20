from __future__ import annotations

from pathlib import Path

import pytest

from svitkit.compress.journal import Journal, Subject
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
    assert lines[1] == '{"key":"one","accuracy":90.0,"parameter_bytes":100}'


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
