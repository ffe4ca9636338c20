"""A short campaign over every reader; ``make fuzz`` runs the long one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from svitkit.errors import ConfigError
from tests.fuzz import __main__ as fuzz
from tests.fuzz.readers import READERS, Read, Reader

COUNT = 100
CHEAP = ["manifest.json", "boards.toml", "npz", "tar"]


def test_every_reader_accepts_what_is_valid_and_at_most_refuses_what_is_damaged(tmp_path: Path) -> None:
    for reader in READERS:
        folder = tmp_path / reader.name
        folder.mkdir()
        reader.read(reader.seeds()[0], folder)
        result = fuzz.campaign(reader, COUNT, 0)
        assert not result.findings, "\n".join([reader.name, *result.findings])
        assert result.accepted + result.refused == COUNT, reader.name


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader.name in CHEAP], ids=CHEAP)
def test_a_seed_and_a_number_make_the_same_input_again(reader: Reader) -> None:
    made = [fuzz.damaged(reader, 7, number) for number in range(20)]
    assert made == [fuzz.damaged(reader, 7, number) for number in range(20)]
    assert len(set(made)) > 10


def traceback(content: bytes, folder: Path) -> None:
    raise KeyError("gone")


def crash(content: bytes, folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def long_error(content: bytes, folder: Path) -> None:
    raise ConfigError("x" * 100_000)


def memory(content: bytes, folder: Path) -> None:
    bytearray(2 * fuzz.MEMORY_BYTES)


def hang(content: bytes, folder: Path) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (traceback, "input 0: KeyError: \"'gone'\" at test_fuzz.py"),
        (crash, "input 0: the process ended by SIGKILL"),
        (long_error, "input 0: an error of 100000 letters"),
        (memory, "input 0: MemoryError"),
        (hang, "input 0: the process ended itself: too slow"),
    ],
)
def test_the_campaign_sees_every_kind_of_fault(read: Read, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "TIME_LIMIT_S", 1.0)
    result = fuzz.campaign(Reader("broken", lambda: [b""], lambda rng, content: content, read), 2, 0)
    assert [finding.partition(":")[0] for finding in result.findings] == ["input 0", "input 1"]
    assert result.findings[0].startswith(words)
