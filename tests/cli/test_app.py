from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

import svitkit as package
from svitkit.cli import app as program
from svitkit.errors import ConfigError

LOOK, LEARN = ("models", "doctor", "inspect"), ("train", "evaluate", "compress")
VERBS = (*LOOK, *LEARN, "export", "build", "sdk", "bench", "deploy", "report", "boards")
HEAVY = ("torch", "tvm", "onnx", "onnxruntime", "sklearn", "spikingjelly", "scipy")


def test_the_program_says_its_version(svitkit):
    done = svitkit("--version")
    assert (done.returncode, done.stdout) == (0, f"svitkit {package.__version__}\n")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_loading_a_heavy_library(verb, svitkit):
    done = svitkit(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: svitkit {verb}")


def test_help_lists_exactly_the_verbs_that_are_tested_here(svitkit):
    listed = svitkit("--help").stdout.partition("Commands:\n")[2]
    assert tuple(line.split()[0] for line in listed.splitlines()) == VERBS


def test_importing_the_command_line_and_the_boards_loads_no_heavy_library():
    code = f"""
import sys
import svitkit.cli.app, svitkit.boards.board, svitkit.boards.transports, svitkit.doctor, svitkit.deploy
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-verb",),
        ("deploy",),
        ("deploy", "digits-spikformer"),
        ("bench", "x", "--repeat", "0"),
        ("compress", "digits-spikformer", "-o", "x", "--max-drop", "-1"),
        ("boards", "--no-such-option"),
    ],
)
def test_wrong_usage_exits_with_2_and_leaves_stdout_empty(arguments, svitkit):
    done = svitkit(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def run_with(monkeypatch: pytest.MonkeyPatch, error: BaseException, *arguments: str) -> int:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(program, "app", fail)
    with pytest.raises(SystemExit) as end:
        program.main()
    code = end.value.code
    assert isinstance(code, int)
    return code


def test_an_error_that_svitkit_explains_is_one_line_and_exit_1(monkeypatch, capsys):
    assert run_with(monkeypatch, ConfigError("this is wrong.\nDo that.")) == 1
    assert capsys.readouterr() == ("", "error: this is wrong. Do that.\n")


def test_an_error_of_the_system_is_one_line_with_the_path(monkeypatch, capsys):
    assert run_with(monkeypatch, PermissionError(13, "Permission denied", "/root/x")) == 1
    assert capsys.readouterr().err == "error: /root/x: Permission denied\n"


def test_an_unexpected_error_asks_for_a_report_without_a_traceback(monkeypatch, capsys):
    assert run_with(monkeypatch, ZeroDivisionError("division by zero")) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: unexpected ZeroDivisionError: division by zero")
    assert "report" in shown
    assert "Traceback" not in shown


def test_an_interrupt_exits_with_130(monkeypatch):
    assert run_with(monkeypatch, KeyboardInterrupt()) == 130


def test_ctrl_c_during_work_ends_with_130_and_no_traceback(tmp_path):
    arguments = [sys.executable, "-m", "svitkit", "train", "spikformer", "--epochs", "10000", "-o", "x"]
    with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 120
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:  # until the first epoch is on disk
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in said
