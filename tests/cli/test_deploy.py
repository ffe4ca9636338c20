from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from svitkit.boards.board import load_board
from svitkit.boards.transports import QEMU, SYSROOT
from svitkit.deploy import DeployOptions, default_folder, prepare_folder, require_buildable
from svitkit.errors import ConfigError

KEYS = {
    "accuracy_before",
    "accuracy_after",
    "memory_saving",
    "params_before",
    "params_after",
    "bundle_bytes",
    "latency_ms",
    "peak_rss_bytes",
    "golden_match",
    "valid",
    "board",
    "artifacts",
    "emulated",
    "validation_before",
    "validation_after",
}
EMULATED = pytest.mark.skipif(
    shutil.which(QEMU) is None or not (SYSROOT / "lib").is_dir(), reason="needs qemu and the aarch64 C library"
)


def test_the_default_folder_names_model_and_board_and_is_one_folder():
    board = load_board("host")
    assert default_folder("digits-spikformer", board) == Path("svitkit-out/digits-spikformer-host")
    assert default_folder("../my/ckpt", board) == Path("svitkit-out/ckpt-host")
    assert default_folder("pkg.nets:build", board) == Path("svitkit-out/pkg.nets-build-host")


def test_what_is_deployed_to_cpu_and_gpu_of_a_board_lies_in_two_folders():
    orin, pocl = load_board("jetson-orin-nano"), load_board("pocl")
    assert default_folder("net", orin, "gpu") == Path("svitkit-out/net-jetson-orin-nano-gpu")
    assert default_folder("net", orin, "cpu") == Path("svitkit-out/net-jetson-orin-nano")
    assert default_folder("net", pocl, "gpu") == Path("svitkit-out/net-pocl")


@pytest.mark.parametrize(
    ("board", "options", "says"),
    [
        (
            "raspberry-pi-4",
            {},
            r"raspberry-pi-4 has no GPU that svitkit builds for. These boards have one: jetson-nano",
        ),
        ("jetson-orin-nano", {"single_file": True}, r"static program, which cannot load the driver of a GPU"),
        ("jetson-orin-nano", {"objective": "latency"}, r"predicted for CPUs alone"),
        ("jetson-orin-nano", {"threads": 4}, r"--threads 4: on a GPU"),
    ],
)
def test_what_no_gpu_can_do_is_said_before_any_work(board, options, says):
    with pytest.raises(ConfigError, match=says):
        require_buildable(load_board(board), DeployOptions(device="gpu", **options))


def test_a_board_is_deployed_to_with_the_gpu_that_is_asked_for():
    orin = load_board("jetson-orin-nano")
    assert require_buildable(orin, DeployOptions(device="gpu", threads=1)).gpu == orin.gpu
    pi = load_board("raspberry-pi-4")
    assert require_buildable(pi, DeployOptions(single_file=True, objective="latency", threads=4)) is pi


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        prepare_folder(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="is a file"):
        prepare_folder(tmp_path / "out")


def test_a_folder_of_an_earlier_deployment_or_none_is_accepted(tmp_path):
    for name in ("checkpoint", "bundle", ".bundle.old.x1"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / "record.json").touch()
    prepare_folder(tmp_path / "out")
    prepare_folder(tmp_path / "new")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("digits-spikformer", "--board", "hots"), "unknown board 'hots'. Did you mean 'host'?"),
        (("digits-spikfromer", "--board", "host"), "Did you mean 'digits-spikformer'?"),
        (("digits-spikformer", "--board", "host", "--method", "prime-svt"), "Did you mean 'primesvt'?"),
        (("digits-spikformer", "--board", "host", "--data", "digit"), "Did you mean 'digits'?"),
        (("digits-spikformer", "--board", "raspberry-pi-4"), "nothing says where raspberry-pi-4 is"),
    ],
)
def test_what_cannot_work_is_said_before_any_work_and_nothing_is_written(arguments, says, svitkit, tmp_path):
    done = svitkit("deploy", *arguments, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def deployed(svitkit, tmp_path: Path, board: str) -> dict[str, object]:
    done = svitkit(
        "deploy",
        "digits-spikformer",
        "--board",
        board,
        "--max-drop",
        "3",
        "--min-saving",
        "0.25",
        "-o",
        "out",
        "--json",
    )
    assert done.stdout.count("\n") == 1, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= KEYS
    assert done.returncode == (0 if result["valid"] else 3), done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint", "model.onnx", "bundle", "record.json"}
    return result


@pytest.mark.parametrize("board", ["host", pytest.param("qemu-cortex-a72", marks=[EMULATED, pytest.mark.slow])])
def test_deploy_keeps_its_limits_and_proves_itself_on_the_board(board, svitkit, tmp_path):
    result = deployed(svitkit, tmp_path, board)
    assert result["memory_saving"] >= 0.25
    assert result["accuracy_before"] - result["accuracy_after"] <= 3
    assert result["golden_match"] is True
    assert result["board"] == board
    assert result["accuracy_images"] >= 200
    assert result["latency_ms"]["p50"] > 0
    assert result["emulated"] is (board != "host")
    assert result["params_after"] < result["params_before"]
    for path in result["artifacts"].values():
        assert (tmp_path / path).exists()


@EMULATED
@pytest.mark.slow
def test_a_deployment_as_a_single_file_runs_on_an_emulated_cortex_a53(svitkit, tmp_path):
    board = ["--board", "qemu-cortex-a53", "--single-file"]
    done = svitkit("deploy", "digits-spikformer", *board, "--method", "int8", "--limit", "100", "-o", "out", "--json")
    result = json.loads(done.stdout)
    assert (result["golden_match"], result["valid"]) == (True, True), done.stderr
    assert result["bundle_bytes"] == (tmp_path / "out" / "bundle").stat().st_size


def test_limits_that_cannot_both_be_met_keep_the_best_found_and_exit_with_3(svitkit, tmp_path):
    done = svitkit(
        "deploy",
        "digits-spikformer",
        "--board",
        "host",
        "--max-drop",
        "0",
        "--min-saving",
        "0.99",
        "--set",
        "rates=0.5",
        "--set",
        "rounds=0",
        "--set",
        "calibration_images=64",
        "--set",
        "probe_images=64",
        "--limit",
        "100",
        "-o",
        "out",
        "--json",
    )
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    assert result["satisfied"] is False
    assert 0 <= result["memory_saving"] < 0.99
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint"]
    assert svitkit("evaluate", "out/checkpoint").returncode == 0
