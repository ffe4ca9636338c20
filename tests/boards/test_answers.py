"""What boards answer, and what they should not: none of it ends in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from svitkit.boards.answers import BEGIN, END, Answer, Busy, Places, read_answer, read_busy, read_places, write_tree
from svitkit.boards.hosts import Host
from svitkit.boards.ssh_errors import in_use


def test_an_answer_is_what_stands_between_the_marks() -> None:
    stdout, stderr = f"motd\n{BEGIN}content".encode(), f"banner\n{BEGIN}words{END}3\n".encode()
    assert read_answer(stdout, stderr) == Answer(stdout=b"content", stderr="words", status=3)


@pytest.mark.parametrize("status", ["", "x", "-1", "\u00b2", "9" * 5000, "1 2"])
def test_an_answer_without_an_exit_status_is_none(status: str) -> None:
    assert read_answer(f"{BEGIN}content".encode(), f"{BEGIN}words{END}{status}".encode()) is None


def test_places_are_read_and_lines_of_another_shape_passed_over() -> None:
    text = f"missing\tab\t12\nmissing\tcd\nmissing\tef\tx\nplaced\nfree_kib\t2\nfree_kib\t{'9' * 5000}\n\n"
    assert read_places(text) == Places(placed=None, missing={"ab": 12, "ef": 0}, free_bytes=2048)
    assert read_places("placed\t/run/bundle\n").placed == "/run/bundle"


@pytest.mark.parametrize(
    "line", ["busy\t", "busy\tpi", "busy\tpi\tsoon\tx", f"busy\tpi\t{'9' * 15}\t1\t2", "busy\tpi\t\u00b2\t1"]
)
def test_who_uses_a_board_is_told_as_far_as_it_is_known(line: str) -> None:
    busy = read_busy(["noise", line])
    assert busy is not None
    assert "since unknown by the board's clock" in in_use(Host(host="pi"), busy)


def test_when_a_lock_was_taken_is_a_time() -> None:
    start = Busy(owner="pi", since="86400", left="1").start
    assert start is not None
    assert start.startswith("1970-01-0")
    assert read_busy(["ready\t/run"]) is None


def test_files_of_a_tree_that_cannot_be_are_passed_over(tmp_path: Path) -> None:
    lines = ["sys/a\t1", "sys/a/b\t2", f"sys/{'x' * 5000}\t3", "sys/n\0ul\t4", "proc\t5", "proc/c\t6"]
    write_tree(tmp_path, "\n".join(lines))
    assert (tmp_path / "sys" / "a").read_text() == "1\n"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a", "proc"]
