"""Measuring over SSH: with a stand-in for svit-run, and with a real bundle for a Raspberry Pi 4 that qemu emulates."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from svitkit import doctor
from svitkit.boards.board import Board, load_board
from svitkit.boards.transports import QEMU, SYSROOT, qemu_command
from svitkit.cli.app import Session, app
from svitkit.errors import ConfigError, RunError
from svitkit.files import sha256
from svitkit.runtime.bench.device_state import DeviceState
from svitkit.runtime.bench.measure import as_started, bench
from svitkit.runtime.bench.options import BenchOptions
from tests.boards.ssh_server import Server
from tests.boards.test_device_facts import A53
from tests.runtime import bundles
from tests.runtime.bench.test_measure import images, write_bundle

GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
ZONE = "sys/class/thermal/thermal_zone0"
MODEL = "Raspberry Pi 4 Model B Rev 1.4"
Svitkit = Callable[..., subprocess.CompletedProcess[str]]


def write_hosts(server: Server, config: Path, board: str, *prefix: str) -> None:
    """Writes boards.toml: how the board's server is to be believed, and what stands before programs."""
    keys = {"identity": server.folder / "user_key", "known_hosts": server.folder / "known_hosts"}
    lines = [f"[{board}]", *(f'{key} = "{path}"' for key, path in keys.items()), f"prefix = {json.dumps(prefix)}"]
    (config / "svitkit").mkdir(parents=True, exist_ok=True)
    with (config / "svitkit" / "boards.toml").open("a") as file:
        file.write("\n".join(lines) + "\n")


def write_tree(server: Server, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = server.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")


@pytest.fixture
def rack(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """This machine as a board elsewhere, with sensors of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write_hosts(server, tmp_path / "config", "rack", "env", f"LOG={tmp_path / 'log'}")
    write_tree(server, {GOVERNOR: "performance", f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": "48000"})
    return dataclasses.replace(load_board("host"), name="rack", transport="ssh")


def test_a_whole_measurement_over_ssh(rack: Board, server: Server, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", rack)
    address = f"{server.host().destination}:{server.port}"
    record = bench(bundle, rack, host=address, dataset=images(9), options=BenchOptions(repeat=70, min_time_s=0.0))
    assert record.valid, record.reasons
    assert record.golden.match
    assert record.accuracy is not None
    assert (record.accuracy.percent, record.accuracy.count) == (100.0, 9)
    assert (record.board, record.emulated) == ("rack", False)
    assert record.prefix == ("env", f"LOG={tmp_path / 'log'}")
    wanted = DeviceState(governor="performance", temperatures_celsius={"cpu-thermal": 48.0})
    assert record.before == record.after == wanted
    assert record.versions["kernel"] == os.uname().release
    assert record.versions["glibc"].startswith("2.")
    server.wait_until_clean()


def test_a_single_file_is_all_that_a_board_gets(rack: Board, server: Server, tmp_path: Path) -> None:
    program = bundles.make_single_file(tmp_path / "tiny", bundles.HOST)
    record = bench(
        program, rack, host=f"{server.host().destination}:{server.port}", options=BenchOptions(repeat=2, min_time_s=0.0)
    )
    assert record.golden.match
    assert record.bundle_bytes == program.stat().st_size
    assert sha256(program) in {path.name for path in (server.cache / "files").iterdir()}
    server.wait_until_clean()


def test_an_emulator_before_the_program_makes_the_record_an_emulated_one() -> None:
    pi = load_board("raspberry-pi-4")
    assert as_started(pi, ("/usr/bin/qemu-aarch64-static", "-cpu", "cortex-a72")).emulated
    assert not as_started(pi, ("taskset", "-c", "2-3")).emulated
    assert not as_started(pi, ()).emulated


def test_a_board_that_slows_down_makes_the_run_invalid(rack: Board, server: Server, tmp_path: Path) -> None:
    write_tree(server, {f"{ZONE}/trip_point_0_type": "passive", f"{ZONE}/trip_point_0_temp": "48000"})
    bundle = write_bundle(tmp_path / "bundle", rack)
    record = bench(
        bundle, rack, host=f"{server.host().destination}:{server.port}", options=BenchOptions(min_time_s=0.0)
    )
    assert record.reasons == ("throttled: thermal zone cpu-thermal is at its passive trip point",)


def test_a_device_of_another_kind_is_refused_before_anything_is_sent(
    rack: Board, server: Server, tmp_path: Path
) -> None:
    server.program("uname", "case $1 in -m) echo riscv64 ;; *) echo 6.6 ;; esac")
    bundle = write_bundle(tmp_path / "bundle", rack)
    with pytest.raises(ConfigError, match=r"it is riscv64, and rack is x86_64.*Nothing was sent"):
        bench(bundle, rack, host=f"{server.host().destination}:{server.port}")
    server.wait_until_clean()
    assert not list((server.cache / "files").iterdir())


def test_a_program_that_hangs_is_stopped_on_the_board(rack: Board, server: Server, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", rack)
    config = tmp_path / "config" / "svitkit" / "boards.toml"
    config.write_text(config.read_text().replace('"env", ', '"env", "FAULT=hang", '))
    with pytest.raises(RunError, match=r"svit-run did not end within 1 s on .* and was stopped"):
        bench(
            bundle,
            rack,
            host=f"{server.host().destination}:{server.port}",
            options=BenchOptions(timeout_s=1, warmup_s=0, min_time_s=0),
        )
    server.wait_until_clean()


# --- a bundle for another processor -----------------------------------------------------------------------------------


@pytest.fixture
def pi(server: Server, tmp_path: Path) -> str:
    """A Raspberry Pi 4 by what it says of itself, whose programs qemu runs; returns its address."""
    if shutil.which(QEMU) is None or not SYSROOT.is_dir():
        pytest.skip("qemu-user-static or libc6-arm64-cross is not installed")
    write_hosts(server, tmp_path / "config", "raspberry-pi-4", *qemu_command("cortex-a72"))
    (server.root / "proc").unlink()
    cores = f"processor\t: 0\nFeatures\t: {A53}\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
    memory = "MemTotal:        3884396 kB\nMemAvailable:    3000000 kB"
    write_tree(server, {"proc/device-tree/model": f"{MODEL}\0", "proc/cpuinfo": cores, "proc/meminfo": memory})
    write_tree(server, {GOVERNOR: "ondemand", f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": "51000"})
    server.program("uname", "case $1 in -m) echo aarch64 ;; *) echo 6.6.51+rpt-rpi-v8 ;; esac")
    server.program("nproc", "echo 4")
    return f"{server.host().destination}:{server.port}"


@pytest.fixture
def svitkit(tmp_path: Path) -> Svitkit:
    """Runs the program as a user does, with a boards.toml of the test."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "svitkit", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


def test_doctor_shows_what_a_board_says_of_itself(pi: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(doctor, "_build_programs", dict)  # each takes a second to start
    checks = {check.name: check for check in doctor.examine("raspberry-pi-4", pi) if check.stage.startswith("board")}
    assert all(check.ok for check in checks.values())
    assert checks["device"].found == MODEL
    assert checks["kinds of cores"].found == "0x41:0xd08"
    assert checks["C library"].found.startswith("glibc 2.")
    (tmp_path / "config" / "svitkit" / "boards.toml").unlink()
    unknown = [check.found for check in doctor.examine("raspberry-pi-4", pi) if not check.ok]
    assert any("is unknown, so nothing was sent" in found for found in unknown), unknown


def test_doctor_says_why_a_board_cannot_be_used(pi: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config" / "svitkit" / "boards.toml"
    config.write_text(config.read_text().replace("raspberry-pi-4", "raspberry-pi-5"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(doctor, "_build_programs", dict)
    checks = doctor.examine("raspberry-pi-5", pi)
    assert not doctor.is_ready(checks)
    (why,) = (check.found for check in checks if not check.ok and check.stage.startswith("board"))
    assert "its cores lack aes" in why


def test_boards_are_unlocked_and_cleaned_by_name_or_address(
    pi: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config = tmp_path / "config" / "svitkit" / "boards.toml"
    config.write_text(f'{config.read_text()}host = "{pi}"\n')

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words, obj=Session())

    assert "is free: it was not locked" in run("boards", "unlock", "raspberry-pi-4").output
    assert "0 bytes removed" in run("boards", "clean", pi).output
    assert run("boards", "unlock", "-pi@x").exit_code == 2
    assert "is no host" in str(run("boards", "unlock", "--", "-oProxyCommand=x").exception)
    assert "Raspberry Pi 4 Model B" in run("boards", "raspberry-pi-4").output
    assert run("boards").output == run("boards", "show").output


@pytest.mark.slow
def test_an_aarch64_bundle_is_measured_over_ssh_end_to_end(
    pi: str, server: Server, svitkit: Svitkit, tmp_path: Path
) -> None:
    assert svitkit("export", "digits-spikformer", "-o", "model.onnx").returncode == 0
    built = svitkit("build", "model.onnx", "--board", "raspberry-pi-4", "--data", "digits", "-o", "bundle")
    assert built.returncode == 0, built.stderr
    done = svitkit("bench", "bundle", "--host", pi, "--limit", "40", "-o", "record.json", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)["record"]
    assert record["valid"], record["reasons"]
    assert record["golden"]["match"]
    assert record["accuracy"]["percent"] > 90
    assert (record["board"], record["device"]) == ("raspberry-pi-4", f"an emulator on {MODEL}")
    assert record["versions"]["kernel"] == "6.6.51+rpt-rpi-v8"
    assert record["prefix"][1:3] == ["-cpu", "cortex-a72"]
    assert record["emulated"], "the times of an emulator pass for those of a board"
    server.wait_until_clean()
    evaluated = svitkit("evaluate", "bundle", "--host", pi, "--limit", "10", "--json")
    assert json.loads(evaluated.stdout)["evaluation"]["images"] == 10
    write_hosts(server, tmp_path / "config", "jetson-nano")
    wrong = svitkit("bench", "bundle", "--board", "jetson-nano", "--host", pi)
    assert (wrong.returncode, "figures would bear a wrong name" in wrong.stderr) == (1, True)


@pytest.mark.slow
def test_a_network_is_deployed_over_ssh(pi: str, server: Server, svitkit: Svitkit) -> None:
    done = svitkit(
        *("deploy", "digits-spikformer", "--board", "raspberry-pi-4", "--host", pi),
        *("--limit", "60", "-o", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    deployment = json.loads(done.stdout)
    assert deployment["valid"], deployment["reasons"]
    assert deployment["golden_match"]
    assert (deployment["board"], deployment["emulated"]) == ("raspberry-pi-4", True)
    server.wait_until_clean()
