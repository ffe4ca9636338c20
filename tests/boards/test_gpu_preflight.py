"""Bundles for GPUs, and the boards and devices that have that GPU, its driver and its JetPack, or have not."""

from __future__ import annotations

import dataclasses

import pytest

from svitkit.boards import devices
from svitkit.boards.board import load_board
from svitkit.boards.device_facts import DeviceFacts
from svitkit.boards.devices import board_gpus
from svitkit.boards.gpu import Gpu
from svitkit.boards.preflight import check_bundle, check_device
from svitkit.errors import ConfigError
from tests.boards.test_device_facts import DEVICES, LIB, facts_of
from tests.boards.test_preflight import bundle_for, gpu_bundle_for

GPU_BOARDS = sorted(board_gpus())
XAVIER = {"jetson-xavier-agx", "jetson-xavier-nx"}
ORIN = {"jetson-orin-agx", "jetson-orin-nano", "jetson-orin-nx"}


def same_gpu(name: str) -> set[str]:
    """The boards that run what is built for the GPU of a board."""
    return next((family for family in (XAVIER, ORIN) if name in family), {name})


@pytest.mark.parametrize("built_for", GPU_BOARDS)
def test_a_bundle_passes_for_boards_with_its_gpu_and_is_refused_by_name_for_every_other(built_for: str) -> None:
    bundle = gpu_bundle_for(built_for)
    for name in {*DEVICES, *GPU_BOARDS}:
        if name in same_gpu(built_for):
            check_bundle(bundle, load_board(name))
            continue
        with pytest.raises(ConfigError) as caught:
            check_bundle(bundle, load_board(name))
        assert f"the bundle was built for {built_for} " in str(caught.value) or (
            f"the bundle was built for the GPU of {built_for} " in str(caught.value)
        )
        on_gpu = " --device gpu" if name in GPU_BOARDS else ""
        assert f"svitkit build model.onnx --board {name}{on_gpu} -o BUNDLE" in str(caught.value)


def test_an_orin_bundle_on_a_nano_says_which_gpu_is_there_and_what_to_build() -> None:
    with pytest.raises(ConfigError) as caught:
        check_bundle(gpu_bundle_for("jetson-orin-nano"), load_board("jetson-nano"))
    assert str(caught.value) == (
        "the bundle was built for the GPU of jetson-orin-nano (CUDA sm_87), and jetson-nano has another one: Maxwell, "
        "128 cores (Tegra X1) (CUDA sm_53). Build it again: svitkit build model.onnx --board jetson-nano --device gpu "
        "-o BUNDLE"
    )


def test_a_board_without_a_gpu_is_told_apart_and_those_with_one_are_named() -> None:
    with pytest.raises(ConfigError, match=r"raspberry-pi-5 has none that svitkit builds for.*jetson-nano.*rock-5b"):
        check_bundle(gpu_bundle_for("jetson-orin-nano"), load_board("raspberry-pi-5"))


def test_a_bundle_that_a_cpu_may_run_does_not_pass_for_a_boards_gpu() -> None:
    rock = load_board("rock-5b")
    plan = dataclasses.replace(gpu_bundle_for("rock-5b").gpu, allows_cpu=True)
    with pytest.raises(ConfigError, match="a CPU may take its place, so that its figures would not surely be those"):
        check_bundle(bundle_for("rock-5b", gpu=plan), rock)


def test_a_bundle_for_opencl_gpus_does_not_pass_where_a_cpu_stands_in() -> None:
    plan = dataclasses.replace(gpu_bundle_for("pocl").gpu, allows_cpu=False)
    with pytest.raises(ConfigError, match="refuses to run on a CPU, as that of pocl is"):
        check_bundle(bundle_for("pocl", gpu=plan), load_board("pocl"))


def test_a_bundle_for_the_cpu_is_no_bundle_for_pocl() -> None:
    with pytest.raises(ConfigError, match=r"built for the CPU of host, and pocl runs what is built for GPUs alone"):
        check_bundle(bundle_for("host"), load_board("pocl"))


def test_a_bundle_for_this_machines_gpu_is_compared_with_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_gpu", lambda: Gpu(api="cuda", name="H100", architecture="sm_90"))
    plan = dataclasses.replace(gpu_bundle_for("jetson-orin-nano").gpu, architecture="sm_90")
    check_bundle(bundle_for("host", gpu=plan), load_board("host"))
    with pytest.raises(ConfigError, match=r"GPU of host \(CUDA sm_87\), and host has another one: H100 \(CUDA sm_90\)"):
        check_bundle(
            bundle_for("host", gpu=dataclasses.replace(plan, architecture="sm_87")),
            load_board("host"),
        )


def refused(facts: DeviceFacts, board: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_device(facts, load_board(board), gpu_bundle_for(board), 1)
    assert str(caught.value).endswith("Nothing was sent.")
    return str(caught.value)


@pytest.mark.parametrize("device", [name for name in DEVICES if name in GPU_BOARDS])
@pytest.mark.parametrize("board", [name for name in GPU_BOARDS if name != "pocl"])
def test_a_device_passes_for_the_board_that_it_is_and_is_called_by_its_name_for_every_other(
    device: str, board: str
) -> None:
    if device == board:
        check_device(facts_of(device), load_board(board), gpu_bundle_for(board), 1)
        return
    assert device in refused(facts_of(device), board)


def test_another_soc_is_named_with_the_boards_that_have_it() -> None:
    said = refused(facts_of("jetson-xavier-nx"), "jetson-orin-nano")
    assert "its device tree says nvidia,p3509-0000+p3668-0000, nvidia,p3668-0000, nvidia,tegra194" in said
    assert "that of jetson-orin-nano says nvidia,tegra234" in said
    assert "name the board that it is, jetson-xavier-nx, with --board, and build again for it" in said


def test_a_soc_whose_module_is_unknown_may_be_any_board_that_has_it() -> None:
    xavier = facts_of("jetson-xavier-nx", compatible=("somebodys,carrier", "nvidia,tegra194"))
    assert "one of jetson-xavier-agx, jetson-xavier-nx, with --board" in refused(xavier, "jetson-orin-nano")
    check_device(xavier, load_board("jetson-xavier-agx"), gpu_bundle_for("jetson-xavier-agx"), 1)


def test_another_module_with_the_same_soc_would_be_measured_under_a_wrong_name() -> None:
    said = refused(facts_of("jetson-orin-nx"), "jetson-orin-nano")
    assert "its module is p3767-0000, that of jetson-orin-nx" in said
    assert "say --board jetson-orin-nx." in said


def test_a_soc_counts_for_a_bundle_of_the_cpu_too() -> None:
    with pytest.raises(ConfigError, match="name the board that it is, jetson-nano, with --board"):
        check_device(facts_of("jetson-nano"), load_board("jetson-tx2"), bundle_for("jetson-tx2"))


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-orin-agx"])
def test_a_device_without_the_cuda_driver_is_told_what_was_looked_for(name: str) -> None:
    said = refused(facts_of(name, drivers=()), name)
    assert "it has no libcuda.so.1; looked for in the loader's cache, /usr/lib/*/tegra" in said
    assert "install NVIDIA's CUDA driver, which is part of JetPack, or build for its CPU" in said


def test_a_driver_of_another_kind_is_none() -> None:
    drivers = (f"{LIB}/libcuda.so.1.backup", f"{LIB}/libOpenCL.so.1")
    assert "it has no libcuda.so.1" in refused(facts_of("jetson-nano", drivers=drivers), "jetson-nano")


def test_opencl_is_a_loader_of_drivers_or_malis_own_library() -> None:
    for library in ("libOpenCL.so.1", "libmali.so.1"):
        rock = facts_of("rock-5b", drivers=(f"{LIB}/{library}",))
        check_device(rock, load_board("rock-5b"), gpu_bundle_for("rock-5b"), 1)
    said = refused(facts_of("rock-5b", drivers=(f"{LIB}/libcuda.so.1",)), "rock-5b")
    assert "it has no libOpenCL.so.1 or libOpenCL.so or libmali.so.1 or libmali.so; looked for in" in said
    assert "install an OpenCL driver of its GPU, or build for its CPU" in said


def test_a_jetpack_that_is_too_old_is_named_with_the_oldest_that_will_do() -> None:
    said = refused(facts_of("jetson-xavier-nx", l4t="32.3.1"), "jetson-xavier-nx")
    assert "it has L4T 32.3.1 (JetPack 4.3, CUDA 10.0)" in said
    assert "kernels for jetson-xavier-nx need CUDA 10.2 or newer, of JetPack 4.4 (L4T 32.4.3)" in said
    assert "it has L4T 28.2.1, and kernels for jetson-tx2" in refused(
        facts_of("jetson-tx2", l4t="28.2.1"), "jetson-tx2"
    )


@pytest.mark.parametrize("l4t", ["39.2.0", "50.1.0", None])
def test_a_newer_jetpack_or_one_that_is_not_told_speaks_against_nothing(l4t: str | None) -> None:
    check_device(
        facts_of("jetson-orin-nano", l4t=l4t), load_board("jetson-orin-nano"), gpu_bundle_for("jetson-orin-nano"), 1
    )


def test_driver_and_jetpack_do_not_matter_to_a_bundle_for_the_cpu() -> None:
    facts = facts_of("jetson-xavier-nx", drivers=(), l4t="32.3.1")
    board = load_board("jetson-xavier-nx")
    check_device(facts, board, bundle_for("jetson-xavier-nx"))
    check_device(facts, board)
    with pytest.raises(ConfigError, match=r"it has no libcuda\.so\.1"):
        check_device(facts, board, device="gpu")
