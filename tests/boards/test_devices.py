from __future__ import annotations

import pytest

from svitkit.boards import devices
from svitkit.boards.board import load_board
from svitkit.boards.devices import check_gpu_threads, check_predictable, choose_device, find_gpu, with_gpu
from svitkit.boards.gpu import Device
from svitkit.boards.gpu_devices import Found, GpuDevice
from svitkit.errors import ConfigError

H100 = GpuDevice(api="cuda", type="gpu", name="NVIDIA H100", driver="12.6", architecture="sm_90")
H100_BY_OPENCL = GpuDevice(api="opencl", type="gpu", name="NVIDIA H100", driver="560.35")
POCL = GpuDevice(api="opencl", type="cpu", name="pthread-EPYC", driver="3.1")
NO_CUDA = {"cuda": "libcuda.so.1 cannot be loaded"}


def offer(monkeypatch: pytest.MonkeyPatch, *found: GpuDevice, missing: dict[str, str] | None = None) -> None:
    monkeypatch.setattr(devices, "find_devices", lambda: Found(devices=found, missing=missing or {}))


def test_a_board_builds_for_its_cpu_unless_the_gpu_is_asked_for() -> None:
    nano = load_board("jetson-nano")
    assert [choose_device(nano, asked) for asked in (None, "cpu", "gpu")] == ["cpu", "cpu", "gpu"]


def test_pocl_is_a_gpu_and_nothing_else() -> None:
    pocl = load_board("pocl")
    assert [choose_device(pocl, asked) for asked in (None, "gpu")] == ["gpu", "gpu"]
    with pytest.raises(ConfigError, match=r"For machine code of this CPU say --board host"):
        choose_device(pocl, "cpu")


def test_pocl_stands_in_for_a_gpu_and_its_figures_count_as_emulated() -> None:
    pocl = load_board("pocl")
    assert (pocl.transport, pocl.emulated, pocl.threads) == ("local", True, 1)
    assert pocl.gpu is not None
    assert (pocl.gpu.api, pocl.gpu.architecture, pocl.gpu.allows_cpu) == ("opencl", None, True)
    assert not load_board("rock-5b").emulated


def test_a_board_without_a_gpu_names_those_that_have_one() -> None:
    with pytest.raises(
        ConfigError, match=r"raspberry-pi-4 has no GPU .*jetson-nano, .*jetson-xavier-nx, pocl, rock-5b"
    ):
        with_gpu(load_board("raspberry-pi-4"))
    nano = load_board("jetson-nano")
    assert with_gpu(nano) is nano


def test_this_machine_has_the_gpu_that_cuda_offers_before_that_of_opencl(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, POCL, H100_BY_OPENCL, H100)
    gpu = with_gpu(load_board("host")).gpu
    assert gpu is not None
    assert (gpu.api, gpu.name, gpu.architecture, gpu.allows_cpu) == ("cuda", "NVIDIA H100", "sm_90", False)
    assert set(gpu.sources) == gpu.facts()


def test_without_cuda_it_is_the_gpu_that_opencl_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, POCL, H100_BY_OPENCL, missing=NO_CUDA)
    gpu = find_gpu()
    assert (gpu.api, gpu.architecture, gpu.kind) == ("opencl", None, "OpenCL")


def test_without_a_gpu_it_is_said_what_was_looked_for_and_how_to_try_without(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, POCL, missing=NO_CUDA)
    with pytest.raises(ConfigError) as caught:
        find_gpu()
    for part in (
        "Looked for: libcuda.so.1, and an OpenCL device of type GPU through libOpenCL.so.1",
        "Got: libcuda.so.1 cannot be loaded; OpenCL offers pthread-EPYC (cpu)",
        "--board pocl",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("threads", [2, "auto"])
def test_threads_share_no_work_of_a_gpu(threads: int | str) -> None:
    with pytest.raises(ConfigError, match=f"--threads {threads}: on a GPU"):
        check_gpu_threads(threads)
    check_gpu_threads(None)
    check_gpu_threads(1)


@pytest.mark.parametrize(("board", "device"), [("pocl", "cpu"), ("jetson-orin-nano", "gpu")])
def test_what_a_gpu_takes_is_not_predicted(board: str, device: Device) -> None:
    with pytest.raises(ConfigError, match=f"predicted for CPUs alone, and not for the GPU of {board}"):
        check_predictable(load_board(board), device)
    check_predictable(load_board("jetson-orin-nano"), "cpu")
