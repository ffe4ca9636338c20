from __future__ import annotations

from pathlib import Path

from svitkit.append_only import append_line, drop_torn_line, read_lines


def test_values_stand_one_a_line_however_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, '{\n  "a": 1\n}\n')
    append_line(path, '["é"]')
    assert path.read_bytes() == b'{"a":1}\n["\\u00e9"]\n'
    assert read_lines(path) == [b'{"a":1}', b'["\\u00e9"]']


def test_a_torn_last_line_is_neither_read_nor_left_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a":1}\n{"b":')
    assert read_lines(path) == [b'{"a":1}']
    drop_torn_line(path)
    append_line(path, '{"c":3}')
    assert path.read_bytes() == b'{"a":1}\n{"c":3}\n'


def test_a_file_that_is_torn_in_its_first_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a"')
    drop_torn_line(path)
    assert (path.read_bytes(), read_lines(path)) == (b"", [])
