"""What all tests share: few threads, so that test processes do not fight over the cores, and an OpenCL device."""

from __future__ import annotations

import os

import pytest

from tests.runtime import pocl as opencl

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


@pytest.fixture(scope="session")
def pocl() -> str:
    """Name of an OpenCL device that is a CPU; tests that need one are skipped where there is none."""
    name = opencl.find_device()
    if name is None:
        pytest.skip(opencl.MISSING)
    return name
