"""Two places that one sshd serves: a fleet over SSH, and what an interrupt leaves there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from svitkit import doctor
from svitkit.boards.board import load_board
from svitkit.boards.ssh import open_ssh
from svitkit.cli.app import Session, app
from svitkit.runtime.bench.measure import bench
from svitkit.runtime.bench.options import BenchOptions
from tests.boards.ssh_server import Server, wait_until
from tests.boards.test_device_facts import A53
from tests.boards.test_ssh_bench import MODEL, write_tree
from tests.runtime.bench.test_measure import images, write_bundle

PLACES = ("pi4-left", "pi4-right")


@pytest.fixture
def rack(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two Raspberry Pi 4 by what they say of themselves; the folder has a bundle for them, and data."""
    (server.root / "proc").unlink()
    cores = f"processor\t: 0\nFeatures\t: {A53}\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
    memory = "MemTotal:        3884396 kB\nMemAvailable:    3000000 kB"
    write_tree(server, {"proc/device-tree/model": f"{MODEL}\0", "proc/cpuinfo": cores, "proc/meminfo": memory})
    server.program("uname", "case $1 in -m) echo aarch64 ;; *) echo 6.6.51+rpt-rpi-v8 ;; esac")
    server.program("nproc", "echo 4")
    write_bundle(tmp_path / "net", load_board("raspberry-pi-4"))
    split = images(30).test
    np.savez(tmp_path / "dots.npz", train_x=split.x, train_y=split.y, test_x=split.x, test_y=split.y)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    write_places(server, tmp_path)
    return tmp_path


def write_places(server: Server, folder: Path, fault: str = "") -> None:
    host = server.host()
    lines = ['board = "raspberry-pi-4"', f'host = "{host.destination}:{host.port}"']
    lines += [f'identity = "{host.identity}"', f'known_hosts = "{host.known_hosts}"']
    lines += [f'prefix = ["env", "LOG={folder / "log"}", "FAULT={fault}"]']
    (folder / "config" / "svitkit").mkdir(parents=True, exist_ok=True)
    text = "\n".join("\n".join([f"[{place}]", *lines]) for place in PLACES)
    (folder / "config" / "svitkit" / "boards.toml").write_text(text + "\n")


def words(*arguments: str) -> list[str]:
    rack = ["--boards", ",".join(PLACES), "-o", "r.jsonl"]
    return ["bench", "net", *rack, "--data", "npz:dots.npz", "--repeat", "70", "--min-time", "0", *arguments]


def test_two_places_of_one_machine_take_turns(rack: Path, server: Server) -> None:
    """Were they to run at the same time, the lock of the board would refuse the second."""
    done = CliRunner().invoke(app, words(), obj=Session())
    assert done.exit_code == 0, done.output
    runs = [json.loads(line) for line in (rack / "r.jsonl").read_text().splitlines()[1:]]
    assert [(run["run"]["board"], run["run"]["place"], run["outcome"]) for run in runs] == [
        ("raspberry-pi-4", place, "measured") for place in PLACES
    ]
    assert [(run["record"]["place"], run["record"]["device"]) for run in runs] == [(place, MODEL) for place in PLACES]
    server.wait_until_clean()


def test_a_place_is_a_board_for_the_other_verbs_too(rack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench(
        rack / "net", load_board("pi4-left"), dataset=images(6), options=BenchOptions(repeat=5, min_time_s=0.0)
    )
    assert (record.board, record.place, record.built_for) == ("raspberry-pi-4", "pi4-left", "raspberry-pi-4")
    run = ("evaluate", "net", "--board", "pi4-right", "--data", "npz:dots.npz", "--limit", "6")
    assert "100.00 %" in CliRunner().invoke(app, run, obj=Session()).output
    assert "it was not locked" in CliRunner().invoke(app, ("boards", "unlock", "pi4-left"), obj=Session()).output
    listed = CliRunner().invoke(app, ("boards",), obj=Session()).output
    assert ["pi4-left", "raspberry-pi-4"] in [line.split()[:2] for line in listed.splitlines()]
    monkeypatch.setattr(doctor, "_build_programs", dict)  # each takes a second to start
    checks = [check for check in doctor.examine("pi4-left") if check.stage == "board pi4-left"]
    assert checks
    assert all(check.ok for check in checks)


def test_waiting_for_a_board_that_somebody_else_uses_can_be_interrupted(rack: Path, server: Server) -> None:
    with open_ssh(server.host()):
        process = subprocess.Popen([sys.executable, "-m", "svitkit", *words("--wait", "600")], stderr=subprocess.PIPE)
        wait_until(lambda: any(f"pid {process.pid} 600 " in line for line in server.processes()), 60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
        assert (process.returncode, b"interrupted" in said) == (130, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_boards_are_clean_after_an_interrupt_and_after_a_kill(number: int, rack: Path, server: Server) -> None:
    write_places(server, rack, "hang")
    process = subprocess.Popen(
        [sys.executable, "-m", "svitkit", *words()], env=dict(os.environ), stderr=subprocess.PIPE, text=True
    )

    def hangs() -> bool:
        assert process.poll() is None, process.communicate()
        return (rack / "log").exists()

    wait_until(hangs, 60)
    assert server.processes()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    server.wait_until_clean(60)
    assert (rack / "r.jsonl").read_text().count("\n") == 1
    write_places(server, rack)
    done = CliRunner().invoke(app, words("--continue"), obj=Session())
    assert done.exit_code == 0, done.output
    assert (rack / "r.jsonl").read_text().count('"measured"') == 2
