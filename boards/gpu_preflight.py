"""Whether a bundle for a GPU can run on a board, and on the device that stands for it."""

from __future__ import annotations

from svitkit.boards.board import Board
from svitkit.boards.device_facts import DeviceFacts
from svitkit.boards.devices import board_gpus, with_gpu
from svitkit.boards.gpu import Gpu
from svitkit.boards.gpu_devices import CUDA_LIBRARIES, OPENCL_LIBRARIES
from svitkit.boards.jetpack import first_release, release_of, version_numbers
from svitkit.errors import ConfigError
from svitkit.manifest import GpuPlan, Manifest

PLACES = "the loader's cache, /usr/lib/*/tegra, /usr/lib/*/nvidia, /usr/lib/*"


def check_gpu(manifest: Manifest, board: Board) -> None:
    """Checks the GPU that a bundle was built for against that of a board.

    Raises:
        ConfigError: the board has none, or another one; the message says what to build instead.
    """
    build = f"Build it again: svitkit build model.onnx --board {board.name}"
    if manifest.gpu is None:
        if board.stands_in_for_gpu:
            raise ConfigError(
                f"the bundle was built for the CPU of {manifest.board}, and {board.name} runs what is built for GPUs "
                f"alone. {build} --device gpu -o BUNDLE; or run it as it is with --board host."
            )
        return
    wanted = f"the bundle was built for the GPU of {manifest.board} ({_plan_kind(manifest.gpu)})"
    if board.gpu is None and board.transport != "local":
        raise ConfigError(
            f"{wanted}, and {board.name} has none that svitkit builds for. {build} -o BUNDLE, for its CPU; these "
            f"boards have a GPU: {', '.join(board_gpus())}."
        )
    gpu = with_gpu(board).gpu
    assert gpu is not None
    if (manifest.gpu.api, manifest.gpu.architecture) != (gpu.api, gpu.architecture):
        raise ConfigError(
            f"{wanted}, and {board.name} has another one: {gpu.name} ({gpu.kind}). {build} --device gpu -o BUNDLE"
        )
    if manifest.gpu.allows_cpu and not gpu.allows_cpu:
        raise ConfigError(
            f"{wanted}, where a CPU may take its place, so that its figures would not surely be those of "
            f"{board.name}'s GPU. {build} --device gpu -o BUNDLE"
        )
    if gpu.allows_cpu and not manifest.gpu.allows_cpu:
        raise ConfigError(
            f"{wanted} and refuses to run on a CPU, as that of {board.name} is. {build} --device gpu -o BUNDLE"
        )


def _plan_kind(plan: GpuPlan) -> str:
    kind = "OpenCL" if plan.architecture is None else f"CUDA {plan.architecture}"
    return f"{kind}, a CPU in place of it" if plan.allows_cpu else kind


def soc_mismatches(facts: DeviceFacts, board: Board) -> list[str]:
    """Returns what the device tree says against the board: another SoC, or another module with the same SoC."""
    gpu = board.gpu
    if gpu is None or gpu.device_tree is None or not facts.compatible:
        return []
    if gpu.device_tree not in facts.compatible:
        return [
            f"its device tree says {', '.join(facts.compatible)}, and that of {board.name} says {gpu.device_tree}; "
            f"name the board that it is{_suggestion(facts)}."
        ]
    modules = {name: _modules(other, facts) for name, other in board_gpus().items()}
    if gpu.modules is None or modules[board.name] or not any(modules.values()):
        return []
    (other, found), *_ = ((name, found) for name, found in modules.items() if found)
    return [
        f"its module is {found[0]}, that of {other}, so that its figures would bear a wrong name; say --board {other}."
    ]


def gpu_mismatches(facts: DeviceFacts, board: Board) -> list[str]:
    """Returns what speaks against running a bundle for a board's GPU on a device: no driver, or one too old."""
    gpu = board.gpu
    if gpu is None:
        return []
    return [*_driver(facts, gpu), *_jetpack(facts, board, gpu)]


def _driver(facts: DeviceFacts, gpu: Gpu) -> list[str]:
    libraries = CUDA_LIBRARIES if gpu.api == "cuda" else OPENCL_LIBRARIES
    if facts.drivers is None or facts.has_driver(libraries):
        return []
    what = "NVIDIA's CUDA driver, which is part of JetPack" if gpu.api == "cuda" else "an OpenCL driver of its GPU"
    names = " or ".join(libraries)
    return [f"it has no {names}; looked for in {PLACES}; install {what}, or build for its CPU."]


def _jetpack(facts: DeviceFacts, board: Board, gpu: Gpu) -> list[str]:
    """Newer drivers run what was built for older ones, so that only older ones are refused."""
    if facts.l4t is None or gpu.jetpack is None or gpu.cuda is None:
        return []
    found, oldest = release_of(facts.l4t), first_release(gpu.jetpack[0])
    if oldest is None or version_numbers(facts.l4t) >= version_numbers(oldest.l4t):
        return []
    told = f"L4T {facts.l4t}" + (f" (JetPack {found.jetpack}, CUDA {found.cuda})" if found is not None else "")
    return [
        f"it has {told}, and kernels for {board.name} need CUDA {gpu.cuda[0]} or newer, of JetPack {gpu.jetpack[0]} "
        f"(L4T {oldest.l4t}); install a newer JetPack on it, or build for its CPU."
    ]


def _suggestion(facts: DeviceFacts) -> str:
    """Names the boards that have the SoC of a device, or the one that has its module."""
    same = {name: gpu for name, gpu in board_gpus().items() if gpu.device_tree in facts.compatible}
    exact = [name for name, gpu in same.items() if _modules(gpu, facts)]
    names = exact or list(same)
    if not names:
        return " with --board"
    listed = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return f", {listed}, with --board, and build again for it"


def _modules(gpu: Gpu, facts: DeviceFacts) -> list[str]:
    """Returns the modules of a board that a device tree names, as ``nvidia,p3768-0000+p3767-0005`` does."""
    return [module for module in gpu.modules or () if any(module in text for text in facts.compatible)]
