"""Runs a bundle inside this Python process, through the bundle's own libsvit.

with Session(Path("bundle")) as session:
    logits = session.run(image)
"""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svitkit.errors import ConfigError, RunError, VerificationError, unknown_name
from svitkit.manifest import Manifest, check_files, read_manifest
from svitkit.parts import is_single_file
from svitkit.runtime.bench.runner_report import RunnerDevice
from svitkit.runtime.libsvit import LAYOUTS, DeviceInfo, FrameShape, Layout, Tap, TapCallback, Tensor, load_library

Float32Array = NDArray[np.float32]
Spikes = dict[str, NDArray[np.uint8]]

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_ERROR_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """One layer whose spikes libsvit shows.

    Attributes:
        name: the layer.
        shape, dtype: its tensor as libsvit stores it.
        order: the axes that give the exported graph's order; axes of one element may be missing.
        neurons: shape of one time step in the exported graph, without batch axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]
    neurons: tuple[int, ...]

    def spikes(self, data: bytes) -> NDArray[np.uint8]:
        """Returns the tensor's content as (T, *neurons), 0 or 1."""
        stored = np.frombuffer(data, self.dtype).reshape(self.shape) != 0
        spikes: NDArray[np.uint8] = stored.transpose(self.order).astype(np.uint8)
        return spikes.reshape(-1, *self.neurons)


class Session:
    """A loaded bundle with its neuron states. For one thread at a time.

    Args:
        bundle: the bundle directory, built for this machine's architecture and, if for a GPU, for its GPU.
        threads: threads that share the work of an inference, this one counted; more than CPUs are slower.

    Raises:
        ConfigError: no bundle, built for another architecture or for fewer threads, or libsvit cannot load it, as
            where there is no such GPU.
        VerificationError: a file differs from the manifest. Nothing was loaded then.
    """

    def __init__(self, bundle: Path, *, threads: int = 1) -> None:
        self._handle: int | None = None
        if is_single_file(bundle):
            raise ConfigError(
                f"{bundle} is a program: run it. A session needs the bundle, built without --single-file."
            )
        self.manifest = read_manifest(bundle)
        _check_machine(bundle, self.manifest)
        check_files(bundle, self.manifest)
        self._library = load_library(bundle / "libsvit.so")
        self._handle = self._load(bundle)
        self._set_threads(threads)
        model = self.manifest.model
        self._check_tensor("input", model.input.shape, model.input.dtype)
        self._check_tensor("output", model.output.shape, model.output.dtype)
        self._taps = tuple(self._tap(index) for index in range(self._library.svit_tap_count(self._handle)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Frees the bundle's memory; the session cannot be used any more. May be called again."""
        handle, self._handle = getattr(self, "_handle", None), None
        if handle is not None:
            self._library.svit_free(handle)

    @property
    def device(self) -> RunnerDevice:
        """What the network runs on."""
        found: DeviceInfo = self._library.svit_device(self._open_handle())
        return RunnerDevice(
            api=found.api.decode(),
            type=found.type.decode(),
            name=found.name.decode(errors="replace"),
            driver=found.driver.decode(errors="replace"),
        )

    def reset(self) -> None:
        """Sets every neuron state to its initial value."""
        self._check_status(self._library.svit_reset(self._open_handle()))

    def run(self, x: NDArray[Any]) -> Float32Array:
        """Resets the states and runs one whole inference.

        Args:
            x: float32, normalized. Sequence mode: the graph's input. Step mode: (T, 1, C, H, W) with T the model's time
                steps, or, for a static input, (1, C, H, W) or (1, 1, C, H, W), which is shown T times.

        Returns:
            (1, classes) float32 logits; in step mode their mean over the T steps.

        Raises:
            ConfigError: wrong shape or dtype.
            RunError: a kernel reported an error.
        """
        steps = self._steps(x)
        self.reset()
        total = self._advance(steps[0])
        for step in steps[1:]:
            total += self._advance(step)
        return total / np.float32(len(steps)) if self.manifest.model.mode == "step" else total

    def step(self, x: NDArray[Any]) -> Float32Array:
        """Advances a step-mode network by one time step; the states stay.

        Args:
            x: the graph's input, (1, 1, C, H, W) float32, normalized.

        Returns:
            (1, classes) float32, the logits of this step.

        Raises:
            ConfigError: wrong shape or dtype, or the bundle was exported in sequence mode.
            RunError: a kernel reported an error.
        """
        model = self.manifest.model
        if model.mode != "step":
            raise ConfigError("this bundle runs whole sequences: use run(), or export with --mode step.")
        return self._advance(_checked(x, model.input.shape, model.input.dtype))

    def run_frame(self, frames: NDArray[np.uint8], *, layout: Layout = "hwc") -> Float32Array:
        """Resets the states and runs one whole inference on bytes, which libsvit normalizes.

        Args:
            frames: uint8, (H, W, C), or (C, H, W) with the layout ``chw``; T of them, (T, H, W, C), for a network that
                sees another frame at every time step. One frame is shown T times in step mode.
            layout: ``hwc`` or ``chw``.

        Returns:
            (1, classes) float32 logits, those of :meth:`run` on the normalized frames; in step mode their mean.

        Raises:
            ConfigError: wrong shape, dtype or layout, or the bundle does not say how bytes become its input.
            RunError: a kernel reported an error.
        """
        model = self.manifest.model
        shape = self._frame_shape(layout)
        if model.mode == "sequence":
            steps = [_checked(frames, shape if model.static_input else (model.timesteps, *shape), "uint8")]
        elif frames.shape == shape:
            steps = [_checked(frames, shape, "uint8")] * model.timesteps
        else:
            steps = list(_checked(frames, (model.timesteps, *shape), "uint8"))
        self.reset()
        total = self._advance_frame(steps[0], layout)
        for step in steps[1:]:
            total += self._advance_frame(step, layout)
        return total / np.float32(len(steps)) if model.mode == "step" else total

    def run_with_spikes(self, x: NDArray[Any]) -> tuple[Float32Array, Spikes]:
        """Runs one whole inference like :meth:`run` and records every layer's spikes.

        Returns:
            logits: (1, classes) float32.
            spikes: by layer name, (T, ...) uint8 of 0 and 1, in the exported graph's axis order without batch axis.
        """
        parts: dict[str, list[NDArray[np.uint8]]] = {tap.name: [] for tap in self._taps}

        def receive(index: int, data: bytes) -> None:
            parts[self._taps[index].name].append(self._taps[index].spikes(data))

        with self._watching(receive):
            logits = self.run(x)
        return logits, {name: np.concatenate(steps) for name, steps in parts.items()}

    @contextmanager
    def _watching(self, receive: Callable[[int, bytes], None]) -> Iterator[None]:
        handle = self._open_handle()

        def call(_user: int | None, index: int, data: int, size: int) -> None:
            receive(index, ctypes.string_at(data, size))

        callback = TapCallback(call)
        self._check_status(self._library.svit_set_tap_callback(handle, callback, None))
        try:
            yield
        finally:
            self._library.svit_set_tap_callback(handle, TapCallback(), None)

    def _steps(self, x: NDArray[Any]) -> list[Float32Array]:
        model = self.manifest.model
        shape, dtype = model.input.shape, model.input.dtype
        if model.mode == "sequence":
            return [_checked(x, shape, dtype)]
        frames = (model.timesteps, *shape[1:])
        if model.static_input and x.shape in (shape, shape[1:]):
            return [_checked(x, x.shape, dtype).reshape(shape)] * model.timesteps
        return list(_checked(x, frames, dtype).reshape(model.timesteps, *shape))

    def _advance(self, x: Float32Array) -> Float32Array:
        output = np.empty(self.manifest.model.output.shape, np.float32)
        handle = self._open_handle()
        status = self._library.svit_step(handle, x.ctypes.data, x.nbytes, output.ctypes.data, output.nbytes)
        self._check_status(status)
        return output

    def _frame_shape(self, layout: Layout) -> tuple[int, ...]:
        if layout not in LAYOUTS:
            raise unknown_name("layout", layout, LAYOUTS)
        found: FrameShape = self._library.svit_frame(self._open_handle())
        if found.bytes == 0:
            raise ConfigError("the bundle does not say how bytes become its input. Build it again, or use run().")
        pixels = (found.height, found.width)
        return (*pixels, found.channels) if layout == "hwc" else (found.channels, *pixels)

    def _advance_frame(self, frames: NDArray[np.uint8], layout: Layout) -> Float32Array:
        output = np.empty(self.manifest.model.output.shape, np.float32)
        place = (frames.ctypes.data, frames.nbytes, LAYOUTS.index(layout), output.ctypes.data, output.nbytes)
        self._check_status(self._library.svit_step_frame(self._open_handle(), *place))
        return output

    def _load(self, bundle: Path) -> int:
        handle = ctypes.c_void_p()
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        status = self._library.svit_load(str(bundle).encode(), ctypes.byref(handle), error, _ERROR_BYTES)
        if status != 0 or handle.value is None:
            raise ConfigError(f"{bundle} cannot be loaded: {error.value.decode(errors='replace')}. Build it again.")
        return handle.value

    def _set_threads(self, threads: int) -> None:
        most = self._library.svit_max_threads(self._open_handle())
        if not 1 <= threads <= most:
            raise ConfigError(
                f"threads={threads}, the bundle was built for 1 to {most}. Choose one of these, or build for a board "
                "with more cores."
            )
        self._check_status(self._library.svit_set_threads(self._open_handle(), threads))

    def _check_tensor(self, which: str, shape: tuple[int, ...], dtype: str) -> None:
        tensor: Tensor = getattr(self._library, f"svit_{which}")(self._open_handle())
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if tensor.dtype.decode() != dtype or tensor.bytes != size:
            raise VerificationError(
                f"the program's {which} is {tensor.dtype.decode()} of {tensor.bytes} bytes, the manifest says {dtype} "
                f"{shape}. Build the bundle again."
            )

    def _tap(self, index: int) -> _Watched:
        tap = Tap()
        self._check_status(self._library.svit_tap_at(self._open_handle(), index, ctypes.byref(tap)))
        name = tap.name.decode()
        shape = tuple(tap.tensor.shape[axis] for axis in range(tap.tensor.ndim))
        model = self.manifest.model
        states = {layer.name: layer.state_shape for layer in model.lif_layers}
        timesteps = model.timesteps if model.mode == "sequence" else 1
        if name not in states or math.prod(shape) != timesteps * math.prod(states[name]):
            raise VerificationError(
                f"the program shows spikes {shape} of layer '{name}', the manifest says {timesteps} time steps of "
                f"{states.get(name, 'no such layer')}. Build the bundle again."
            )
        return _Watched(
            name=name,
            shape=shape,
            dtype=np.dtype(tap.tensor.dtype.decode()),
            order=tuple(tap.order[axis] for axis in range(tap.tensor.ndim)),
            neurons=states[name][1:],
        )

    def _open_handle(self) -> int:
        if self._handle is None:
            raise ConfigError("this session is closed: open a new one.")
        return self._handle

    def _check_status(self, status: int) -> None:
        if status != 0:
            reason: bytes = self._library.svit_last_error(self._open_handle())
            raise RunError(f"the bundle failed to run: {reason.decode(errors='replace')}.")


def _check_machine(bundle: Path, manifest: Manifest) -> None:
    machine = platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    built_for = manifest.triple.split("-")[0]
    if built_for != machine:
        raise ConfigError(
            f"{bundle} is built for {built_for}, this machine is {machine}: run it through board {manifest.board}."
        )


def _checked(x: NDArray[Any], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if x.shape != shape or x.dtype != np.dtype(dtype):
        raise ConfigError(f"the input is {x.dtype} {x.shape}, wanted {dtype} {shape}.")
    return np.ascontiguousarray(x)
