"""What a bundle runs on: the CPU or the GPU of a board."""

from __future__ import annotations

from dataclasses import replace

from svitkit.boards.board import BOARDS_FOLDER, Board, board_names, read_board_file
from svitkit.boards.gpu import Device, Gpu
from svitkit.boards.gpu_devices import CUDA_LIBRARIES, OPENCL_LIBRARIES, find_devices
from svitkit.errors import ConfigError

STAND_IN = "pocl"
"""The board whose CPU stands in for a GPU."""


def choose_device(board: Board, asked: Device | None) -> Device:
    """Returns what to build for: what was asked for, or else the CPU; on ``pocl`` the GPU, as it is nothing else.

    Raises:
        ConfigError: the CPU of a board that only stands in for a GPU was asked for.
    """
    if not board.stands_in_for_gpu:
        return asked or "cpu"
    if asked == "cpu":
        raise ConfigError(
            f"{board.name} runs what is built for GPUs, in OpenCL on the CPU of this machine, and nothing else. For "
            "machine code of this CPU say --board host; for OpenCL leave --device out."
        )
    return "gpu"


def check_gpu_threads(threads: int | str | None) -> None:
    """Refuses more than one thread for a bundle that runs on a GPU.

    Raises:
        ConfigError: several are wanted, or ``auto``.
    """
    if threads not in (None, 1):
        raise ConfigError(
            f"--threads {threads}: on a GPU the threads of the CPU share no work; one starts the kernels. Leave "
            "--threads out."
        )


def check_predictable(board: Board, device: Device) -> None:
    """Refuses to predict latencies of a GPU: the cost model knows what kernels cost on CPUs.

    Raises:
        ConfigError: it would be one.
    """
    if device == "gpu" or board.stands_in_for_gpu:
        raise ConfigError(
            f"objective 'latency' is predicted for CPUs alone, and not for the GPU of {board.name}. Say --objective "
            "macs or memory."
        )


def with_gpu(board: Board) -> Board:
    """Returns a board with its GPU; that of this machine is asked of the drivers.

    Raises:
        ConfigError: it has none.
    """
    if board.gpu is not None:
        return board
    if board.transport == "local":
        return replace(board, gpu=find_gpu())
    raise ConfigError(
        f"{board.name} has no GPU that svitkit builds for. These boards have one: {', '.join(board_gpus())}; "
        f"or build for its CPU with --device cpu."
    )


def board_gpus() -> dict[str, Gpu]:
    """Returns the GPUs of the boards that have one, by the boards' names; that of this machine is not looked for."""
    contents = {name: read_board_file(BOARDS_FOLDER / f"{name}.toml") for name in board_names()}
    return {name: content.gpu for name, content in contents.items() if content.gpu is not None}


def find_gpu() -> Gpu:
    """Returns the GPU of this machine: the first of CUDA, or else the first of OpenCL.

    Raises:
        ConfigError: there is none.
    """
    found = find_devices()
    gpus = [device for device in found.devices if device.type == "gpu"]
    for device in sorted(gpus, key=lambda device: device.api != "cuda"):
        where = f"the {device.api} driver of this machine, version {device.driver}"
        given = {"name": where} | ({} if device.architecture is None else {"architecture": where})
        return Gpu(api=device.api, name=device.name, architecture=device.architecture, sources=given)
    others = ", ".join(f"{device.name} ({device.type})" for device in found.devices)
    why = {"opencl": f"OpenCL offers {others}"} if others else {}
    raise ConfigError(
        f"this machine has no GPU that programs can use. Looked for: {CUDA_LIBRARIES[0]}, and an OpenCL device of type "
        f"GPU through {OPENCL_LIBRARIES[0]}. Got: {'; '.join((found.missing | why).values())}. Install the driver of "
        f"the GPU, or try the path without one: --board {STAND_IN}."
    )
