"""Progress as plain lines, where standard error is a file."""

from __future__ import annotations

import pytest

from svitkit.fitting import TrainingProgress
from svitkit.training_bar import plain_lines, training_bar


def at(step: int, *, seconds: float, reached: float | None = None) -> tuple[float, TrainingProgress]:
    """After so many of 200 steps in 2 epochs."""
    epoch = (step - 1) // 100
    progress = TrainingProgress(
        epoch=epoch, epochs=2, step=step, steps=200, share=step / 200, loss=1.5, validation_accuracy=reached
    )
    return seconds, progress


def lines(*events: tuple[float, TrainingProgress]) -> list[str]:
    now, written = [0.0], []
    report = plain_lines("net", written.append, lambda: now[0])
    for seconds, progress in events:
        now[0] = seconds
        report(progress)
    return written


def test_the_first_step_the_minutes_and_the_ends_of_epochs_are_written() -> None:
    steps = [at(step, seconds=step) for step in range(1, 101)]
    written = lines(*steps, at(100, seconds=105, reached=87.5), at(101, seconds=106))
    assert written == [
        "net: epoch 1/2, step 1/200, loss 1.500, 1 s, time left unknown",
        "net: epoch 1/2, step 61/200, loss 1.500, 61 s, 141 s left",
        "net: epoch 1/2, step 100/200, loss 1.500, validation 87.50 %, 105 s, 106 s left",
    ]


def test_what_was_done_before_a_kill_does_not_count_for_the_time_left() -> None:
    written = lines(at(100, seconds=0), at(150, seconds=100))
    assert written[-1].endswith("100 s, 100 s left")


def test_at_the_end_nothing_is_left() -> None:
    assert lines(at(1, seconds=1), at(200, seconds=80, reached=90.0))[-1].endswith("validation 90.00 %, 80 s, 0 s left")


def test_without_a_terminal_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with training_bar("net") as report:
        report(at(1, seconds=0)[1])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("net: epoch 1/2, step 1/200, loss 1.500, ")
    assert err.endswith("\n")
    assert err.count("\n") == 1


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with training_bar("net") as report:
        report(at(100, seconds=0, reached=87.5)[1])
    err = capsys.readouterr().err
    assert "87.50 %" in err
    assert "step" not in err
