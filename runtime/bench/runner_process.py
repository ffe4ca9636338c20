"""Runs ``svit-run``, the program inside every bundle, on a board and reads the one JSON object it prints."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.gpu import Device
from svitkit.boards.transports import Completed, Transport
from svitkit.errors import RunError
from svitkit.runtime.bench.options import BenchOptions
from svitkit.runtime.bench.power_meter import Meter
from svitkit.runtime.bench.runner_report import (
    BUILD_AGAIN,
    RUNNER_NAME,
    EnergyReport,
    RunnerReport,
    StreamReport,
    SustainedReport,
    parse_report,
)

UNTIMED = ("--warmup", "0", "--repeat", "0")
T = TypeVar("T")
ADVICE = {
    signal.SIGILL: "the machine code uses instructions that this CPU lacks; build the bundle for this board",
    signal.SIGKILL: "the system killed it, usually for want of memory; prune further or close other programs",
    signal.SIGBUS: "a file of the bundle is shorter than it was; copy or build the bundle again",
    signal.SIGSEGV: "it read outside its memory; build the bundle again, and report a bug if that does not help",
    signal.SIGABRT: "it gave up; its last words are above",
}


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file of inputs on the board.

    Attributes:
        path: there.
        count: inputs in it.
    """

    path: str
    count: int

    @property
    def words(self) -> tuple[str, ...]:
        """As the program takes it."""
        return "--input", self.path, "--count", str(self.count)


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A bundle that lies on a board, ready to run.

    Attributes:
        transport: the way to the board.
        bundle: the bundle's path there, or the single file's.
        mode: ``sequence`` or ``step``.
        timesteps: T of one inference.
        classes: number of logits.
        work: a directory of this machine for inputs and outputs.
        timeout_s: longest time for one run, beside the time that is asked for.
        threads: threads that share the work.
        cpus: cores that they stay on; empty: the system chooses.
        is_single_file: whether the bundle is the program itself.
        require_device: the kind of device that it must run on; None for any.
    """

    transport: Transport
    bundle: str
    mode: str
    timesteps: int
    classes: int
    work: Path
    timeout_s: float
    threads: int = 1
    cpus: tuple[int, ...] = ()
    is_single_file: bool = False
    require_device: Device | None = None

    def infer(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs the network on inputs, each from reset states.

        Args:
            inputs: (N, ...) float32. In step mode one input is a frame, shown at every time step, or all T frames.

        Returns:
            logits: (N, classes) float32; in step mode their mean over the time steps.

        Raises:
            RunError: the program failed.
        """
        return self._infer(inputs, [])

    def infer_with_spikes(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Runs the network on inputs like :meth:`infer` and watches every layer.

        Returns:
            logits: (N, classes) float32.
            spikes: (bytes,) uint8, 0 or 1, in the order of :func:`svitkit.runtime.bench.firing_rates.read_taps`.
        """
        logits = self._infer(inputs, ["--spikes", "spikes.bin"])
        return logits, np.fromfile(self._pull("spikes.bin"), np.uint8)

    def time(self, inputs: InputFile, options: BenchOptions) -> RunnerReport:
        """Times inferences.

        Args:
            inputs: are taken in turn.
            options: warm-up, number of samples, least time, and whether kernel calls are timed as well, in further
                inferences after the samples.

        Raises:
            RunError: the program failed.
        """
        limits = {
            "--warmup": options.warmup,
            "--warmup-s": options.warmup_s,
            "--repeat": options.repeat,
            "--min-time-s": options.min_time_s,
        }
        words = [*_words(limits), *(["--profile"] if options.profile else [])]
        report = self._run([*inputs.words, *words], further_s=options.warmup_s + options.min_time_s)
        if len(report.samples_ns) < options.repeat:
            raise RunError(
                f"{RUNNER_NAME} took {len(report.samples_ns)} samples, wanted {options.repeat}. {BUILD_AGAIN}"
            )
        return report

    def sustain(self, inputs: InputFile, duration_s: float, sensors: Sequence[str]) -> SustainedReport:
        """Runs inferences without a break.

        Args:
            inputs: are taken in turn.
            duration_s: for so long.
            sensors: files on the board that are read between two windows.

        Raises:
            RunError: the program failed.
        """
        words = [*UNTIMED, *_words({"--sustain-s": duration_s}), *_repeated("--sensor", sensors)]
        report = _present(self._run([*inputs.words, *words], further_s=duration_s).sustained)
        if any(len(reading.values) != len(sensors) for reading in report.readings):
            raise RunError(f"{RUNNER_NAME} did not read the {len(sensors)} sensors it was told to. {BUILD_AGAIN}")
        return report

    def stream(self, inputs: InputFile, frames: int, fps: float | None) -> StreamReport:
        """Streams frames.

        Args:
            inputs: their frames come in turn, round and round.
            frames: how many.
            fps: arrivals per second; None: each comes when the last one is done.

        Raises:
            RunError: the program failed.
        """
        words = [*UNTIMED, *_words({"--stream": frames} | ({} if fps is None else {"--fps": fps}))]
        return _present(self._run([*inputs.words, *words], further_s=0 if fps is None else frames / fps).stream)

    def measure_energy(self, inputs: InputFile, seconds: float, meter: Meter) -> EnergyReport:
        """Rests, runs inferences, and rests, while the power is read.

        Args:
            inputs: are taken in turn.
            seconds: length of each of the three phases.
            meter: what is read.

        Raises:
            RunError: the program failed.
        """
        limits = _words({"--energy-s": seconds, "--sensor-period-s": meter.period_s})
        sensors = [*_repeated("--sensor", meter.files), *_repeated("--sensor-command", meter.commands)]
        report = self._run([*inputs.words, *UNTIMED, *limits, *sensors], further_s=3 * seconds)
        return _present(report.energy)

    def _infer(self, inputs: NDArray[np.float32], options: Sequence[str]) -> NDArray[np.float32]:
        local = self.work / "input.bin"
        local.write_bytes(np.ascontiguousarray(inputs, "<f4").tobytes())
        remote = self.transport.push(local)
        shown = InputFile(path=remote, count=len(inputs))
        self._run([*shown.words, "--output", "output.bin", *UNTIMED, *options])
        logits = np.fromfile(self._pull("output.bin"), "<f4")
        if logits.size != len(inputs) * self.classes:
            raise RunError(
                f"{RUNNER_NAME} wrote {logits.size} logits for {len(inputs)} inputs of {self.classes} classes. "
                f"{BUILD_AGAIN}"
            )
        return logits.reshape(len(inputs), self.classes)

    def _pull(self, name: str) -> Path:
        self.transport.pull(name, self.work / name)
        return self.work / name

    def _run(self, arguments: Sequence[str], *, further_s: float = 0.0) -> RunnerReport:
        program = str(PurePosixPath(self.bundle) / RUNNER_NAME)
        start = [self.bundle] if self.is_single_file else [program, self.bundle]
        mode = ["--mode", self.mode, *(["--timesteps", str(self.timesteps)] if self.mode == "step" else [])]
        cores = ["--threads", str(self.threads)]
        if self.cpus:
            cores += ["--cpus", ",".join(str(cpu) for cpu in self.cpus)]
        if self.require_device is not None:
            cores += ["--require-device", self.require_device]
        timeout_s = self.timeout_s + further_s
        completed = self.transport.run([*start, *mode, *cores, *arguments], timeout_s)
        check_end(completed)
        return parse_report(completed.stdout)


def _words(options: Mapping[str, float]) -> list[str]:
    return [word for name, value in options.items() for word in (name, f"{value:.9g}")]


def _repeated(name: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (name, value)]


def _present(phase: T | None) -> T:
    if phase is None:
        raise RunError(f"{RUNNER_NAME} did not report what it was asked for. {BUILD_AGAIN}")
    return phase


def check_end(completed: Completed) -> None:
    """Raises RunError unless a program ended well, with its last words, its signal by name, and what to do."""
    if completed.returncode == 0:
        return
    words = completed.stderr.strip().splitlines()
    said = f" It said: {words[-1]}" if words else " It said nothing."
    number = -completed.returncode
    if number > 0:
        known = number in {item.value for item in signal.Signals}
        name = signal.Signals(number).name if known else f"signal {number}"
        advice = ADVICE.get(signal.Signals(number)) if known else None
        raise RunError(f"{RUNNER_NAME} was ended by {name}.{said}" + (f" ({name}: {advice}.)" if advice else ""))
    raise RunError(f"{RUNNER_NAME} failed with exit status {completed.returncode}.{said}")
