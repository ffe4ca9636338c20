from __future__ import annotations

import json

import pytest

from svitkit import doctor
from svitkit.boards.gpu_devices import Found, GpuDevice
from svitkit.doctor import PACKAGES, Check, is_ready
from svitkit.zoo import ZOO


def only_object(text: str) -> dict[str, object]:
    """Parses stdout, which must be one JSON object on one line and nothing else."""
    assert text.count("\n") == 1
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def test_boards_as_json_is_exactly_one_object_with_every_board(svitkit):
    done = svitkit("boards", "--json")
    assert done.returncode == 0
    names = [board["name"] for board in only_object(done.stdout)["boards"]]
    assert {"host", "qemu-cortex-a53", "qemu-cortex-a72", "qemu-cortex-a76", "raspberry-pi-4", "rock-5b"} <= set(names)


def test_one_board_is_shown_with_the_sources_of_its_facts(svitkit):
    done = svitkit("boards", "raspberry-pi-4")
    assert done.returncode == 0
    assert "cortex-a72" in done.stdout
    assert "raspberrypi" in done.stdout


def test_boards_name_their_gpus_and_the_versions_of_cuda_and_jetpack_with_sources(svitkit):
    boards = {board["name"]: board for board in only_object(svitkit("boards", "--json").stdout)["boards"]}
    orin, pi = boards["jetson-orin-nano"]["gpu"], boards["raspberry-pi-4"]["gpu"]
    assert (orin["api"], orin["architecture"], pi) == ("cuda", "sm_87", None)
    listed = {line.split()[0]: line for line in svitkit("boards").stdout.splitlines()[2:]}
    for word in ("CUDA sm_87", " to ".join(orin["cuda"]), " to ".join(orin["jetpack"])):
        assert word in listed["jetson-orin-nano"]
    assert "OpenCL" in listed["rock-5b"]
    shown = svitkit("boards", "jetson-orin-nano").stdout
    assert all(f"gpu: {fact}" in shown for fact in ("architecture", "cuda", "jetpack", "device_tree"))
    assert "developer.nvidia.com" in shown


def test_a_misspelt_board_gets_the_nearest_name(svitkit):
    done = svitkit("boards", "raspbery-pi-4", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown board 'raspbery-pi-4'. Did you mean 'raspberry-pi-4'?")


def test_models_as_json_lists_the_packaged_networks(svitkit):
    done = svitkit("models", "--json")
    assert done.returncode == 0
    networks = {network["name"]: network for network in only_object(done.stdout)["models"]}
    assert list(networks) == list(ZOO)
    assert networks["digits-spikformer"]["input_shape"] == [1, 16, 16]
    assert all(network["parameter_bytes"] > 0 for network in networks.values())


def test_doctor_names_every_package_and_agrees_with_its_exit_code(svitkit):
    done = svitkit("doctor", "--json")
    report = only_object(done.stdout)
    assert done.returncode == (0 if report["ready"] else 3)
    named = {check["name"] for check in report["checks"]}
    assert {name for names in PACKAGES.values() for name in names} <= named


def test_doctor_says_which_drivers_of_gpus_there_are_and_needs_none(svitkit):
    checks = {check["name"]: check for check in only_object(svitkit("doctor", "--json").stdout)["checks"]}
    for name in ("GPU driver libcuda.so.1", "GPU driver libOpenCL.so.1", "board pocl"):
        assert checks[name]["found"]
        assert checks[name]["required"] is False


def test_doctor_names_devices_with_what_they_are_and_how_to_get_pocl(monkeypatch):
    orin = GpuDevice(api="cuda", type="gpu", name="Orin", driver="12.6", architecture="sm_87")
    monkeypatch.setattr(doctor, "find_devices", lambda: Found(devices=(orin,), missing={"opencl": "no OpenCL"}))
    monkeypatch.setattr(doctor, "_build_programs", dict)  # each takes a second to start
    checks = {check.name: check for check in doctor.examine()}
    assert checks["GPU driver libcuda.so.1"].found == "Orin (sm_87, driver 12.6)"
    assert (checks["GPU driver libOpenCL.so.1"].found, checks["GPU driver libOpenCL.so.1"].ok) == ("no OpenCL", False)
    assert checks["board pocl"].found == "no OpenCL; on Debian or Ubuntu: apt-get install pocl-opencl-icd"


@pytest.mark.parametrize(("required", "ready"), [(True, False), (False, True)])
def test_only_what_a_stage_cannot_do_without_makes_the_doctor_unhappy(required, ready):
    there = Check(name="a", stage="all", found="1", ok=True)
    missing = Check(name="b", stage="bench", found="missing", ok=False, required=required)
    assert is_ready([there, missing]) is ready


def test_inspect_of_a_network_lists_every_layer_with_its_costs(svitkit):
    done = svitkit("inspect", "digits-spikformer", "--json")
    assert done.returncode == 0
    view = only_object(done.stdout)
    assert view["kind"] == "model"
    assert view["totals"]["macs"] == sum(layer["macs"] for layer in view["layers"])
    assert any(layer["kind"].endswith("LIFNode") for layer in view["layers"])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("digits-spikfromer", "Did you mean 'digits-spikformer'?"),
        ("missing.onnx", "there is no file 'missing.onnx'"),
        ("missing.json", "there is no file 'missing.json'"),
    ],
)
def test_inspect_of_what_is_not_there_says_what_to_do(what, says, svitkit):
    done = svitkit("inspect", what)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
