"""PoCL, an OpenCL device on any CPU: programs for GPUs run on it where there is no GPU."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

MISSING = "no OpenCL device that is a CPU: scripts/install_pocl, or apt-get install pocl-opencl-icd ocl-icd-libopencl1"
_CPU, _NAME = 1 << 1, 0x102B


@functools.cache
def find_device() -> str | None:
    """Returns the name of the first OpenCL device that is a CPU, None where there is none."""
    # For the loader of ICDs, here and in programs that tests start: it shall not take a GPU of this machine instead.
    icds = sorted(Path("/etc/OpenCL/vendors").glob("pocl*.icd"))
    if icds:
        os.environ.setdefault("OCL_ICD_VENDORS", str(icds[0]))
    try:
        opencl = ctypes.CDLL("libOpenCL.so.1")
    except OSError:
        return None
    count = ctypes.c_uint()
    if opencl.clGetPlatformIDs(0, None, ctypes.byref(count)) != 0:
        return None
    platforms = (ctypes.c_void_p * count.value)()
    opencl.clGetPlatformIDs(count, platforms, None)
    for platform in platforms:
        device = ctypes.c_void_p()
        if opencl.clGetDeviceIDs(ctypes.c_void_p(platform), ctypes.c_uint64(_CPU), 1, ctypes.byref(device), None) == 0:
            name = ctypes.create_string_buffer(256)
            opencl.clGetDeviceInfo(device, _NAME, ctypes.c_size_t(256), name, None)
            return name.value.decode(errors="replace").strip()
    return None
