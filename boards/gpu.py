"""The GPUs of boards: what kernels are compiled for, and the software that runs them."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

Device = Literal["cpu", "gpu"]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})*$")]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Gpu:
    """The table ``[gpu]`` of ``<board>.toml``, or what was found on this machine.

    Attributes:
        api: through which driver programs reach it: ``cuda`` (``libcuda.so.1``) or ``opencl`` (``libOpenCL.so.1``).
        name: what it is.
        architecture: its compute capability as CUDA's tools write it, ``sm_87``; None for OpenCL.
        allows_cpu: whether an OpenCL device that is a CPU may take its place; its times say nothing about a GPU.
        cuda: the oldest and the newest CUDA version among the JetPacks of ``jetpack``.
        jetpack: the oldest and the newest JetPack that it runs with programs of ours.
        device_tree: the string in the device tree's ``compatible`` that names the SoC.
        modules: part numbers of the modules that are this board, where others have the same SoC.
        cores: lanes that compute with float32.
        clock_mhz: their highest clock.
        sources: where each fact comes from, by its key; ``not verified`` where nothing was looked up.
    """

    api: Literal["cuda", "opencl"]
    name: str
    architecture: Annotated[str, Field(pattern=r"^sm_[0-9]{2,3}$")] | None = None
    allows_cpu: bool = False
    cuda: tuple[Version, Version] | None = None
    jetpack: tuple[Version, Version] | None = None
    device_tree: str | None = None
    modules: tuple[str, ...] | None = None
    cores: PositiveInt | None = None
    clock_mhz: PositiveInt | None = None
    sources: dict[str, str] = field(default_factory=dict)

    def facts(self) -> set[str]:
        """Returns the keys that need a source."""
        return {key for key, value in vars(self).items() if value is not None} & FACTS

    @property
    def kind(self) -> str:
        """What kernels are built for, in words: ``CUDA sm_87`` or ``OpenCL``."""
        return "OpenCL" if self.architecture is None else f"CUDA {self.architecture}"


FACTS = {entry.name for entry in fields(Gpu)} - {"api", "allows_cpu", "sources"}
