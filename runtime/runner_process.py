"""Runs ``svit-run``, the program inside every bundle, on a board and reads the one JSON object it prints."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from svitkit.boards.transports import Completed, Transport
from svitkit.errors import RunError

RUNNER_NAME = "svit-run"
ADVICE = {
    signal.SIGILL: "the machine code uses instructions that this CPU lacks; build the bundle for this board",
    signal.SIGKILL: "the system killed it, usually for want of memory; prune further or close other programs",
    signal.SIGBUS: "a file of the bundle is shorter than it was; copy or build the bundle again",
    signal.SIGSEGV: "it read outside its memory; build the bundle again, and report a bug if that does not help",
    signal.SIGABRT: "it gave up; its last words are above",
}


STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LayerTime:
    """One kernel call of the network, over the inferences of a profile.

    Attributes:
        layer: the layer's name in the trained network; of an operation without one, the graph's own name.
        kernel: the function in the machine code.
        p50_ns: median over the inferences; in step mode one inference is all its time steps.
        total_ns: sum over the inferences.
        calls: how often the function was called for this layer.
    """

    layer: str
    kernel: str
    p50_ns: int
    total_ns: int
    calls: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunnerReport:
    """What ``svit-run`` prints.

    Attributes:
        load_ns: loading the bundle.
        first_ns: the first inference.
        samples_ns: the timed inferences, empty unless asked for.
        vm_hwm_bytes, pss_bytes, private_bytes: memory of the process; None where the kernel does not tell.
        floor_bytes: what a network of no size would take: libraries, machine code, one input and one output.
        weights_resident_bytes: of the mapped weights, whole pages.
        weights_bytes, state_bytes, workspace_bytes: the static memory plan.
        cpu_features: CPU features by their names in /proc/cpuinfo, as the kernel told the program.
        threads: threads that shared the work.
        accuracy_samples: number of inputs that were run.
        profile: cost of every kernel call in the order of execution, if it was asked for.
        profile_overhead_ns: what the clock adds to every call of the profile.
        profile_p50_ns: median of the profile's inferences as a whole.
    """

    load_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    vm_hwm_bytes: int | None = None
    pss_bytes: int | None = None
    private_bytes: int | None = None
    floor_bytes: int | None = None
    weights_resident_bytes: int | None = None
    weights_bytes: int
    state_bytes: int
    workspace_bytes: int
    cpu_features: tuple[str, ...]
    threads: int
    accuracy_samples: int | None = None
    profile: tuple[LayerTime, ...] | None = None
    profile_overhead_ns: float | None = None
    profile_p50_ns: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """A bundle that lies on a board, ready to run.

    Attributes:
        transport: the way to the board.
        bundle: the bundle's path there, or the single file's.
        mode: ``sequence`` or ``step``.
        timesteps: T of one inference.
        classes: number of logits.
        work: a directory of this machine for inputs and outputs.
        timeout_s: longest time for one run.
        threads: threads that share the work.
        is_single_file: whether the bundle is the program itself.
    """

    transport: Transport
    bundle: str
    mode: str
    timesteps: int
    classes: int
    work: Path
    timeout_s: float
    threads: int = 1
    is_single_file: bool = False

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
            spikes: (bytes,) uint8, 0 or 1, in the order of :func:`svitkit.runtime.firing_rates.read_taps`.
        """
        logits = self._infer(inputs, ["--spikes", "spikes.bin"])
        return logits, np.fromfile(self._pull("spikes.bin"), np.uint8)

    def time(
        self, inputs: str, *, count: int, warmup: int, repeat: int, min_time_s: float, profile: bool = False
    ) -> RunnerReport:
        """Times inferences.

        Args:
            inputs: path on the board of a file with inputs.
            count: inputs in that file; they are taken in turn.
            warmup: runs before the samples.
            repeat: least number of samples.
            min_time_s: least time that the timed part takes.
            profile: whether kernel calls are timed as well, in further inferences after the samples.

        Raises:
            RunError: the program failed.
        """
        limits = ["--warmup", str(warmup), "--repeat", str(repeat), "--min-time-s", f"{min_time_s:g}"]
        wanted = ["--profile"] if profile else []
        report = self._run(["--input", inputs, "--count", str(count), *limits, *wanted])
        if len(report.samples_ns) < repeat:
            raise RunError(
                f"{RUNNER_NAME} took {len(report.samples_ns)} samples, wanted {repeat}. "
                "Build the bundle again with this version of svitkit."
            )
        return report

    def _infer(self, inputs: NDArray[np.float32], options: Sequence[str]) -> NDArray[np.float32]:
        local = self.work / "input.bin"
        local.write_bytes(np.ascontiguousarray(inputs, "<f4").tobytes())
        remote = self.transport.push(local)
        untimed = ["--warmup", "0", "--repeat", "0"]
        self._run(["--input", remote, "--count", str(len(inputs)), "--output", "output.bin", *untimed, *options])
        logits = np.fromfile(self._pull("output.bin"), "<f4")
        if logits.size != len(inputs) * self.classes:
            raise RunError(
                f"{RUNNER_NAME} wrote {logits.size} logits for {len(inputs)} inputs of {self.classes} classes. "
                "Build the bundle again with this version of svitkit."
            )
        return logits.reshape(len(inputs), self.classes)

    def _pull(self, name: str) -> Path:
        self.transport.pull(name, self.work / name)
        return self.work / name

    def _run(self, arguments: Sequence[str]) -> RunnerReport:
        program = str(PurePosixPath(self.bundle) / RUNNER_NAME)
        start = [self.bundle] if self.is_single_file else [program, self.bundle]
        mode = ["--mode", self.mode, *(["--timesteps", str(self.timesteps)] if self.mode == "step" else [])]
        threads = ["--threads", str(self.threads)]
        completed = self.transport.run([*start, *mode, *threads, *arguments], self.timeout_s)
        check_end(completed)
        return parse_report(completed.stdout)


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


def parse_report(text: str) -> RunnerReport:
    """Reads what ``svit-run`` printed.

    Raises:
        RunError: it is not the JSON object that this version of svitkit expects.
    """
    try:
        return TypeAdapter(RunnerReport).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise RunError(
            f"{RUNNER_NAME} printed {text.strip()[:80]!r}, which is not its report ({where}: {first['msg']}). "
            "Build the bundle again with this version of svitkit."
        ) from None
