"""Plays a program for CUDA with the interpreter, as ``libsvit`` plays it with a driver (``program.txt``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.ptx.machine import Module
from tests.runtime.ptx.memory import ITEM_BYTES, Argument, Memory, Tensor
from tests.runtime.ptx.parser import PtxError

Array = NDArray[Any]


@dataclass(frozen=True)
class _Launch:
    symbol: str
    blocks: int
    threads: int
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Tap:
    layer: str
    tensor: Tensor
    shape: tuple[int, ...]
    launch: int
    order: tuple[int, ...]

    def spikes(self, content: Array) -> Array:
        """(T * neurons,) uint8 in the order of the exported graph, of the tensor's bytes."""
        if self.tensor.dtype == "uint1":
            bits = np.unpackbits(content.reshape(prod(self.shape[:-1]), -1), axis=1, bitorder="little")
            content = bits[:, : self.shape[-1]]
        return content.reshape(self.shape).transpose(self.order).ravel()


class Player:
    """A bundle for CUDA, loaded.

    Args:
        bundle: folder with ``program.txt``, ``weights.bin`` and ``kernels.ptx``.

    Raises:
        PtxError: the kernels hold what the interpreter does not know, or one does what it must not.
    """

    def __init__(self, bundle: Path) -> None:
        lines = [line.split() for line in (bundle / "program.txt").read_text().splitlines()]
        self.module = Module((bundle / "kernels.ptx").read_text())
        self.timesteps = next((int(words[1]) for words in lines if words[0] == "steps"), 1)
        shapes = {int(words[1]): tuple(map(int, words[7:])) for words in lines if words[0] == "tensor"}
        self.tensors = {int(words[1]): _tensor(words) for words in lines if words[0] == "tensor"}
        self.states = {self.tensors[int(words[1])]: float(words[2]) for words in lines if words[0] == "state"}
        self.input, self.output = (self.tensors[_number(lines, name)] for name in ("input", "output"))
        self.launches = [self._launch(words) for words in lines if words[0] == "launch"]
        orders = {words[1]: tuple(map(int, words[3:])) for words in lines if words[0] == "taporder"}
        self.taps = [
            _Tap(words[1], self._stored(int(words[2])), shapes[int(words[2])], int(words[3]), orders[words[1]])
            for words in lines
            if words[0] == "tap"
        ]
        sizes = next(words for words in lines if words[0] == "sizes")
        self.memory = Memory(dict(zip(sizes[1::2], map(int, sizes[2::2]), strict=True)))
        self.memory.data["weights"][:] = np.fromfile(bundle / "weights.bin", np.uint8)
        self._load(lines)

    def run(self, x: Array) -> tuple[Array, dict[str, Array]]:
        """Runs an inference from rest.

        Args:
            x: float32, normalized: the input, or one for every time step.

        Returns:
            (classes,) float32 logits, their mean where there are steps; (T * neurons,) uint8 spikes by layer.
        """
        for tensor, value in self.states.items():
            self.memory.put(tensor, np.full(tensor.size_bytes // tensor.item_bytes, value, tensor.dtype).tobytes())
        frames = x.reshape(-1, self.input.size_bytes // 4)
        steps = [self._step(frames[min(step, len(frames) - 1)]) for step in range(self.timesteps)]
        total = steps[0][0]
        for logits, _ in steps[1:]:
            total = total + logits
        spikes = {tap.layer: np.concatenate([step[tap.layer] for _, step in steps]) for tap in self.taps}
        return total / np.float32(len(steps)), spikes

    def _step(self, frame: Array) -> tuple[Array, dict[str, Array]]:
        self.memory.owners["workspace"][:] = self._loaded
        self.memory.put(self.input, frame.astype(np.float32).tobytes())
        spikes = {}
        for number, launch in enumerate(self.launches):
            self._play(launch)
            for tap in self.taps:
                if tap.launch == number:
                    spikes[tap.layer] = tap.spikes(self.memory.get(tap.tensor))
        return self.memory.get(self.output).view(np.float32), spikes

    def _load(self, lines: Sequence[list[str]]) -> None:
        for words in lines:
            if words[0] == "expand":
                self._expand(*(self.tensors[int(number)] for number in words[1:4]), int(words[4]))
        for words in lines:
            if words[0] == "prepare":
                self._play(self._launch(words))
        self._loaded = self.memory.owners["workspace"].copy()

    def _expand(self, out: Tensor, bitmap: Tensor, values: Tensor, background: int) -> None:
        bits, stored = (self.memory.data[tensor.space][tensor.bytes] for tensor in (bitmap, values))
        elements = np.full(out.size_bytes // out.item_bytes, background, f"u{out.item_bytes}")
        chosen = np.unpackbits(bits, bitorder="little")[: len(elements)].astype(bool)
        elements[chosen] = stored.view(elements.dtype)
        self.memory.put(out, elements.tobytes())

    def _launch(self, words: Sequence[str]) -> _Launch:
        blocks, *ones, threads, one, last = map(int, words[3:9])
        if {*ones, one, last} != {1}:
            raise PtxError(f"{words[1]} has more than one dimension")
        return _Launch(words[1], blocks, threads, tuple(self.tensors[int(number)] for number in words[10:]))

    def _play(self, launch: _Launch) -> None:
        arguments = {tensor: Argument(self.memory, tensor) for tensor in launch.tensors}
        for one, other in combinations(arguments, 2):
            if one.space == other.space and one.bytes.start < other.bytes.stop and other.bytes.start < one.bytes.stop:
                raise PtxError(f"{launch.symbol}: {one.name} and {other.name} share memory")
        self.module.launch(
            launch.symbol, launch.blocks, launch.threads, [arguments[tensor] for tensor in launch.tensors]
        )

    def _stored(self, number: int) -> Tensor:
        """The tensor that launches write, of one that a tap names a second time."""
        tap = self.tensors[number]
        written = {tensor for launch in self.launches for tensor in launch.tensors}
        (found,) = (each for each in written if each.name == tap.name and each.bytes == tap.bytes)
        return found


def _tensor(words: Sequence[str]) -> Tensor:
    number, name, dtype, space, offset = int(words[1]), *words[2:5], int(words[5])
    shape = tuple(map(int, words[7:]))
    elements = prod(shape[:-1]) * (-(-shape[-1] // 32) if dtype == "uint1" else shape[-1])
    return Tensor(number, name, dtype, space, offset, elements * ITEM_BYTES[dtype])


def _number(lines: Sequence[list[str]], name: str) -> int:
    return int(next(words[1] for words in lines if words[0] == name))
