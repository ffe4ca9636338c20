"""Boards: what code may be built for them and how they are reached, read from one TOML file each.

``<board>.toml`` holds the facts of a board, each with its source; ``cpus.toml`` holds what a CPU model offers, shared
by all boards that have it. The board ``host`` is completed from the machine that svitkit runs on. Where the same board
stands in several places, the user's boards.toml names the places (:mod:`svitkit.boards.hosts`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, PositiveInt
from pydantic.dataclasses import dataclass

from svitkit.boards.gpu import Gpu
from svitkit.boards.hosts import config_path, read_hosts
from svitkit.boards.machine import Machine, read_machine
from svitkit.errors import ConfigError, UnsupportedError, unknown_name
from svitkit.manifest import from_json

BOARDS_FOLDER = Path(__file__).resolve().parent
CPUS_FILE = BOARDS_FOLDER / "cpus.toml"
GLIBC_FLOOR = "2.27"
# Of one inference. At batch 1 more threads would wait for each other longer than they compute.
MOST_THREADS = 8
STRICT = ConfigDict(extra="forbid", strict=True)
Transport = Literal["local", "qemu", "ssh"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cpu:
    """What code built for one CPU model may use.

    Attributes:
        triple: GNU triple.
        llvm_features: subtarget features for LLVM beyond those of the model, ``+name`` or ``-name``.
        features: instruction sets by their names in /proc/cpuinfo.
        model: LLVM's name of the model where the entry's own is another one.
        part: an Arm core's implementer and number, ``0x41:0xd08``, as /proc/cpuinfo has them.
    """

    triple: str
    llvm_features: tuple[str, ...]
    features: tuple[str, ...]
    model: str | None = None
    part: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BoardFile:
    """The content of ``<board>.toml``.

    Attributes:
        title: the board's name for people.
        transport: how programs are run on it.
        cpu: a model of cpus.toml; None for the machine that svitkit runs on.
        cores: CPU cores, big and little; None where programs run on the cores of the machine that svitkit runs on.
        big_cores: cores of the named model where the others are slower or of another kind; None where all are the same.
        memory_bytes: RAM of the smallest variant; None in the same case.
        qemu_cpu: CPU model of qemu-aarch64; set with the transport ``qemu`` and only there.
        clock_mhz: highest clock of the (fastest) cores.
        l2_bytes: L2 cache; the smallest one that a core of the named model sees.
        l3_bytes: last-level cache shared by those cores.
        memory_bandwidth_bytes_per_s: peak RAM bandwidth.
        system: the usual operating system.
        system_glibc: glibc version of that system.
        gpu: its GPU; None where it has none that kernels are built for.
        sources: where each fact comes from, by its key; ``not verified`` where nothing was looked up.
    """

    title: str
    transport: Transport
    cpu: str | None = None
    cores: PositiveInt | None = None
    big_cores: PositiveInt | None = None
    memory_bytes: PositiveInt | None = None
    qemu_cpu: str | None = None
    clock_mhz: PositiveInt | None = None
    l2_bytes: PositiveInt | None = None
    l3_bytes: PositiveInt | None = None
    memory_bandwidth_bytes_per_s: PositiveInt | None = None
    system: str | None = None
    system_glibc: str | None = None
    gpu: Gpu | None = None
    sources: dict[str, str]

    def facts(self) -> set[str]:
        """Returns the keys that need a source: all that are given but the title and the transport."""
        return {key for key, value in vars(self).items() if value is not None} & FACTS


FACTS = {field.name for field in fields(BoardFile)} - {"title", "transport", "qemu_cpu", "gpu", "sources"}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Board:
    """A board that bundles are built for and run on.

    Attributes:
        name: the name on the command line.
        title: the name for people.
        transport: ``local`` (this machine), ``qemu`` (emulated here), ``ssh`` (elsewhere).
        triple: GNU triple of its machine code.
        mcpu: CPU model by LLVM's name.
        llvm_features: features for LLVM beyond those of the model.
        required_features: CPU features, by their names in /proc/cpuinfo, that code built for the board may use.
        cpu_features: CPU features that programs on the board find; more than ``required_features`` on a host.
        cores: CPU cores.
        memory_bytes: RAM.
        glibc: oldest glibc that programs built for the board must start on.
        system_glibc: glibc of the board's system; None where that is not known.
        qemu_cpu: CPU model of qemu-aarch64, None unless emulated.
        gpu: its GPU; None where it has none, and of this machine where nobody looked (:mod:`.devices`).
        facts: the board's file as it was read, with the sources.
        place: which one of several, by its table in boards.toml; None where the board's own name says it.
    """

    name: str
    title: str
    transport: Transport
    triple: str
    mcpu: str
    llvm_features: tuple[str, ...]
    required_features: tuple[str, ...]
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    glibc: str
    system_glibc: str | None
    qemu_cpu: str | None
    gpu: Gpu | None
    facts: BoardFile
    place: str | None = None

    @property
    def table(self) -> str:
        """The name of the table in boards.toml that says how it is reached."""
        return self.place or self.name

    @property
    def emulated(self) -> bool:
        """Whether something else stands in for the board, qemu or PoCL: results count, times say nothing about it."""
        return self.transport == "qemu" or self.stands_in_for_gpu

    @property
    def stands_in_for_gpu(self) -> bool:
        """Whether it runs what is built for GPUs on the CPU of this machine, and nothing else."""
        return self.gpu is not None and self.gpu.allows_cpu

    @property
    def threads(self) -> int:
        """Threads that an inference runs on if nothing else is said: one for each (big) core, one under an emulator."""
        return 1 if self.emulated else min(self.facts.big_cores or self.cores, MOST_THREADS)

    @property
    def zig_target(self) -> str:
        """The target of ``zig c++ -target``, which fixes the glibc floor of what it links."""
        return f"{self.triple}.{self.glibc}"

    def tvm_target(self) -> dict[str, str | list[str]]:
        """Returns the target as ``tvm.target.Target`` takes it."""
        target: dict[str, str | list[str]] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu}
        if self.llvm_features:
            target["mattr"] = list(self.llvm_features)
        return target


def load_board(name: str) -> Board:
    """Reads a board by its name, or by that of a place in the user's boards.toml.

    Raises:
        ConfigError: no board has that name, or its file is wrong.
        UnsupportedError: the board is this machine, and no CPU model of cpus.toml fits it.
    """
    if name not in board_names():
        return _board_at(name)
    return complete_board(name, read_board_file(BOARDS_FOLDER / f"{name}.toml"), read_machine())


def _board_at(place: str) -> Board:
    hosts, known = read_hosts(), board_names()
    if place not in hosts:
        raise unknown_name("board", place, {*known, *hosts})
    name, source = hosts[place].board, f"{config_path()}, [{place}]"
    if name is None:
        raise ConfigError(
            f'{source}: it does not say which board stands there. Add a line such as board = "raspberry-pi-4".'
        )
    if name not in known:
        raise ConfigError(f"{source}: {unknown_name('board', name, known)}")
    board = load_board(name)
    if board.transport != "ssh":
        raise ConfigError(f"{source}: {name} runs on this machine and stands in no other place. Say --board {name}.")
    return replace(board, place=place)


def list_boards() -> list[Board]:
    """Returns every board, in the order of names."""
    return [load_board(name) for name in board_names()]


def board_names() -> list[str]:
    """Returns the names that :func:`load_board` accepts, sorted."""
    return sorted(path.stem for path in BOARDS_FOLDER.glob("*.toml") if path != CPUS_FILE)


def boards_with(parts: Iterable[str]) -> list[str]:
    """Returns the names of the boards on the network whose cores have one of these numbers (``Cpu.part``)."""
    models = {name for name, cpu in read_cpus().items() if cpu.part in set(parts)}
    files = {name: read_board_file(BOARDS_FOLDER / f"{name}.toml") for name in board_names()}
    return [name for name, content in files.items() if content.transport == "ssh" and content.cpu in models]


def read_board_file(path: Path) -> BoardFile:
    """Reads ``<board>.toml``; keys that are unknown, missing or without a source are errors."""
    content = from_json(_toml_as_json(path), BoardFile, source=str(path))
    unsourced = content.facts() ^ set(content.sources)
    if unsourced:
        raise ConfigError(
            f"{path}: the facts and the [sources] differ in {', '.join(sorted(unsourced))}. "
            "Give every fact one source, and no source without its fact."
        )
    unsourced_gpu = content.gpu.facts() ^ set(content.gpu.sources) if content.gpu is not None else set()
    if unsourced_gpu:
        raise ConfigError(
            f"{path}: the facts of [gpu] and the [gpu.sources] differ in {', '.join(sorted(unsourced_gpu))}. "
            "Give every fact one source, and no source without its fact."
        )
    if (content.transport == "qemu") != (content.qemu_cpu is not None):
        raise ConfigError(
            f"{path}: transport is '{content.transport}' and qemu_cpu is {content.qemu_cpu!r}. "
            "Set qemu_cpu with the transport 'qemu', and only there."
        )
    if content.transport != "local" and content.cpu is None:
        raise ConfigError(
            f"{path}: cpu is missing. Name a model of {CPUS_FILE.name}; only a board that is this machine has none."
        )
    return content


def complete_board(name: str, content: BoardFile, machine: Machine) -> Board:
    """Joins a board's file with its CPU model, and with this machine where the file leaves facts open."""
    cpus = read_cpus()
    mcpu = content.cpu if content.cpu is not None else best_cpu(machine, cpus)
    if mcpu not in cpus:
        raise unknown_name("CPU model", mcpu, cpus)
    cpu = cpus[mcpu]
    is_this_machine = content.transport == "local"
    return Board(
        name=name,
        title=content.title,
        transport=content.transport,
        triple=cpu.triple,
        mcpu=cpu.model or mcpu,
        llvm_features=cpu.llvm_features,
        required_features=cpu.features,
        cpu_features=machine.cpu_features if is_this_machine else cpu.features,
        cores=content.cores or machine.cores,
        memory_bytes=content.memory_bytes or machine.memory_bytes,
        glibc=GLIBC_FLOOR,
        system_glibc=machine.glibc if is_this_machine else content.system_glibc,
        qemu_cpu=content.qemu_cpu,
        gpu=content.gpu,
        facts=content,
    )


def best_cpu(machine: Machine, cpus: dict[str, Cpu]) -> str:
    """Returns the most capable CPU model whose features the machine has all of.

    Raises:
        UnsupportedError: no model fits.
    """
    models = {name: cpu for name, cpu in cpus.items() if cpu.triple == machine.triple}
    fitting = [name for name, cpu in models.items() if set(cpu.features) <= set(machine.cpu_features)]
    if not fitting:
        raise UnsupportedError(
            f"this machine ({machine.triple}) has fewer CPU features than any model that svitkit builds for "
            f"(of its kind there are: {', '.join(models) or 'none'}). "
            "Build for another board, for example --board raspberry-pi-4, or run on a newer machine."
        )
    return max(fitting, key=lambda name: len(models[name].features))


@cache
def read_cpus(path: Path = CPUS_FILE) -> dict[str, Cpu]:
    """Reads cpus.toml: every CPU model by LLVM's name."""
    return from_json(_toml_as_json(path), dict[str, Cpu], source=str(path))


def _toml_as_json(path: Path) -> str:
    try:
        return json.dumps(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}. Mend the file, or install svitkit again.") from None
