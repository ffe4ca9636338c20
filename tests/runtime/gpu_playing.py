"""Plays a hand-written network as a GPU would: kernels in OpenCL C, through libsvit, on any OpenCL device."""

from __future__ import annotations

import ctypes
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from svitkit.runtime.gpu_code import compile_gpu
from svitkit.runtime.import_onnx import Graph
from svitkit.runtime.libsvit import Tap, TapCallback, load_library
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.program import GpuTarget, Precision, Program, to_text, weight_bytes
from svitkit.runtime.toolchain import build_runner
from tests.runtime import bundles
from tests.runtime.playing import COSTS_HERE, SMALL, Array


def lower_for_gpu(network: Graph, target: GpuTarget) -> Program:
    """Translates a network by hand for a GPU."""
    return lower(network, unit=SMALL, costs=COSTS_HERE, parts=1, gpu=target)


class GpuPlayer:
    """A program for any OpenCL device with its memory; :class:`tests.runtime.playing.Player` for GPUs."""

    def __init__(self, network: Graph, *, precision: Precision = "fp32") -> None:
        self.program = lower_for_gpu(network, GpuTarget(api="opencl", allows_cpu=True, precision=precision))
        self.source = compile_gpu(self.program, bundles.HOST)
        self.plan = plan_memory(self.program)
        self._library = load_library(build_runner(bundles.HOST).libsvit)
        self._session = ctypes.c_void_p()
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "program.txt").write_text(to_text(self.program, self.plan))
            (folder / "weights.bin").write_bytes(weight_bytes(self.program, self.plan))
            (folder / "kernels.cl").write_text(self.source)
            error = ctypes.create_string_buffer(4096)
            self._library.svit_load(name.encode(), ctypes.byref(self._session), error, len(error))
        assert self._session, error.value.decode()

    def __del__(self) -> None:
        if hasattr(self, "_session"):
            self._library.svit_free(self._session)

    def run(self, x: Array) -> Array:
        """Plays every launch and returns the output, flat; the layers' spikes are in ``spikes``."""
        self.spikes: dict[str, Array] = {}

        def keep(_user: int | None, index: int, data: int, size: int) -> None:
            tap = Tap()
            self._library.svit_tap_at(self._session, index, ctypes.byref(tap))
            axes = range(tap.tensor.ndim)
            stored = np.frombuffer(ctypes.string_at(data, size), np.uint8)
            stored = stored.reshape([tap.tensor.shape[axis] for axis in axes])
            self.spikes[tap.name.decode()] = stored.transpose([tap.order[axis] for axis in axes])

        callback = TapCallback(keep)
        self._library.svit_set_tap_callback(self._session, callback, None)
        given = np.ascontiguousarray(x, np.float32)
        output = np.empty(self.program.output.elements, self.program.output.dtype)
        status = self._library.svit_step(
            self._session, given.ctypes.data, given.nbytes, output.ctypes.data, output.nbytes
        )
        assert status == 0, self._library.svit_last_error(self._session).decode()
        return output

    def kernels(self) -> list[str]:
        """Names of the kernels that a run launches, without their numbers."""
        return [call.symbol.rsplit("_", 1)[0] for call in self.program.calls if not call.prepares]
