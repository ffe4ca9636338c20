"""The GPUs of this machine, as their drivers name them.

Drivers are asked in a process of its own (``python -m svitkit.boards.gpu_devices``): a broken one ends only that, and
the LLVM in an OpenCL driver does not meet that of TVM. Sources: CUDA driver API, cuda.h; OpenCL 1.2, CL/cl.h.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

CUDA_LIBRARIES = ("libcuda.so.1",)
OPENCL_LIBRARIES = ("libOpenCL.so.1", "libOpenCL.so", "libmali.so.1", "libmali.so")
"""The loader of OpenCL's drivers, or Mali's library, which is OpenCL by itself."""
TIMEOUT_S = 60
TEXT_BYTES = 1024
CU_MAJOR, CU_MINOR = 75, 76
CL_DEVICE_TYPE, CL_DEVICE_NAME, CL_DRIVER_VERSION = 0x1000, 0x102B, 0x102D
CL_TYPE_GPU, CL_TYPE_ACCELERATOR, CL_TYPE_ALL = 4, 8, 0xFFFFFFFF
CL_NO_PLATFORM = -1001


class DriverError(Exception):
    """A driver that is not there, or does not do what was asked."""


@dataclass(frozen=True, kw_only=True)
class GpuDevice:
    """A device that a driver offers.

    Attributes:
        api: ``cuda`` or ``opencl``.
        type: ``cpu`` or ``gpu``; OpenCL devices may be either.
        name: as the driver calls it.
        driver: the driver's version: of CUDA the newest that it runs, such as ``12.6``.
        architecture: compute capability, such as ``sm_87``; None for OpenCL.
    """

    api: Literal["cuda", "opencl"]
    type: Literal["cpu", "gpu"]
    name: str
    driver: str
    architecture: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the drivers of this machine offer, and, by API, why one offers nothing."""

    devices: tuple[GpuDevice, ...]
    missing: dict[str, str]


def find_devices() -> Found:
    """Asks the drivers of this machine for their devices."""
    command = [sys.executable, "-m", "svitkit.boards.gpu_devices"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        told = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        why = f"the program that asks the drivers failed: {error}"
        return Found(devices=(), missing={"cuda": why, "opencl": why})
    return Found(devices=tuple(GpuDevice(**device) for device in told["devices"]), missing=told["missing"])


def ask_drivers() -> Found:
    """Asks the drivers of this machine, in this process."""
    devices: list[GpuDevice] = []
    missing: dict[str, str] = {}
    for api, ask in (("cuda", cuda_devices), ("opencl", opencl_devices)):
        try:
            devices += ask()
        except DriverError as error:
            missing[api] = str(error)
    return Found(devices=tuple(devices), missing=missing)


def cuda_devices() -> Iterator[GpuDevice]:
    """Names the devices of the CUDA driver.

    Raises:
        DriverError: there is no driver, or no device.
    """
    cuda, library = _load(CUDA_LIBRARIES)
    _require(cuda.cuInit(0), f"cuInit of {library}")
    version, count = ctypes.c_int(), ctypes.c_int()
    _require(cuda.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    _require(cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value == 0:
        raise DriverError(f"{library} is there and offers no device")
    for number in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(TEXT_BYTES)
        _require(cuda.cuDeviceGet(ctypes.byref(device), number), "cuDeviceGet")
        _require(cuda.cuDeviceGetName(name, TEXT_BYTES, device), "cuDeviceGetName")
        for value, attribute in ((major, CU_MAJOR), (minor, CU_MINOR)):
            _require(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        yield GpuDevice(
            api="cuda",
            type="gpu",
            name=name.value.decode(errors="replace"),
            driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
            architecture=f"sm_{major.value}{minor.value}",
        )


def opencl_devices() -> Iterator[GpuDevice]:
    """Names the devices of all OpenCL platforms.

    Raises:
        DriverError: there is no driver, or no device.
    """
    opencl, library = _load(OPENCL_LIBRARIES)
    count = ctypes.c_uint()
    status = opencl.clGetPlatformIDs(0, None, ctypes.byref(count))
    if status == CL_NO_PLATFORM or (status == 0 and count.value == 0):
        raise DriverError(f"{library} is there and knows no driver (files of /etc/OpenCL/vendors)")
    _require(status, "clGetPlatformIDs")
    platforms = (ctypes.c_void_p * count.value)()
    _require(opencl.clGetPlatformIDs(count, platforms, None), "clGetPlatformIDs")
    handles = [handle for platform in platforms for handle in _platform_devices(opencl, platform)]
    if not handles:
        raise DriverError(f"{library} is there and its drivers offer no device")
    for handle in handles:
        kind = int.from_bytes(_device_info(opencl, handle, CL_DEVICE_TYPE)[:8], sys.byteorder)
        yield GpuDevice(
            api="opencl",
            type="gpu" if kind & (CL_TYPE_GPU | CL_TYPE_ACCELERATOR) else "cpu",
            name=_text(_device_info(opencl, handle, CL_DEVICE_NAME)),
            driver=_text(_device_info(opencl, handle, CL_DRIVER_VERSION)),
        )


def _platform_devices(opencl: ctypes.CDLL, platform: int | None) -> list[ctypes.c_void_p]:
    count, kinds = ctypes.c_uint(), ctypes.c_uint64(CL_TYPE_ALL)
    if opencl.clGetDeviceIDs(ctypes.c_void_p(platform), kinds, 0, None, ctypes.byref(count)) or count.value == 0:
        return []
    devices = (ctypes.c_void_p * count.value)()
    _require(opencl.clGetDeviceIDs(ctypes.c_void_p(platform), kinds, count, devices, None), "clGetDeviceIDs")
    return [ctypes.c_void_p(device) for device in devices]


def _device_info(opencl: ctypes.CDLL, device: ctypes.c_void_p, what: int) -> bytes:
    text = ctypes.create_string_buffer(TEXT_BYTES)
    _require(opencl.clGetDeviceInfo(device, what, ctypes.c_size_t(TEXT_BYTES), text, None), "clGetDeviceInfo")
    return text.raw


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode(errors="replace").strip()


def _load(names: Sequence[str]) -> tuple[ctypes.CDLL, str]:
    """Loads the first library that is there, and returns it with its name."""
    errors = []
    for name in names:
        try:
            return ctypes.CDLL(name), name
        except OSError as error:
            errors.append(str(error))
    raise DriverError(f"{names[0]} cannot be loaded: {errors[0]}")


def _require(status: int, what: str) -> None:
    if status:
        raise DriverError(f"{what} failed with error {status}")


if __name__ == "__main__":
    print(json.dumps(asdict(ask_drivers())))
