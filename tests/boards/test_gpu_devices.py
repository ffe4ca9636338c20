"""Asking the drivers of GPUs: stand-ins for their libraries, and the real OpenCL where this machine has it."""

from __future__ import annotations

import ctypes
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from svitkit.boards import gpu_devices
from svitkit.boards.gpu_devices import DriverError, GpuDevice, ask_drivers, cuda_devices, find_devices, opencl_devices


def write(target: Any, value: int) -> int:
    """Stores what a driver answers at an address that ``byref`` made, and returns its status."""
    target._obj.value = value
    return 0


class Cuda:
    """A driver with one GPU of compute capability 8.7."""

    count = 1
    status = 0

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:
        return write(version, 12060)

    def cuDeviceGetCount(self, count: Any) -> int:
        return write(count, self.count)

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return write(device, number)

    def cuDeviceGetName(self, name: Any, size: int, device: int) -> int:
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        return write(value, {75: 8, 76: 7}[attribute])


class OpenCl:
    """A loader with one platform, and devices of these types on it."""

    def __init__(self, *types: int, platforms: int = 1) -> None:
        self.types, self.platforms = types, platforms

    def clGetPlatformIDs(self, size: Any, platforms: Any, count: Any) -> int:
        if platforms is None:
            return write(count, self.platforms)
        platforms[0] = 0x10
        return 0

    def clGetDeviceIDs(self, platform: Any, kinds: Any, size: Any, devices: Any, count: Any) -> int:
        if devices is None:
            return write(count, len(self.types)) if self.types else -1
        for number in range(len(self.types)):
            devices[number] = 0x100 + number
        return 0

    def clGetDeviceInfo(self, device: Any, what: int, size: Any, text: Any, count: Any) -> int:
        number = device.value - 0x100
        kind = self.types[number].to_bytes(8, "little")
        content = {0x1000: kind, 0x102B: b"Mali-G610 ", 0x102D: b"3.0"}[what]
        ctypes.memmove(text, content + b"\0", len(content) + 1)
        return 0


def load(monkeypatch: pytest.MonkeyPatch, **libraries: Any) -> None:
    """Lets libraries be loaded by the first part of their names, and no others."""

    def find(name: str) -> Any:
        if name.partition(".")[0] not in libraries:
            raise OSError(f"{name}: cannot open shared object file")
        return libraries[name.partition(".")[0]]

    monkeypatch.setattr(gpu_devices, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": find}))


def test_a_cuda_device_is_told_with_its_compute_capability_and_the_cuda_version_of_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(monkeypatch, libcuda=Cuda())
    wanted = GpuDevice(api="cuda", type="gpu", name="Orin", driver="12.6", architecture="sm_87")
    assert list(cuda_devices()) == [wanted]


def test_a_cuda_driver_without_a_device_and_one_that_fails_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, libcuda=SimpleNamespace(cuInit=lambda flags: 100))
    with pytest.raises(DriverError, match=r"cuInit of libcuda.so.1 failed with error 100"):
        list(cuda_devices())
    none = Cuda()
    none.count = 0
    load(monkeypatch, libcuda=none)
    with pytest.raises(DriverError, match="is there and offers no device"):
        list(cuda_devices())


def test_opencl_devices_are_gpus_accelerators_or_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, libOpenCL=OpenCl(4, 8, 2))
    assert [(device.type, device.name, device.driver) for device in opencl_devices()] == [
        ("gpu", "Mali-G610", "3.0"),
        ("gpu", "Mali-G610", "3.0"),
        ("cpu", "Mali-G610", "3.0"),
    ]


@pytest.mark.parametrize(
    ("library", "says"),
    [
        (SimpleNamespace(clGetPlatformIDs=lambda *_: -1001), "knows no driver"),
        (OpenCl(platforms=0), "knows no driver"),
        (OpenCl(), "its drivers offer no device"),
        (SimpleNamespace(clGetPlatformIDs=lambda *_: -6), "clGetPlatformIDs failed with error -6"),
    ],
)
def test_opencl_without_a_device_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, library: Any, says: str) -> None:
    load(monkeypatch, libOpenCL=library)
    with pytest.raises(DriverError, match=says):
        list(opencl_devices())


def test_a_library_that_is_not_there_is_named_and_the_other_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, libOpenCL=OpenCl(4))
    found = ask_drivers()
    assert [device.api for device in found.devices] == ["opencl"]
    assert found.missing == {"cuda": "libcuda.so.1 cannot be loaded: libcuda.so.1: cannot open shared object file"}


def test_what_this_machine_offers_is_asked_in_a_process_of_its_own_and_each_api_answers_or_says_why() -> None:
    found = find_devices()
    assert {device.api for device in found.devices} | set(found.missing) == {"cuda", "opencl"}
    assert all(device.name and device.driver for device in found.devices)


def test_a_driver_that_takes_the_process_with_it_is_one_that_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(command: list[str], **options: Any) -> None:
        raise subprocess.CalledProcessError(-11, command)

    monkeypatch.setattr(subprocess, "run", die)
    found = find_devices()
    assert found.devices == ()
    assert all("SIGSEGV" in why for why in found.missing.values())
