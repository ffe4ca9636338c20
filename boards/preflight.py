"""Whether a bundle can run on a board, decided before anything runs there."""

from __future__ import annotations

from collections.abc import Iterable

from svitkit.boards.board import Board, boards_with, read_cpus
from svitkit.boards.device_facts import MUSL, DeviceFacts
from svitkit.boards.gpu import Device
from svitkit.boards.gpu_preflight import check_gpu, gpu_mismatches, soc_mismatches
from svitkit.errors import ConfigError
from svitkit.manifest import Manifest

# Linux has pages of 4, 16 or 64 KiB on aarch64; the segments of our programs are aligned for all of them.
LARGEST_PAGE = 65536
# Code and libraries of svit-run, with room; the floor that records show is 2.4 MB.
PROGRAM_BYTES = 8 << 20


def check_bundle(manifest: Manifest, board: Board) -> None:
    """Checks architecture, GPU, CPU features and C library of a bundle against a board.

    Without this check the program dies on the board: of an illegal instruction, or with ``GLIBC_2.xx not found``.

    Raises:
        ConfigError: the bundle cannot run there; the message says what to build instead.
    """
    on_gpu = " --device gpu" if manifest.gpu is not None and board.gpu is not None else ""
    rebuild = f"Build it again for this board: svitkit build model.onnx --board {board.name}{on_gpu} -o BUNDLE"
    if manifest.triple != board.triple:
        raise ConfigError(
            f"the bundle was built for {manifest.board} ({manifest.triple}), but {board.name} runs {board.triple}. "
            f"{rebuild}"
        )
    check_gpu(manifest, board)
    missing = missing_features(manifest.required_features, board.cpu_features)
    if missing:
        raise ConfigError(
            f"the bundle was built for {manifest.board} and may use CPU features that {board.name} lacks: "
            f"{', '.join(missing)}. There it would die of an illegal instruction. {rebuild}"
        )
    available = board.system_glibc or board.glibc
    if manifest.glibc_floor is not None and _version(manifest.glibc_floor) > _version(available):
        raise ConfigError(
            f"the bundle needs glibc {manifest.glibc_floor} or newer, but {board.name} has {available}. {rebuild}"
        )


def check_device(
    facts: DeviceFacts,
    board: Board,
    manifest: Manifest | None = None,
    threads: int | None = None,
    *,
    device: Device = "cpu",
) -> None:
    """Checks what a device says of itself against the board that it should be, and against a bundle.

    Args:
        facts: of the device.
        board: what was asked for.
        manifest: of the bundle that is to run; the board alone is compared if None.
        threads: threads of an inference; the board's own number if None.
        device: what will run it, where there is no bundle yet.

    Raises:
        ConfigError: programs for the board would not run there, or would be measured under a wrong name.
    """
    found = mismatches(facts, board, manifest, threads, device=device)
    if found:
        raise ConfigError(f"{facts.name} cannot run this as {board.name}: {' '.join(found)} Nothing was sent.")


def mismatches(
    facts: DeviceFacts,
    board: Board,
    manifest: Manifest | None = None,
    threads: int | None = None,
    *,
    device: Device = "cpu",
) -> list[str]:
    """Returns what speaks against running on a device, one sentence each; see :func:`check_device`."""
    machine = board.triple.partition("-")[0]
    if facts.architecture not in (None, machine):
        return [_wrong_architecture(facts, board, machine)]
    found = [*_system(facts, machine), *_c_library(facts, board, manifest)]
    found += soc_mismatches(facts, board) or _cores(facts, board, manifest)
    if (manifest.device if manifest is not None else device) == "gpu":
        found += gpu_mismatches(facts, board)
    return [*found, *_size(facts, board, manifest, threads)]


def _wrong_architecture(facts: DeviceFacts, board: Board, machine: str) -> str:
    if machine == "aarch64" and (facts.architecture or "").startswith("arm"):
        return (
            f"its system is a 32-bit one ({facts.architecture}), and programs are {machine}; install the 64-bit system."
        )
    return (
        f"it is {facts.architecture}, and {board.name} is {machine}; check where --host leads, or name the board that "
        "it is with --board and build again."
    )


def _system(facts: DeviceFacts, machine: str) -> list[str]:
    found = []
    if facts.word_bits == 32 and machine == "aarch64":
        found.append("its kernel has 64 bits, but its programs and libraries have 32; install the 64-bit system.")
    if facts.page_size is not None and facts.page_size > LARGEST_PAGE:
        found.append(f"its pages have {facts.page_size} bytes, and programs start with up to {LARGEST_PAGE}.")
    if not facts.hashes:
        found.append("it has no sha256sum, which is needed to check what was sent; install busybox or coreutils.")
    return found


def _c_library(facts: DeviceFacts, board: Board, manifest: Manifest | None) -> list[str]:
    needed = board.glibc if manifest is None else manifest.glibc_floor
    if needed is None:
        return []
    if facts.libc == MUSL:
        return [
            f"its C library is musl, and programs need glibc {needed} or newer; install a system with glibc, or build "
            "with --single-file."
        ]
    if facts.libc is not None and _version(facts.libc) < _version(needed):
        return [f"it has glibc {facts.libc}, and programs need {needed} or newer; install a newer system on it."]
    return []


def _cores(facts: DeviceFacts, board: Board, manifest: Manifest | None) -> list[str]:
    required = board.required_features if manifest is None else manifest.required_features
    missing = missing_features(required, facts.cpu_features) if facts.cpu_features else []
    if missing:
        return [
            f"its cores lack {', '.join(missing)}, which the machine code may use: it would die of an illegal "
            f"instruction; build for the board that it is{_suggestion(facts)}."
        ]
    part = read_cpus()[board.facts.cpu].part if board.facts.cpu is not None else None
    if part is None or not facts.parts or part in facts.parts:
        return []
    return [
        f"{board.name} has {board.mcpu} cores ({part}) and this device others ({', '.join(facts.parts)}), so that its "
        f"figures would bear a wrong name; name the board that it is{_suggestion(facts)}."
    ]


def _suggestion(facts: DeviceFacts) -> str:
    """Names the boards that have the cores of a device."""
    names = boards_with(facts.parts)
    return f", one of {', '.join(names)}, with --board" if names else " with --board"


def _size(facts: DeviceFacts, board: Board, manifest: Manifest | None, threads: int | None) -> list[str]:
    found = []
    wanted = threads or board.threads
    if facts.cores is not None and wanted > facts.cores:
        found.append(
            f"{wanted} threads are wanted and {facts.cores} cores switched on; switch the others on (a Jetson: "
            f"nvpmodel), or say --threads {facts.cores}."
        )
    if manifest is not None and facts.available_bytes is not None:
        needed = manifest.weights_bytes + manifest.state_bytes + manifest.workspace_bytes + PROGRAM_BYTES
        if needed > facts.available_bytes:
            found.append(
                f"the network needs {needed >> 20} MiB and {facts.available_bytes >> 20} MiB are free; end other "
                "programs, or compress further."
            )
    return found


def missing_features(required: Iterable[str], available: Iterable[str]) -> list[str]:
    """Returns the required CPU features that are not available, sorted."""
    return sorted(set(required) - set(available))


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise ConfigError(
            f"'{text}' is no glibc version. Wanted two numbers, such as 2.27; build the bundle again."
        ) from None
