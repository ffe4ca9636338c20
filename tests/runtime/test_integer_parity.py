"""Integer networks: ONNX Runtime, this machine and emulated boards give the same spikes and logits, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from elftools.elf.elffile import ELFFile
from torch import nn

from svitkit.boards.board import MOST_THREADS, load_board
from svitkit.compress.pipeline import compress_model
from svitkit.data import Dataset, load_data
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Manifest, Mode
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.proven import build_proven, export_proven, random_samples, samples
from svitkit.runtime.build import build_bundle
from svitkit.runtime.cost_model import Method
from svitkit.runtime.pipeline import compile_network
from svitkit.runtime.vector_unit import vector_unit
from svitkit.zoo import ZOO
from tests.export.conftest import FAMILIES, build
from tests.export.quantized import quantize
from tests.runtime.recordings import (
    Array,
    Recording,
    assert_lively,
    assert_same_bits,
    by_board,
    by_onnx_runtime,
    by_session,
    emulated,
)

IMAGES, FEW = 500, 6
METHODS: tuple[Method, ...] = ("rows", "dense")
# SDOT of vectors and of one lane, Arm Architecture Reference Manual C7.2: the fixed bits, and what they are.
SDOT = ((0xFFE0FC00, 0x4E809400), (0xFFC0F400, 0x4F80E000))


@dataclass(frozen=True)
class Case:
    """An exported network, its inputs, and what ONNX Runtime computes from them."""

    onnx: Path
    inputs: Array
    wanted: Recording


def case(checkpoint: Checkpoint, onnx: Path, *, count: int = FEW, mode: Mode = "sequence") -> Case:
    """Exports a network and runs random inputs, which are multiples of 1/16, in ONNX Runtime."""
    metadata = export_onnx(checkpoint, onnx, mode=mode)
    inputs = np.round(random_samples(metadata, count=count, seed=0) * 16) / 16
    return Case(onnx, inputs, by_onnx_runtime(onnx, inputs))


@pytest.fixture
def build_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Case, str, Method | None], Manifest]:
    """Builds ``tmp_path / "bundle"`` for a board, with one method wherever it can be."""

    def build_case(network: Case, board: str, prefer: Method | None) -> Manifest:
        monkeypatch.setattr("svitkit.runtime.build.compile_network", partial(compile_network, prefer=prefer))
        return build_bundle(network.onnx, load_board(board), tmp_path / "bundle", golden=network.inputs[:2])

    return build_case


def kinds(manifest: Manifest) -> set[str]:
    """The first word of every layer's kernel."""
    return {choice.kernel.split("_")[0] for choice in manifest.kernels}


def has_sdot(library: Path) -> bool:
    """Whether there is an SDOT in a library for aarch64."""
    with library.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        words = np.frombuffer(section.data(), "<u4")
    return any(bool((words & mask == bits).any()) for mask, bits in SDOT)


@pytest.mark.parametrize(
    ("family", "bits", "static", "mode"),
    [
        ("spikformer", 4, True, "sequence"),
        ("spikformer", 8, True, "step"),
        ("spike-driven-transformer", 8, True, "sequence"),
        ("qkformer", 8, True, "sequence"),
        ("qkformer", 4, False, "sequence"),
        ("spikformer", 2, True, "sequence"),
        ("spike-driven-transformer", 3, True, "sequence"),
        ("spikformer", 6, True, "sequence"),
    ],
)
def test_spikes_and_logits_equal_onnx_runtime_bit_for_bit(
    tmp_path: Path, family: str, bits: int, static: bool, mode: Mode
) -> None:
    network = case(quantize(build(family, static), bits), tmp_path / "model.onnx", count=20, mode=mode)
    assert_lively(network.wanted)
    build_bundle(network.onnx, load_board("host"), tmp_path / "bundle", golden=network.inputs[:2])
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


@pytest.mark.parametrize("prefer", METHODS)
@pytest.mark.parametrize("bits", [8, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_dense_layers_of_integers_give_the_same_bits(
    tmp_path: Path, family: str, bits: int, prefer: Method, build_with: Callable[..., Manifest]
) -> None:
    network = case(quantize(build(family), bits), tmp_path / "model.onnx")
    manifest = build_with(network, "host", prefer)
    dot = vector_unit(load_board("host")).dot is not None
    assert ("event" in kinds(manifest)) == (prefer == "rows")
    assert ("dot" in kinds(manifest)) == (prefer == "dense" and dot)
    assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


def make_exact(model: nn.Module) -> None:
    """Rounds all that a network multiplies and adds to few binary places, so that float32 never rounds a sum.

    Weights become multiples of 1/64, the factors of batch norms powers of two, their offsets multiples of 1/16.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            factor = module.weight.data / (module.running_var + module.eps).sqrt()
            offset = module.bias.data - module.running_mean * factor
            module.weight.data = torch.exp2(torch.log2(factor).round())
            module.bias.data = (offset * 16).round() / 16
            module.running_mean, module.running_var = torch.zeros_like(factor), torch.ones_like(factor)
            module.eps = 0.0
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            for parameter in module.parameters(recurse=False):
                parameter.data = (parameter.data * 64).round() / 64


@pytest.mark.parametrize("family", FAMILIES)
def test_float_layers_give_the_same_bits_by_rows_and_dense_where_float32_never_rounds(
    tmp_path: Path, family: str, build_with: Callable[..., Manifest]
) -> None:
    exact = copy.deepcopy(build(family))
    make_exact(exact.model)
    network = case(exact, tmp_path / "model.onnx")
    assert_lively(network.wanted)
    for prefer in METHODS:
        manifest = build_with(network, "host", prefer)
        assert ("event" in kinds(manifest)) == (prefer == "rows")
        assert_same_bits(network.wanted, by_session(tmp_path / "bundle", network.inputs))


@pytest.mark.parametrize(
    ("board", "family", "bits", "prefer"),
    [
        ("qemu-cortex-a53", "spikformer", 4, None),
        ("qemu-cortex-a53", "spikformer", 2, None),
        ("qemu-cortex-a72", "spike-driven-transformer", 3, None),
        ("qemu-cortex-a53", "spike-driven-transformer", 8, None),
        ("qemu-cortex-a53", "qkformer", 8, "dense"),
        ("qemu-cortex-a76", "spikformer", 8, "dense"),
        ("qemu-cortex-a76", "spike-driven-transformer", 4, "dense"),
        pytest.param("qemu-cortex-a76", "qkformer", 4, None, marks=pytest.mark.slow),
        ("qemu-cortex-a76", "qkformer", 8, "dense"),
    ],
)
def test_emulated_boards_equal_onnx_runtime_bit_for_bit(
    tmp_path: Path, board: str, family: str, bits: int, prefer: Method | None, build_with: Callable[..., Manifest]
) -> None:
    network = case(quantize(build(family), bits), tmp_path / "model.onnx")
    with emulated(board) as transport:
        manifest = build_with(network, board, prefer)
        if prefer == "dense":
            assert ("dot" in kinds(manifest)) == has_sdot(tmp_path / "bundle" / "model.so") == (board[-3:] == "a76")
        assert_same_bits(network.wanted, by_board(tmp_path / "bundle", network.inputs, transport, tmp_path))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module", params=["int8", "int4"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Case:
    """The packaged network with integer weights, the way a user gets it, and all test and some training images."""
    folder = tmp_path_factory.mktemp(request.param)
    original = load_checkpoint(ZOO["digits-spikformer"])
    compress_model(original, digits, folder / "small", method=request.param, limit=32)
    onnx = folder / "model.onnx"
    metadata = export_proven(load_checkpoint(folder / "small"), onnx, dataset=digits)
    test = samples(digits, "test", metadata, limit=IMAGES)
    train = samples(digits, "train", metadata, limit=IMAGES - len(test))
    inputs = np.concatenate([test, train])
    return Case(onnx, inputs, by_onnx_runtime(onnx, inputs))


def test_a_trained_network_equals_onnx_runtime_on_500_images_here(
    trained: Case, digits: Dataset, tmp_path: Path
) -> None:
    assert len(trained.inputs) == IMAGES
    assert_lively(trained.wanted)
    build_proven(trained.onnx, load_board("host"), tmp_path / "bundle", digits)
    for threads in {1, min(load_board("host").cores, MOST_THREADS)}:
        assert_same_bits(trained.wanted, by_session(tmp_path / "bundle", trained.inputs, threads=threads))


@pytest.mark.parametrize(
    "board",
    [
        "qemu-cortex-a72",
        pytest.param("qemu-cortex-a53", marks=pytest.mark.slow),
        pytest.param("qemu-cortex-a76", marks=pytest.mark.slow),
    ],
)
def test_a_trained_network_equals_onnx_runtime_on_500_images_on_emulated_boards(
    trained: Case, digits: Dataset, board: str, tmp_path: Path
) -> None:
    with emulated(board) as transport:
        build_proven(trained.onnx, load_board(board), tmp_path / "bundle", digits)
        assert_same_bits(trained.wanted, by_board(tmp_path / "bundle", trained.inputs, transport, tmp_path))
